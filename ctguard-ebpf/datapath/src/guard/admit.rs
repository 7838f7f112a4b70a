//! Admits a new flow or refuses it: its standing first, then the grant, then the limits.

use super::{
    Guard, Offered, Scope, Tables,
    outcome::{Decision, Vouched},
    standing::Standing,
};
use crate::{
    admission::{
        self, Admission, Candidate, Limited, Refusal,
        grant::{self, Allowance},
    },
    bucket::{Cells, line_index},
    hash::{self, low_word},
    layout::{
        Ceiling, Class, Interface, Limits, OperatorLimits, Policy, SCRATCH_WORDS, TIER_SLOTS, Tier,
    },
    packet::TcpFlags,
    shared::Shared,
    units::Jiffies,
};

/// The tuple of a packet. Its family is a number, so that the program has what follows once.
#[derive(Clone, Copy)]
pub(super) struct Tuple {
    pub(super) family: u32,
    /// What its source is told by.
    pub(super) scope: u64,
    /// The number of its kind.
    pub(super) kind: u32,
    /// Its key (see [`crate::classify::Flow::key`]).
    pub(super) key: u32,
    pub(super) flags: TcpFlags,
    pub(super) hash: u64,
    /// Hash of the service asked for, where services have limits.
    pub(super) service: u64,
    /// Of TCP.
    pub(super) sequence: u32,
}

/// What was decided on it, in numbers, which go through the scratch memory too.
#[derive(Clone, Copy)]
pub(super) struct Decided {
    /// A [`Decision`].
    pub(super) decision: u32,
    /// The [`Tier`] in which it was.
    pub(super) tier: u32,
    /// 1: the daemon shall be woken.
    pub(super) wake: u32,
    /// 1: the packet goes on, admitted or in a dry run.
    pub(super) passes: u32,
}

impl Tuple {
    /// A SYN without ACK; other segments of TCP that open a flow have ACK.
    #[inline(always)]
    pub(super) const fn is_syn(&self) -> bool {
        self.flags.any(TcpFlags::SYN) && !self.flags.any(TcpFlags::ACK)
    }
}

/// A packet that asks to open a flow, or a RST.
///
/// It goes through the scratch memory to what decides on it: of what comes back the verifier knows
/// nothing, so it walks that once, and not once for each way that led there.
#[derive(Clone, Copy)]
pub(super) struct Opening {
    /// A [`crate::layout::Class`].
    pub(super) class: u32,
    /// [`Tier::Allowed`], or [`Tier::Strangers`] until more is known.
    pub(super) tier: u32,
    /// A [`Vouched`].
    pub(super) vouched: u32,
    /// Its tuple; of one that cannot be told, the source alone.
    pub(super) tuple: Tuple,
    /// 1: the tuple can be told.
    pub(super) has_tuple: u32,
    /// 1: a live connection has its tuple.
    pub(super) outlasts: u32,
    /// 1: it is a RST and opens nothing.
    pub(super) is_reset: u32,
}

impl Opening {
    #[inline(always)]
    pub(super) fn write(&self, scratch: &[Shared; SCRATCH_WORDS]) {
        let Tuple { family, scope, kind, key, flags, hash, service, sequence } = self.tuple;
        scratch[0].store(self.class.into());
        scratch[1].store(self.tier.into());
        scratch[2].store(self.vouched.into());
        scratch[3].store(family.into());
        scratch[4].store(scope);
        scratch[5].store(kind.into());
        scratch[6].store(key.into());
        scratch[7].store(flags.0.into());
        scratch[8].store(hash);
        scratch[9].store(service);
        scratch[10].store(sequence.into());
        scratch[11].store(self.has_tuple.into());
        scratch[12].store(self.outlasts.into());
        scratch[13].store(self.is_reset.into());
    }

