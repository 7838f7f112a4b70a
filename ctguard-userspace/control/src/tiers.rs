//! In which order tiers are served, and what is kept for each, outside calm.

pub(super) use ctguard_layout::{TIERS, Tier};

/// How tiers share the room below the target.
pub(crate) trait Precedence: Sized {
    /// The tiers that share this room, in the order in which they are served.
    const SERVED: [Self; 7];

    /// How far below the limit of the fill this tier must stop, in parts per million of the maximum.
    /// This room remains for the tiers above it, however long a flood lasts.
    fn stops_below_limit_ppm(self) -> u32;

    /// The part of the budget rate that is kept for this tier while it asks for it.
    fn kept_part(self) -> f64;

    /// The part of the headroom that lies ready for this tier until the next tick. What is taken back
    /// from one tier can be given to another only a tick later.
    fn stock(self) -> f64;
    /// Whether its sources are known. Such a tier is not paced.
    fn is_known(&self) -> bool;
}

impl Precedence for Tier {
    const SERVED: [Self; 7] = [
        Self::Regulars,
        Self::Earlier,
        Self::Proven,
        Self::Answered,
        Self::Retried,
        Self::Strangers,
        Self::AbovePart,
    ];

    fn stops_below_limit_ppm(self) -> u32 {
        match self {
            Self::Regulars | Self::Allowed => 0,
            Self::Earlier => 5_000,
            Self::Proven => 10_000,
            Self::Answered => 20_000,
            Self::Retried | Self::Strangers => 30_000,
            Self::AbovePart => 40_000,
        }
    }

    fn kept_part(self) -> f64 {
        match self {
            Self::Regulars => 0.3,
            Self::Earlier => 0.2,
            Self::Proven | Self::Answered | Self::Strangers => 0.15,
            Self::Retried => 0.05,
            Self::Allowed | Self::AbovePart => 0.0,
        }
    }

    fn stock(self) -> f64 {
        match self {
            Self::Regulars => 0.3,
            Self::Earlier | Self::Proven | Self::Strangers => 0.15,
            Self::Answered | Self::Retried => 0.1,
            Self::AbovePart => 0.05,
            Self::Allowed => 0.0,
        }
    }

    fn is_known(&self) -> bool {
        matches!(*self, Self::Regulars | Self::Earlier | Self::Proven)
    }
}

/// What is kept of a budget rate for each tier: what it asks for, up to its kept part. Retried flows
/// may also have what answered ones leave of their part, because UDP cannot answer challenges.
pub(crate) fn kept(budget: f64, asks: &[f64; TIERS]) -> [f64; TIERS] {
    let mut kept = Tier::ALL.map(|tier| asks[tier as usize].min(budget * tier.kept_part()));
    let [answered, retried] = [Tier::Answered, Tier::Retried].map(|tier| tier as usize);
    if asks[retried] > asks[answered] {
        let parts = Tier::Answered.kept_part() + Tier::Retried.kept_part();
        kept[retried] = asks[retried].min(budget * parts - kept[answered]);
    }
    kept
}

/// Divides a budget rate: each tier gets what is kept for it, and the rest goes to the tiers in order.
pub(crate) fn divide(budget: f64, asks: &[f64; TIERS]) -> [f64; TIERS] {
    let mut rates = kept(budget, asks);
    let mut rest = budget - rates.iter().sum::<f64>();
    for tier in Tier::SERVED {
        let more = (asks[tier as usize] - rates[tier as usize]).clamp(0.0, rest.max(0.0));
        rates[tier as usize] += more;
        rest -= more;
    }
    rates
}

#[expect(clippy::float_cmp, reason = "these numbers come out exactly")]
#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: f64 = f64::INFINITY;

    #[test]
    fn who_asks_for_everything_leaves_the_others_their_kept_parts() {
        let [strangers, _, regulars, proven, answered, retried, earlier, above] =
            divide(100.0, &[EVERYTHING; TIERS]);
        assert_eq!([regulars, earlier, proven, answered], [30.0, 20.0, 15.0, 15.0]);
        assert_eq!([retried, strangers, above], [5.0, 15.0, 0.0]);
    }

    #[test]
    fn who_comes_again_has_what_those_who_answer_leave() {
        let asks = [EVERYTHING, 0.0, EVERYTHING, EVERYTHING, 5.0, EVERYTHING, 0.0, 0.0];
        assert_eq!(kept(100.0, &asks), [15.0, 0.0, 30.0, 15.0, 5.0, 15.0, 0.0, 0.0]);
    }

    #[test]
    fn what_one_does_not_ask_for_goes_down_the_order() {
        let asks = [EVERYTHING, 0.0, 10.0, 0.0, 50.0, 0.0, 0.0, 0.0];
        let [strangers, _, regulars, proven, answered, retried, ..] = divide(100.0, &asks);
        assert_eq!([regulars, proven, answered, retried, strangers], [10.0, 0.0, 50.0, 0.0, 40.0]);
    }

    #[test]
    fn no_more_is_given_than_there_is_or_was_asked_for() {
        for step in 0..4096_u32 {
            let ask = |digit: u32| f64::from(step >> (2 * digit) & 3) * 17.0;
            let asks = [ask(0), 0.0, ask(1), ask(2), ask(3), ask(4), 0.0, 0.0];
            let rates = divide(100.0, &asks);
            assert!(rates.iter().sum::<f64>() <= 100.0 + 1e-9, "{asks:?}");
            assert!(rates.iter().zip(asks).all(|(rate, ask)| *rate <= ask), "{asks:?}");
            let all = asks.iter().sum::<f64>().min(100.0);
            assert!(
                (rates.iter().sum::<f64>() - all).abs() < 1e-9,
                "nothing is left over: {asks:?}"
            );
        }
    }

    #[test]
    fn the_kept_parts_are_the_whole() {
        let whole: f64 = Tier::SERVED.into_iter().map(Tier::kept_part).sum();
        assert!((whole - 1.0).abs() < 1e-9);
    }
}
