//! Refuses nearly all of a flood before its packets are carried to the code that admits flows.

use super::{Guard, Judgement, Scope, Tables, admit::stricter};
use crate::{
    admission::{
        Limited,
        grant::{self, Allowance},
    },
    bucket::line_index,
    classify::Flow,
    hash,
    layout::{Class, Outcome, Policy, Stage, Tier},
    packet::Address,
    sources,
    units::Jiffies,
};

impl<T: Tables> Guard<'_, T> {
    /// The judgement of a flow's first packet that [`Guard::admit`] would refuse as a stranger's, if
    /// that is to be seen from the stage, the grant and the source's cells alone;
    /// [`Judgement::UNDECIDED`] for any other: of sources that may be known, and all in a dry run.
    /// Not for SYNs that may be answered.
    #[inline(always)]
    pub(super) fn refuse_early<A: Address>(
        &self,
        source: A,
        flow: Flow,
        now: Jiffies,
    ) -> Judgement {
        let tables = &self.tables;
        let (Some(grant), Some(policy), Some(limits)) =
            (tables.grant(), tables.policy(), tables.limits())
        else {
            return Judgement::UNDECIDED;
        };
        let is_challenged = limits.stage(flow.class) == Stage::Challenge;
        let may_be_retried = !matches!(flow.class, Class::Tcp) || flow.is_syn();
        if policy.has(Policy::DRY_RUN) || is_challenged && may_be_retried {
            return Judgement::UNDECIDED;
        }
        let strangers = Tier::Strangers as u32;
        let allowance = grant::peek(grant, strangers, self.environment, policy, now);
        let scope = source.source_scope();
        if allowance.is_spent() || !limits.is_calm() {
            let hash = hash::scope(&self.environment.fixed.source_key, A::FAMILY, scope);
            if sources::may_hold(tables, hash) {
                return Judgement::UNDECIDED;
            }
        }
        let class = flow.class as u32;
        let (outcome, wake) = if is_challenged {
            (Outcome::RefusedChallenge, false)
        } else if allowance == Allowance::Spent {
            (Outcome::RefusedGrant, grant::is_first_in_jiffy(grant, now))
        } else if allowance == Allowance::FallbackSpent {
            (Outcome::RefusedFallback, false)
        } else {
            let Some(interface) = tables.interface() else { return Judgement::UNDECIDED };
            let ceiling = stricter(interface, limits, strangers, class);
            let hash = self.source_hash(A::FAMILY, scope, class);
            let line = line_index(hash, self.environment.fixed.source_line_mask);
            let Some(cells) = self.cells(Scope::Source, line, hash) else {
                return Judgement::UNDECIDED;
            };
            if ceiling.interval.0 == 0 || (Limited { cells, ceiling }).excess(now) == 0 {
                return Judgement::UNDECIDED;
            }
            (Outcome::RefusedSource, false)
        };
        self.note_offered(A::FAMILY, scope, class, strangers);
        Judgement::of(outcome, class).in_tier(strangers, wake).finally()
    }

    /// Whether SYNs may be answered on the packet's interface, instead of being refused.
    #[inline(always)]
    pub(super) fn may_answer_syns(&self) -> bool {
        self.tables.interface().is_some_and(|interface| interface.answers_nothing == 0)
    }
}
