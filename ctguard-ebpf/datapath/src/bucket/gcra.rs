//! The generic cell rate algorithm as virtual scheduling (ITU-T I.371, annex A).
//!
//! A cell holds the theoretical arrival time of its next flow: the time at which a source that
//! kept exactly to its rate would send it. A flow conforms while that time is at most `tolerance`
//! ahead of now; each conforming flow moves it `interval` on.

use crate::{layout::Ceiling, units::Ticks, verifier::sign};

/// −1 if a flow now does not conform, given the cell's theoretical `arrival` time, else 0.
///
/// All of this is without branches: the verifier would walk all code behind once for each result of
/// a comparison. Ticks last for 2^63, so nothing wraps.
#[inline(always)]
pub fn excess(arrival: Ticks, now: Ticks, ceiling: &Ceiling) -> i64 {
    sign(now.0.wrapping_add(ceiling.tolerance.0).wrapping_sub(arrival.0).cast_signed())
}

/// The theoretical arrival time after a flow that conformed.
#[inline(always)]
pub fn charged(arrival: Ticks, now: Ticks, ceiling: &Ceiling) -> Ticks {
    Ticks(later(arrival.0, now.0).wrapping_add(ceiling.interval.0))
}

#[inline(always)]
pub(super) fn later(one: u64, other: u64) -> u64 {
    let difference = one.wrapping_sub(other);
    other.wrapping_add(difference & !sign(difference.cast_signed()).cast_unsigned())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    const INTERVAL: u64 = 1000;

    #[test]
    fn a_burst_passes_at_once_and_no_more() {
        assert_eq!(admitted(5, &[0; 20]), 5);
    }

    #[test]
    fn a_source_that_keeps_to_its_rate_is_never_refused() {
        let arrivals: Vec<u64> = (0..500).map(|flow| flow * INTERVAL).collect();
        assert_eq!(admitted(1, &arrivals), 500);
    }

    #[test]
    fn a_quiet_source_earns_its_burst_again_but_no_more() {
        let mut arrivals = [0; 10].to_vec();
        arrivals.extend([1_000_000; 10]);
        assert_eq!(admitted(5, &arrivals), 10);
    }

    /// An exact token bucket that counts in fractions of a flow, as the model.
    #[test]
    fn gcra_admits_just_what_a_token_bucket_admits() {
        let mut random = 0x1234_5678_9abc_def1_u64;
        for burst in [1, 2, 7, 64] {
            let ceiling = ceiling(burst);
            let (mut arrival, mut now) = (Ticks(0), Ticks(1_000_000));
            let capacity = burst * INTERVAL;
            let (mut tokens, mut filled_at) = (capacity, now.0);
            for flow in 0..10_000 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                now.0 += random % (2 * INTERVAL);

                tokens = (tokens + now.0 - filled_at).min(capacity);
                filled_at = now.0;
                let model = tokens >= INTERVAL;
                if model {
                    tokens -= INTERVAL;
                }

                let admits = excess(arrival, now, &ceiling) == 0;
                if admits {
                    arrival = charged(arrival, now, &ceiling);
                }
                assert_eq!(admits, model, "burst {burst}, flow {flow}");
            }
        }
    }

    fn admitted(burst: u64, arrivals: &[u64]) -> usize {
        let ceiling = ceiling(burst);
        let mut arrival = Ticks(0);
        let admits = |now: &&u64| {
            let now = Ticks(**now + 1_000_000);
            let conforming = excess(arrival, now, &ceiling) == 0;
            if conforming {
                arrival = charged(arrival, now, &ceiling);
            }
            conforming
        };
        arrivals.iter().filter(admits).count()
    }

    fn ceiling(burst: u64) -> Ceiling {
        Ceiling { interval: Ticks(INTERVAL), tolerance: Ticks((burst - 1) * INTERVAL) }
    }
}
