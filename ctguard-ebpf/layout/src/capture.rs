//! What `ctguard capture` asks the data path to copy, and what it gets.

use super::outcome::{Action, TABLE};

/// Which packets are copied, and how many. The capture writes it, again and again while it runs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureOrder {
    /// Jiffies until which it holds, so that nothing stays on after a capture that was killed.
    pub until: u64,
    /// A bit for each outcome's number.
    pub outcomes: u64,
    /// The kernel's index of the interface; 0 is all.
    pub ifindex: u32,
    /// Bytes of each packet at most.
    pub snap_bytes: u32,
    /// One in so many packets; 0 is all.
    pub one_in: u32,
    /// Packets that each CPU may copy in a jiffy, on average.
    pub per_jiffy: u32,
    /// Packets that it may copy at once after a pause.
    pub burst: u32,
    /// Zero.
    pub reserved: u32,
}

/// One CPU's part of the captures so far.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureState {
    /// Packets that an order asked for.
    pub seen: u64,
    /// Packets that were to be copied; the capture's buffer may have been full.
    pub sent: u64,
    /// Packets that may be copied at once.
    pub room: u64,
    /// Jiffies of that number.
    pub room_at: u64,
}

/// What comes before the bytes of each copy.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Nanoseconds of the monotonic clock.
    pub at: u64,
    /// The kernel's index of the interface that it arrived on.
    pub ifindex: u32,
    /// The number of its outcome.
    pub outcome: u32,
    /// Its length.
    pub frame_bytes: u32,
    /// How many of its bytes follow.
    pub captured_bytes: u32,
    /// 1 if it passed all the same, in a dry run.
    pub passed: u32,
    /// Zero.
    pub reserved: u32,
}

impl CaptureOrder {
    /// Outcomes whose packets are dropped. Those that are answered are overwritten by then.
    pub const DROPPED: u64 = {
        let (mut bits, mut position) = (0, 0);
        while position < TABLE.len() {
            if matches!(TABLE[position].action, Action::Drop) {
                bits |= 1 << position;
            }
            position += 1;
        }
        bits
    };

    /// Whether packets with the outcome of this number are copied.
    #[inline(always)]
    pub const fn asks_for(&self, outcome: u32, now: u64) -> bool {
        self.outcomes >> (outcome & 63) & 1 != 0 && now < self.until
    }
}

impl Captured {
    /// Its bytes, as they come with a copy.
    pub const BYTES: usize = size_of::<Self>();

    /// Reads one from the start of a copy, and what follows it.
    pub fn split(copy: &[u8]) -> Option<(Self, &[u8])> {
        let (start, rest) = copy.split_first_chunk::<{ Self::BYTES }>()?;
        let (at, words) = start.split_first_chunk()?;
        let (words, _) = words.as_chunks();
        let mut words = words.iter().map(|word| u32::from_ne_bytes(*word));
        let mut word = || words.next().unwrap_or_default();
        let captured = Self {
            at: u64::from_ne_bytes(*at),
            ifindex: word(),
            outcome: word(),
            frame_bytes: word(),
            captured_bytes: word(),
            passed: word(),
            reserved: word(),
        };
        // The kernel pads what follows.
        let bytes = rest.get(..captured.captured_bytes as usize)?;
        Some((captured, bytes))
    }
}

const _: () = assert!(size_of::<CaptureOrder>() == 40);
const _: () = assert!(size_of::<CaptureState>() == 32);
const _: () = assert!(size_of::<Captured>() == 32);

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;
    use crate::Outcome;

    #[test]
    fn what_is_refused_and_what_must_come_again_are_dropped() {
        let drops = |outcome: Outcome| CaptureOrder::DROPPED >> outcome as u32 & 1 != 0;
        assert!(drops(Outcome::RefusedSource) && drops(Outcome::Denied));
        assert!(drops(Outcome::ChallengedBySilence) && drops(Outcome::TinyFragment));
        assert!(!drops(Outcome::Known) && !drops(Outcome::ChallengedByAck));
    }

    #[test]
    fn an_order_holds_for_its_outcomes_until_it_is_over() {
        let order = CaptureOrder { until: 10, outcomes: 1 << 6, ..CaptureOrder::default() };
        assert!(order.asks_for(6, 9) && !order.asks_for(6, 10) && !order.asks_for(5, 9));
        assert!(!CaptureOrder::default().asks_for(6, 0));
    }

    #[test]
    fn a_copy_is_read_without_what_pads_it() {
        let mut copy: Vec<u8> = 7_u64.to_ne_bytes().to_vec();
        for word in [2_u32, 6, 1500, 3, 1, 0] {
            copy.extend(word.to_ne_bytes());
        }
        copy.extend(b"abc\0\0");
        let (captured, bytes) = Captured::split(&copy).unwrap();
        let expected = Captured {
            at: 7,
            ifindex: 2,
            outcome: 6,
            frame_bytes: 1500,
            captured_bytes: 3,
            passed: 1,
            reserved: 0,
        };
        assert_eq!((captured, bytes), (expected, &b"abc"[..]));
        assert_eq!(Captured::split(&copy[..34]), None);
        assert_eq!(Captured::split(&copy[..31]), None);
    }
}
