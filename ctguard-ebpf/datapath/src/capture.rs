//! Which packets are copied for `ctguard capture`: one in so many, and no more than a budget, so that a
//! flood costs little while it is captured.

use crate::{
    layout::{CaptureOrder, CaptureState},
    units::Jiffies,
};

/// Counts a packet that `order` asks for; whether it is copied.
#[inline(always)]
pub fn takes(state: &mut CaptureState, order: &CaptureOrder, now: Jiffies) -> bool {
    let before = state.seen;
    state.seen = before.wrapping_add(1);
    if before.checked_rem(order.one_in.into()).unwrap_or_default() != 0 {
        return false;
    }
    let passed = now.0.wrapping_sub(state.room_at);
    if passed != 0 {
        state.room_at = now.0;
        // Longer pauses fill any budget.
        let passed = if passed > u32::MAX.into() { u32::MAX.into() } else { passed };
        let room = state.room.wrapping_add(passed.wrapping_mul(order.per_jiffy.into()));
        state.room = if room > order.burst.into() { order.burst.into() } else { room };
    }
    if state.room == 0 {
        return false;
    }
    state.room -= 1;
    state.sent = state.sent.wrapping_add(1);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: CaptureOrder = CaptureOrder {
        until: u64::MAX,
        outcomes: CaptureOrder::DROPPED,
        ifindex: 0,
        snap_bytes: 256,
        one_in: 1,
        per_jiffy: 4,
        burst: 100,
        reserved: 0,
    };

    fn taken(state: &mut CaptureState, order: &CaptureOrder, jiffy: u64, packets: u32) -> usize {
        (0..packets).filter(|_| takes(state, order, Jiffies(jiffy))).count()
    }

    #[test]
    fn a_flood_is_copied_up_to_the_burst_and_then_at_the_rate() {
        let mut state = CaptureState::default();
        assert_eq!(taken(&mut state, &ORDER, 1000, 500), 100);
        assert_eq!(taken(&mut state, &ORDER, 1001, 500), 4);
        assert_eq!(taken(&mut state, &ORDER, 1003, 500), 8);
        assert_eq!(taken(&mut state, &ORDER, 1 << 40, 500), 100, "after a long pause");
        assert_eq!((state.seen, state.sent), (2000, 212));
    }

    #[test]
    fn a_sample_is_one_in_so_many_and_takes_only_its_own_from_the_budget() {
        let mut state = CaptureState::default();
        let order = CaptureOrder { one_in: 10, ..ORDER };
        assert_eq!(taken(&mut state, &order, 1000, 500), 50);
        assert_eq!(state.room, 50);
        let order = CaptureOrder { one_in: 0, ..ORDER };
        assert_eq!(taken(&mut state, &order, 1000, 7), 7);
    }
}
