//! The guard's judgement of a packet.

use crate::layout::{Action, CLASS_BITS, Class, Counter, NO_CLASS, Outcome, Outcomes, TABLE, Tier};

/// The outcome of a packet with its class and tier, and whether to wake the daemon.
///
/// One word, so that the program keeps it in a register: the counter's index in the low half, the
/// tier in the third byte, the wake-up in the highest bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judgement(u32);

impl Judgement {
    /// That of nearly every packet, compared first.
    const KNOWN: Self = Self::packet(Outcome::Known);
    /// That of a packet that is to be judged by other code.
    pub const UNDECIDED: Self = Self(u32::MAX);
    const CLASS: u32 = NO_CLASS;
    const INDEX: u32 = 0xffff;
    const TIER_SHIFT: u32 = 16;
    const TIER: u32 = 0xff;
    const DENIED_IPV4: u32 = 1 << 28;
    const DENIED: u32 = 1 << 29;
    const FINAL: u32 = 1 << 30;
    const WAKE_SHIFT: u32 = 31;

    /// An outcome in the class of this number, if it is one with a class.
    #[inline(always)]
    pub(super) const fn of(outcome: Outcome, class: u32) -> Self {
        let number = outcome as u32;
        let class = if Outcomes::WITHOUT_CLASS.holds(number) { NO_CLASS } else { class };
        Self(number << CLASS_BITS | class & Self::CLASS)
    }

    /// An outcome without a class.
    #[inline(always)]
    pub(super) const fn packet(outcome: Outcome) -> Self {
        Self::of(outcome, NO_CLASS)
    }

    /// The same in the tier of this number.
    #[inline(always)]
    pub(super) const fn in_tier(self, tier: u32, wake: bool) -> Self {
        Self(self.0 | tier << Self::TIER_SHIFT | (wake as u32) << Self::WAKE_SHIFT)
    }

    /// Whether this is the outcome.
    #[inline(always)]
    pub const fn is(self, outcome: Outcome) -> bool {
        self.number() == outcome as u32
    }

    /// The outcome.
    pub const fn outcome(self) -> Outcome {
        TABLE[self.number() as usize].outcome
    }

    /// Whether the packet belongs to a known flow, as nearly every one does.
    #[inline(always)]
    pub fn is_known(self) -> bool {
        self == Self::KNOWN
    }

    /// Whether nothing is decided yet.
    #[inline(always)]
    pub fn is_undecided(self) -> bool {
        self == Self::UNDECIDED
    }

    /// Whether the outcome has a class.
    #[inline(always)]
    pub const fn has_class(self) -> bool {
        self.0 & Self::CLASS != NO_CLASS
    }

    /// The class, if the outcome has one.
    pub fn class(self) -> Option<Class> {
        Class::ALL.get((self.0 & Self::CLASS) as usize).copied()
    }

    /// The number of the tier in which it was admitted, refused or challenged.
    #[inline(always)]
    pub const fn tier(self) -> u32 {
        self.0 >> Self::TIER_SHIFT & Self::TIER
    }

    /// Whether the daemon is to be woken, because the grant is nearly spent.
    #[inline(always)]
    pub const fn wakes(self) -> bool {
        self.0 >> Self::WAKE_SHIFT != 0
    }

    /// The same, known to be of no dry run.
    #[inline(always)]
    pub(super) const fn finally(self) -> Self {
        Self(self.0 | Self::FINAL)
    }

    /// That of a packet of a source on the deny list, of this IP version.
    #[inline(always)]
    pub(super) const fn denied(class: u32, family: u32) -> Self {
        let family = if family == 4 { Self::DENIED_IPV4 } else { 0 };
        Self(Self::of(Outcome::Denied, class).0 | Self::DENIED | family)
    }

    /// The same, which is not [`Judgement::denied`], as the verifier sees too.
    #[inline(always)]
    pub(super) const fn not_denied(self) -> Self {
        Self(self.0 & !Self::DENIED)
    }

    /// Whether the source is on the deny list, and of IPv4.
    #[inline(always)]
    pub const fn is_denied_ipv4(self) -> bool {
        self.0 & Self::DENIED_IPV4 != 0
    }

    /// Whether the source is on the deny list.
    #[inline(always)]
    pub const fn is_denied(self) -> bool {
        self.0 & Self::DENIED != 0
    }

    /// The outcome's number.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        (self.0 & Self::INDEX) >> CLASS_BITS
    }

    /// The index of the counter that counts a judgement of [`super::Guard::judge_plain`].
    #[inline(always)]
    pub const fn counter(self) -> u32 {
        self.0 & Self::INDEX
    }

    /// What happens to the packet. A dry run counts as usual and passes everything; `dry_run` is
    /// called only for a packet about to be dropped.
    #[inline(always)]
    pub fn action(self, dry_run: impl FnOnce() -> bool) -> Action {
        let number = self.number();
        if self.0 & Self::FINAL != 0 {
            Action::Drop
        } else if self.is_known() || Outcomes::PASSED.holds(number) || dry_run() {
            Action::Pass
        } else if Outcomes::ANSWERED.holds(number) {
            Action::Answer
        } else {
            Action::Drop
        }
    }

    /// Calls `add` with the index of each counter that counts this.
    #[inline(always)]
    pub fn count(self, mut add: impl FnMut(u32)) {
        if self.is_known() {
            return add(Self::KNOWN.0);
        }
        add(self.0 & Self::INDEX);
        if self.is(Outcome::Admitted) && self.tier() == Tier::Allowed as u32 {
            add(Counter::Allowed(Class::Tcp).index() + (self.0 & Self::CLASS));
        }
        if self.wakes() {
            add(Counter::Wakeups.index());
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn a_dry_run_counts_what_it_would_have_dropped_and_drops_nothing() {
        let refused = Judgement::of(Outcome::RefusedSource, Class::Tcp as u32);
        assert_eq!(refused.action(|| false), Action::Drop);
        assert_eq!(refused.action(|| true), Action::Pass);
        assert_eq!(counted(refused), [Counter::Flows(Outcome::RefusedSource, Class::Tcp)]);
    }

    #[test]
    fn what_the_allow_list_let_in_counts_as_admitted_too() {
        let admitted = Judgement::of(Outcome::Admitted, Class::Udp as u32);
        let admitted = admitted.in_tier(Tier::Allowed as u32, true);
        let expected = [
            Counter::Flows(Outcome::Admitted, Class::Udp),
            Counter::Allowed(Class::Udp),
            Counter::Wakeups,
        ];
        assert_eq!(counted(admitted), expected);
    }

    #[test]
    fn every_outcome_is_carried_and_acted_on_as_its_row_says() {
        for row in TABLE {
            let judgement = Judgement::of(row.outcome, Class::Other as u32).in_tier(5, false);
            assert_eq!(judgement.outcome(), row.outcome);
            assert_eq!(judgement.action(|| false), row.action, "{row:?}");
            assert_eq!((judgement.tier(), judgement.wakes()), (5, false));
            let counter = match judgement.class() {
                Some(class) => Counter::Flows(row.outcome, class),
                None => Counter::Packets(row.outcome),
            };
            assert_eq!(counted(judgement), [counter]);
        }
    }

    fn counted(judgement: Judgement) -> Vec<Counter> {
        let mut counted = Vec::new();
        judgement.count(|index| {
            counted.extend(Counter::all().find(|counter| counter.index() == index));
        });
        counted
    }
}
