//! Admits a new flow or refuses it: first its tier, then the grant, then the limits.

use super::{
    Guard, Judgement, Offered, Scope, Tables,
    opening::{Opening, Tuple},
    tier::{Standing, TierOrChallenge},
};
use crate::{
    admission::{
        self, Admission, Candidate, Limited,
        grant::{self, Allowance},
    },
    bucket::{Cells, line_index},
    hash,
    layout::{
        Ceiling, Class, Grant, Interface, Limits, OperatorLimits, Outcome, Policy, TIER_SLOTS, Tier,
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

/// What decides on a new flow.
pub(super) struct Rules<'l> {
    pub(super) grant: &'l Grant,
    pub(super) policy: &'l Policy,
    pub(super) limits: &'l Limits,
    /// An interface without a slot has no ceilings, but the grant holds there too.
    pub(super) interface: Option<&'l Interface>,
}

impl Rules<'_> {
    /// Whether SYNs are answered on the packet's interface; never on one without a slot.
    #[inline(always)]
    pub(super) fn can_answer(&self) -> bool {
        self.interface.is_some_and(|interface| interface.answers_nothing == 0)
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
            return self.decided(opening, Outcome::UnknownInterface, opening.tier, false, true);
        };
        if opening.is_exempt && grant::take_rate(&grant.exempt, now) {
            return self.decided(opening, Outcome::Exempt, opening.tier, false, true);
        }
        let dry_run = policy.has(Policy::DRY_RUN);
        let rules = Rules { grant, policy, limits, interface: tables.interface() };
        let standing = match self.tier_or_challenge(opening, &rules, now) {
            TierOrChallenge::Tier(standing) => tables.cpu_state().standing.hide(standing),
            TierOrChallenge::Challenge(outcome, is_spent_in_calm) => {
                let is_retried = outcome == Outcome::RefusedGrant;
                let tier = if is_retried { Tier::Retried } else { Tier::Strangers } as u32;
                let tier = self.zero().hide(tier);
                let Tuple { family, scope, .. } = opening.tuple;
                self.note_offered(family, scope, opening.class, tier);
                let wake = is_spent_in_calm && grant::is_first_in_jiffy(grant, now);
                return self.decided(opening, outcome, tier, wake, dry_run);
            }
        };

        let tier = standing.tier;
        let follows_admission = opening.follows_admission();
        let is_limited = is_limited(opening, &rules, tier);
        let allowance = self.allowance(&rules, tier, now);
        let (outcome, wake) = match allowance {
            // Before any cell is read: under a flood nearly every packet ends here.
            Allowance::Spent => (Outcome::RefusedGrant, grant::is_first_in_jiffy(grant, now)),
            Allowance::FallbackSpent if !follows_admission => (Outcome::RefusedFallback, false),
            Allowance::Left | Allowance::Fallback | Allowance::FallbackSpent => {
                let candidate = Candidate {
                    source: self.source(opening, &rules, standing),
                    prefix_excess: self.prefix(opening, is_limited, |prefix| prefix.excess(now)),
                    service_excess: self.service(opening, is_limited, |it| it.excess(now)),
                    tier,
                    follows_admission,
                };
                let Admission { outcome, wake } =
                    admission::admit(&candidate, allowance, grant, policy, now);
                if outcome == Outcome::Admitted {
                    self.forget_answer(standing.answer);
                    let charge = |limited: Limited<'_>| {
                        limited.charge(now);
                        0
                    };
                    self.prefix(opening, is_limited, charge);
                    self.service(opening, is_limited, charge);
                    if standing.cells != opening.class {
                        // So that a ceiling holds for all flows of a source.
                        let unproven = Standing { cells: opening.class, ..standing };
                        let _ = self.source(opening, &rules, unproven).map(charge);
                    }
                }
                (outcome, wake)
            }
        };
        if let Some(known) = tables.source_cells(standing.known) {
            // Known sources are few, so their flows need no sampling.
            known.offered[Class::slot(opening.class)].add(1);
        } else if is_limited {
            let Tuple { family, scope, .. } = opening.tuple;
            self.note_offered(family, scope, opening.class, tier);
        }
        let passes = outcome == Outcome::Admitted || dry_run;
        let outcome = if outcome != Outcome::Admitted {
            outcome
        } else if !follows_admission && rules.interface.is_none() {
            Outcome::UnknownInterface
        } else {
            opening.passes_as
        };
        self.decided(opening, outcome, tier, wake, passes)
    }

    #[inline(always)]
    pub(super) fn allowance(&self, rules: &Rules<'_>, tier: u32, now: Jiffies) -> Allowance {
        grant::peek(rules.grant, tier, self.environment, rules.policy, now)
    }

    /// The cells of a source, and the stricter of ceiling and share; `None` if it has no limit.
    #[inline(always)]
    pub(super) fn source<'l>(
        &'l self,
        opening: &Opening,
        rules: &Rules<'l>,
        standing: Standing,
    ) -> Option<Limited<'l>> {
        if !is_limited(opening, rules, standing.tier) {
            return None;
        }
        let ceiling = stricter(rules.interface?, rules.limits, standing.tier, opening.class);
        if ceiling.interval.0 == 0 {
            return None;
        }
        let known =
            if standing.cells == Class::RETRIED { Standing::UNKNOWN } else { standing.known };
        let cells = if let Some(known) = self.tables.source_cells(known) {
            Cells::exact(&known.arrivals[Class::slot(standing.cells)])
        } else {
            let Tuple { family, scope, .. } = opening.tuple;
            let hash = self.source_hash(family, scope, standing.cells);
            let line = line_index(hash, self.environment.fixed.source_line_mask);
            self.cells(Scope::Source, line, hash)?
        };
        Some(Limited { cells, ceiling })
    }

    #[inline(always)]
    pub(super) const fn source_hash(&self, family: u32, scope: u64, class: u32) -> u64 {
        hash::source(&self.environment.fixed.source_key, class, family, scope)
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
    pub(super) fn cells(&self, scope: Scope, line: u32, hash: u64) -> Option<Cells<'_>> {
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
    pub(super) fn note_offered(&self, family: u32, scope: u64, class: u32, tier: u32) {
        if !self.tables.samples() || self.tables.interface().is_none() {
            return;
        }
        let hash = self.source_hash(family, scope, class);
        let line = line_index(hash, self.environment.fixed.source_line_mask);
        let offered = Offered { address: scope, family, class, tier };
        self.tables.note_offered(line, offered);
    }
}

#[inline(always)]
fn is_limited(opening: &Opening, rules: &Rules<'_>, tier: u32) -> bool {
    rules.interface.is_some() && !opening.follows_admission() && tier != Tier::Allowed as u32
}

/// The prefix of a source as a number: an IPv4 /24 or an IPv6 /48.
#[inline(always)]
const fn prefix_of(family: u32, scope: u64) -> u64 {
    if family == 4 { scope >> 8 } else { scope >> 16 }
}

/// The stricter of the ceiling and the share in force; an interval of 0 is none.
#[inline(always)]
pub(super) fn stricter<'l>(
    interface: &'l Interface,
    limits: &'l Limits,
    tier: u32,
    class: u32,
) -> &'l Ceiling {
    let ceiling = &interface.ceilings[Class::slot(class)];
    let share = &limits.shares[tier as usize & (TIER_SLOTS - 1)][Class::slot(class)];
    if share.interval > ceiling.interval { share } else { ceiling }
}