    #[inline(always)]
    pub(super) fn read(scratch: &[Shared; SCRATCH_WORDS]) -> Self {
        let word = |place: usize| low_word(scratch[place].load());
        Self {
            class: word(0),
            tier: word(1),
            vouched: word(2),
            tuple: Tuple {
                family: word(3),
                scope: scratch[4].load(),
                kind: word(5),
                key: word(6),
                flags: TcpFlags(word(7)),
                hash: scratch[8].load(),
                service: scratch[9].load(),
                sequence: word(10),
            },
            has_tuple: word(11),
            outlasts: word(12),
            is_reset: word(13),
        }
    }
}

impl<T: Tables> Guard<'_, T> {
    /// Admits a packet or refuses it.
    #[inline(always)]
    pub(super) fn admit(&self, opening: &Opening, now: Jiffies) -> Decided {
        let tables = &self.tables;
        let (Some(grant), Some(policy), Some(limits)) =
            (tables.grant(), tables.policy(), tables.limits())
        else {
            return self.decided(Decision::UnknownInterface as u32, opening.tier, false, true);
        };
        let dry_run = policy.has(Policy::DRY_RUN);
        let Tuple { family, scope, .. } = opening.tuple;
        let hash = hash::source(&self.environment.fixed.source_key, opening.class, family, scope);
        let line = line_index(hash, self.environment.fixed.source_line_mask);
        let standing = self.standing(opening, (limits, grant), dry_run, now);
        let (tier, known) = match standing {
            Standing::Of(tier, known) => (tier, known),
            Standing::Ended(decision) => {
                self.note_offered(opening, line, Tier::Strangers as u32);
                let wake = limits.is_calm() && grant::is_first_in_jiffy(grant, now);
                return self.decided(decision as u32, Tier::Strangers as u32, wake, dry_run);
            }
        };

        let interface = tables.interface();
        let rests_on_admission = opening.vouched != Vouched::No as u32;
        // On an interface without a slot nobody has a ceiling; the grant holds there too.
        let is_limited = interface.is_some() && !rests_on_admission && tier != Tier::Allowed as u32;
        let allowance = grant::peek(grant, tier, self.environment, now);
        let (result, wake) = if allowance == Allowance::Spent {
            // Before all that lies elsewhere in memory: a flood from everywhere reads it in vain.
            (Err(Refusal::Grant), grant::is_first_in_jiffy(grant, now))
        } else {
            let source = match interface {
                Some(interface) if is_limited => {
                    let ceiling = stricter(interface, limits, tier, opening.class);
                    let cells = match &known {
                        Some(known) => Some(known.cells(opening.class)),
                        None => self.cells(Scope::Source, line, hash),
                    };
                    cells.map(|cells| Limited { cells, ceiling })
                }
                Some(_) | None => None,
            };
            let candidate = Candidate {
                source,
                prefix_excess: self.prefix(opening, is_limited, |prefix| prefix.excess(now)),
                service_excess: self.service(opening, is_limited, |service| service.excess(now)),
                tier,
                vouched: rests_on_admission,
            };
            let Admission { result, wake } =
                admission::admit(&candidate, allowance, grant, policy, now);
            if result.is_ok() {
                let charge = |limited: Limited<'_>| {
                    limited.charge(now);
                    0
                };
                self.prefix(opening, is_limited, charge);
                self.service(opening, is_limited, charge);
            }
            (result, wake)
        };
        if let Some(known) = &known {
            known.note_offered(opening.class);
        } else if is_limited {
            self.note_offered(opening, line, tier);
        }
        let decision = match result {
            Err(refusal) => Decision::refused(refusal),
            Ok(()) if opening.vouched == Vouched::Known as u32 => Decision::Known as u32,
            Ok(()) if rests_on_admission => Decision::Repeated as u32,
            Ok(()) if interface.is_none() => Decision::UnknownInterface as u32,
            Ok(()) => Decision::Admitted as u32,
        };
        self.decided(decision, tier, wake, result.is_ok() || dry_run)
    }

    #[inline(always)]
    fn decided(&self, decision: u32, tier: u32, wake: bool, passes: bool) -> Decided {
        let scratch = self.tables.scratch();
        scratch[14].store(u64::from(decision) | u64::from(tier) << 32);
        scratch[15].store(u64::from(wake) | u64::from(passes) << 32);
        let (decided, flags) = (scratch[14].load(), scratch[15].load());
        Decided {
            decision: low_word(decided),
            tier: low_word(decided >> 32),
            wake: low_word(flags),
            passes: low_word(flags >> 32),
        }
    }

    #[inline(always)]
    fn cells(&self, scope: Scope, line: u32, hash: u64) -> Option<Cells<'_>> {
        self.tables.bucket_line(scope, line).map(|line| Cells::peek(line, hash))
    }

    /// Does something with the cells of the prefix, if prefixes have limits; else it comes to 0.
    /// They are found again when they are charged: to keep them meanwhile would have the verifier
    /// follow each scope's being in use or not through all that lies between.
    #[inline(always)]
    fn prefix(
        &self,
        opening: &Opening,
        is_limited: bool,
        act: impl FnOnce(Limited<'_>) -> i64,
    ) -> i64 {
        let environment = self.environment;
        if !is_limited || environment.operator.scopes_in_use & OperatorLimits::PREFIX == 0 {
            return self.blur().hide(0).into();
        }
        let Tuple { family, scope, .. } = opening.tuple;
        let prefix = prefix_of(family, scope);
        let hash = hash::prefix(&environment.fixed.source_key, opening.class, family, prefix);
        let ceiling = &environment.operator.prefix[Class::slot(opening.class)];
        let limited =
            self.limited(Scope::Prefix, hash, environment.fixed.prefix_line_mask, ceiling);
        limited.map_or(self.blur().hide(0).into(), act)
    }

    /// The same with the cells of the service.
    #[inline(always)]
    fn service(
        &self,
        opening: &Opening,
        is_limited: bool,
        act: impl FnOnce(Limited<'_>) -> i64,
    ) -> i64 {
        let environment = self.environment;
        let in_use = environment.operator.scopes_in_use & OperatorLimits::SERVICE != 0;
        if !is_limited || !in_use || opening.has_tuple == 0 {
            return self.blur().hide(0).into();
        }
        let hash = opening.tuple.service;
        let ceiling = &environment.operator.service[Class::slot(opening.class)];
        let limited =
            self.limited(Scope::Service, hash, environment.fixed.service_line_mask, ceiling);
        limited.map_or(self.blur().hide(0).into(), act)
    }

    #[inline(always)]
    fn limited<'l>(
        &'l self,
        scope: Scope,
        hash: u64,
        line_mask: u32,
        ceiling: &'l Ceiling,
    ) -> Option<Limited<'l>> {
        if ceiling.interval.0 == 0 {
            return None;
        }
        let cells = self.cells(scope, line_index(hash, line_mask), hash)?;
        Some(Limited { cells, ceiling })
    }

    #[inline(always)]
    fn note_offered(&self, opening: &Opening, line: u32, tier: u32) {
        if !self.tables.samples() {
            return;
        }
        let Tuple { family, scope, .. } = opening.tuple;
        let offered = Offered { address: scope, family, class: opening.class, tier };
        self.tables.note_offered(line, offered);
    }
}

/// The prefix of a source: an IPv4 /24, an IPv6 /48, as the number that its bits are.
#[inline(always)]
const fn prefix_of(family: u32, scope: u64) -> u64 {
    if family == 4 { scope >> 8 } else { scope >> 16 }
}

/// The stricter of the ceiling and the share in force.
#[inline(always)]
fn stricter<'l>(
    interface: &'l Interface,
    limits: &'l Limits,
    tier: u32,
    class: u32,
) -> &'l Ceiling {
    let ceiling = &interface.ceilings[Class::slot(class)];
    let share = &limits.shares[tier as usize & (TIER_SLOTS - 1)][Class::slot(class)];
    if share.interval > ceiling.interval { share } else { ceiling }
}
