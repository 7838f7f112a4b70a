//! Admits a new flow or refuses it: first its tier, then the grant, then the limits.

use super::{
    Guard, Judgement, Offered, Scope, Tables,
    opening::{Opening, Tuple},
    tier::TierOrChallenge,
};
use crate::{
    admission::{
        self, Admission, Candidate, Limited,
        grant::{self, Allowance},
    },
    bucket::{Cells, line_index},
    hash,
    layout::{
        Ceiling, Class, Interface, Limits, OperatorLimits, Outcome, Policy, TIER_SLOTS, Tier,
    },
    units::Jiffies,
};

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Decided {
    pub(super) judgement: Judgement,
    /// Whether the packet goes on, admitted or in a dry run.
    pub(super) passes: bool,
}

impl<T: Tables> Guard<'_, T> {
    /// Admits a packet or refuses it.
    #[inline(always)]
    pub(super) fn admit(&self, opening: &Opening, now: Jiffies) -> Decided {
        let tables = &self.tables;
        let (Some(grant), Some(policy), Some(limits)) =
            (tables.grant(), tables.policy(), tables.limits())
        else {
            return self.decided(opening, Outcome::UnknownInterface, opening.tier, false, true);
        };
        let dry_run = policy.has(Policy::DRY_RUN);
        let Tuple { family, scope, .. } = opening.tuple;
        let hash = hash::source(&self.environment.fixed.source_key, opening.class, family, scope);
        let line = line_index(hash, self.environment.fixed.source_line_mask);
        let found = self.tier_or_challenge(opening, (limits, grant), dry_run, now);
        let (tier, known) = match found {
            TierOrChallenge::Tier(tier, known) => (tier, known),
            TierOrChallenge::Challenge(outcome) => {
                let tier = Tier::Strangers as u32;
                self.note_offered(opening, line, tier);
                let wake = limits.is_calm() && grant::is_first_in_jiffy(grant, now);
                return self.decided(opening, outcome, tier, wake, dry_run);
            }
        };

        let interface = tables.interface();
        let follows_admission = opening.follows_admission();
        // An interface without a slot has no ceilings, but the grant holds there too.
        let is_limited = interface.is_some() && !follows_admission && tier != Tier::Allowed as u32;
        let allowance = grant::peek(grant, tier, self.environment, now);
        let (outcome, wake) = if allowance == Allowance::Spent {
            // Before any cell is read: under a flood nearly every packet ends here.
            (Outcome::RefusedGrant, grant::is_first_in_jiffy(grant, now))
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
                follows_admission,
            };
            let Admission { outcome, wake } =
                admission::admit(&candidate, allowance, grant, policy, now);
            if outcome == Outcome::Admitted {
                let charge = |limited: Limited<'_>| {
                    limited.charge(now);
                    0
                };
                self.prefix(opening, is_limited, charge);
                self.service(opening, is_limited, charge);
            }
            (outcome, wake)
        };
        if let Some(known) = &known {
            known.note_offered(opening.class);
        } else if is_limited {
            self.note_offered(opening, line, tier);
        }
        let passes = outcome == Outcome::Admitted || dry_run;
        let outcome = if outcome != Outcome::Admitted {
            outcome
        } else if !follows_admission && interface.is_none() {
            Outcome::UnknownInterface
        } else {
            opening.passes_as
        };
        self.decided(opening, outcome, tier, wake, passes)
    }

    #[inline(always)]
    fn decided(
        &self,
        opening: &Opening,
        outcome: Outcome,
        tier: u32,
        wake: bool,
        passes: bool,
    ) -> Decided {
        let judgement = Judgement::of(outcome, opening.class).in_tier(tier, wake);
        self.tables.cpu_state().decided.hide(Decided { judgement, passes })
    }

    #[inline(always)]
    fn cells(&self, scope: Scope, line: u32, hash: u64) -> Option<Cells<'_>> {
        self.tables.bucket_line(scope, line).map(|line| Cells::peek(line, hash))
    }

    /// Calls `act` with the cells of the prefix if prefixes have limits, and returns 0 if not.
    /// Charging looks the cells up again: if they were kept, the verifier would walk all code
    /// between once for each combination of scopes in use.
    #[inline(always)]
    fn prefix(
        &self,
        opening: &Opening,
        is_limited: bool,
        act: impl FnOnce(Limited<'_>) -> i64,
    ) -> i64 {
        let environment = self.environment;
        if !is_limited || environment.operator.scopes_in_use & OperatorLimits::PREFIX == 0 {
            return self.zero().hide(0).into();
        }
        let Tuple { family, scope, .. } = opening.tuple;
        let prefix = prefix_of(family, scope);
        let hash = hash::prefix(&environment.fixed.source_key, opening.class, family, prefix);
        let ceiling = &environment.operator.prefix[Class::slot(opening.class)];
        let limited =
            self.limited(Scope::Prefix, hash, environment.fixed.prefix_line_mask, ceiling);
        limited.map_or(self.zero().hide(0).into(), act)
    }

    /// The same for the service.
    #[inline(always)]
    fn service(
        &self,
        opening: &Opening,
        is_limited: bool,
        act: impl FnOnce(Limited<'_>) -> i64,
    ) -> i64 {
        let environment = self.environment;
        let in_use = environment.operator.scopes_in_use & OperatorLimits::SERVICE != 0;
        if !is_limited || !in_use || !opening.has_tuple {
            return self.zero().hide(0).into();
        }
        let hash = opening.tuple.service;
        let ceiling = &environment.operator.service[Class::slot(opening.class)];
        let limited =
            self.limited(Scope::Service, hash, environment.fixed.service_line_mask, ceiling);
        limited.map_or(self.zero().hide(0).into(), act)
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

/// The prefix of a source as a number: an IPv4 /24 or an IPv6 /48.
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
