//! Outcome to action and counters, in one place.

use crate::{
    admission::Refusal,
    guard::{Challenge, Outcome},
    layout::{Counter, Tier},
};

/// What happens to the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Goes on to the stack.
    Pass,
    /// Ends here.
    Drop,
    /// Goes back, as the answer that was written in its place.
    Answer,
}

/// What an outcome comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What happens to the packet.
    pub action: Action,
    /// Index of what is counted.
    pub counter: u32,
    /// Index of the counter of new flows seen; [`Verdict::NONE`] where it is none.
    pub seen: u32,
    /// Index of the counter of flows that the allow list let in; [`Verdict::NONE`] of others.
    pub allowed: u32,
}

impl Verdict {
    /// No counter. Numbers and no options, for of an option that is none LLVM would carry a register
    /// that was never set, which the verifier refuses.
    pub const NONE: u32 = u32::MAX;
}

/// The verdict. In a dry run everything is decided and counted, and everything passes; only a
/// packet about to be dropped asks whether it is one.
#[inline(always)]
#[must_use]
pub fn verdict(outcome: Outcome, dry_run: impl FnOnce() -> bool) -> Verdict {
    let (action, counter, seen) = match outcome {
        Outcome::Exempt => (Action::Pass, Counter::Exempt.index(), Verdict::NONE),
        Outcome::NotOurs => (Action::Pass, Counter::NotOurs.index(), Verdict::NONE),
        Outcome::UnknownInterface => {
            (Action::Pass, Counter::UnknownInterface.index(), Verdict::NONE)
        }
        Outcome::Known => (Action::Pass, Counter::Known.index(), Verdict::NONE),
        Outcome::Repeated => (Action::Pass, Counter::Repeated.index(), Verdict::NONE),
        Outcome::MakesNoEntry => (Action::Pass, Counter::MakesNoEntry.index(), Verdict::NONE),
        Outcome::LaterFragment => (Action::Pass, Counter::LaterFragment.index(), Verdict::NONE),
        Outcome::TinyFragment => (Action::Drop, Counter::TinyFragment.index(), Verdict::NONE),
        Outcome::Malformed(reason) => (Action::Pass, reason.counter().index(), Verdict::NONE),
        Outcome::Denied(class) => {
            (Action::Drop, Counter::RefusedDeny(class).index(), Verdict::NONE)
        }
        Outcome::Admitted(class, _) => {
            (Action::Pass, Counter::Admitted(class).index(), Counter::Seen(class).index())
        }
        Outcome::Refused(class, Refusal::Source) => {
            (Action::Drop, Counter::RefusedSource(class).index(), Counter::Seen(class).index())
        }
        Outcome::Refused(class, Refusal::Prefix) => {
            (Action::Drop, Counter::RefusedPrefix(class).index(), Counter::Seen(class).index())
        }
        Outcome::Refused(class, Refusal::Service) => {
            (Action::Drop, Counter::RefusedService(class).index(), Counter::Seen(class).index())
        }
        Outcome::Refused(class, Refusal::Challenge) => {
            (Action::Drop, Counter::RefusedChallenge(class).index(), Counter::Seen(class).index())
        }
        Outcome::Challenged(class, Challenge::Ack) => {
            (Action::Answer, Counter::Challenged(class).index(), Counter::Seen(class).index())
        }
        Outcome::Challenged(class, Challenge::Retry) => {
            (Action::Drop, Counter::Challenged(class).index(), Counter::Seen(class).index())
        }
        Outcome::ChallengeAnswered => {
            (Action::Drop, Counter::ChallengeAnswered.index(), Verdict::NONE)
        }
        Outcome::Refused(class, Refusal::Grant) => {
            (Action::Drop, Counter::RefusedGrant(class).index(), Counter::Seen(class).index())
        }
        Outcome::Refused(class, Refusal::Fallback) => {
            (Action::Drop, Counter::RefusedFallback(class).index(), Counter::Seen(class).index())
        }
    };
    let allowed = if let Outcome::Admitted(class, Tier::Allowed) = outcome {
        Counter::Allowed(class).index()
    } else {
        Verdict::NONE
    };
    let action = match action {
        Action::Pass => Action::Pass,
        Action::Drop | Action::Answer => {
            if dry_run() {
                Action::Pass
            } else {
                action
            }
        }
    };
    Verdict { action, counter, seen, allowed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Class;

    #[test]
    fn a_dry_run_counts_what_it_would_have_dropped_and_drops_nothing() {
        let refused = Outcome::Refused(Class::Tcp, Refusal::Source);
        let (wet, dry) = (verdict(refused, || false), verdict(refused, || true));
        assert_eq!((wet.action, dry.action), (Action::Drop, Action::Pass));
        assert_eq!(wet.counter, dry.counter);
    }

    #[test]
    fn what_the_allow_list_let_in_counts_as_admitted_too() {
        let verdict = verdict(Outcome::Admitted(Class::Udp, Tier::Allowed), || false);
        assert_eq!(verdict.counter, Counter::Admitted(Class::Udp).index());
        assert_eq!(verdict.allowed, Counter::Allowed(Class::Udp).index());
    }
}
