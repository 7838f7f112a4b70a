//! Outcome to action and counters, in one place.

use crate::{
    admission::Refusal,
    guard::Outcome,
    layout::{Class, Counter, Tier},
};

/// What happens to the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Goes on to the stack.
    Pass,
    /// Ends here.
    Drop,
}

/// What an outcome comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What happens to the packet.
    pub action: Action,
    /// What is counted.
    pub counter: Counter,
    /// The class of a new flow, counted as seen.
    pub seen: Option<Class>,
    /// Counted besides, for a flow that the allow list let in.
    pub allowed: Option<Class>,
}

/// The verdict. In a dry run everything is decided and counted, and everything passes; only a
/// packet about to be dropped asks whether it is one.
#[inline(always)]
#[must_use]
pub fn verdict(outcome: Outcome, dry_run: impl FnOnce() -> bool) -> Verdict {
    let (action, counter, seen) = match outcome {
        Outcome::Exempt => (Action::Pass, Counter::Exempt, None),
        Outcome::NotOurs => (Action::Pass, Counter::NotOurs, None),
        Outcome::UnknownInterface => (Action::Pass, Counter::UnknownInterface, None),
        Outcome::Known => (Action::Pass, Counter::Known, None),
        Outcome::Repeated => (Action::Pass, Counter::Repeated, None),
        Outcome::MakesNoEntry => (Action::Pass, Counter::MakesNoEntry, None),
        Outcome::LaterFragment => (Action::Pass, Counter::LaterFragment, None),
        Outcome::TinyFragment => (Action::Drop, Counter::TinyFragment, None),
        Outcome::Malformed(reason) => (Action::Pass, reason.counter(), None),
        Outcome::Denied(class) => (Action::Drop, Counter::RefusedDeny(class), None),
        Outcome::Admitted(class, _) => (Action::Pass, Counter::Admitted(class), Some(class)),
        Outcome::Refused(class, Refusal::Source) => {
            (Action::Drop, Counter::RefusedSource(class), Some(class))
        }
        Outcome::Refused(class, Refusal::Grant) => {
            (Action::Drop, Counter::RefusedGrant(class), Some(class))
        }
        Outcome::Refused(class, Refusal::Fallback) => {
            (Action::Drop, Counter::RefusedFallback(class), Some(class))
        }
    };
    let allowed =
        if let Outcome::Admitted(class, Tier::Allowed) = outcome { Some(class) } else { None };
    let action = match action {
        Action::Drop if !dry_run() => Action::Drop,
        Action::Drop | Action::Pass => Action::Pass,
    };
    Verdict { action, counter, seen, allowed }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(verdict.counter, Counter::Admitted(Class::Udp));
        assert_eq!(verdict.allowed, Some(Class::Udp));
    }
}
