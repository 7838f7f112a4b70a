//! The demands of sources, by tier and class.

use ctguard_layout::{CLASSES, Class};

use super::{
    decision::ControlPolicy,
    tiers::{TIERS, Tier},
};

/// The demand of one source in one class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OfferedLoad {
    /// Class of the new flows.
    pub class: Class,
    /// Tier of their source.
    pub tier: Tier,
    /// New flows per second, averaged over some seconds.
    pub flows_per_second: f64,
    /// Only one sample is of this source. If many are like this, there are more that were not seen.
    pub is_seen_once: bool,
}

/// The demands of all sources, each cut to its ceiling.
#[derive(Debug, Default)]
pub(crate) struct Demands {
    of: [[Vec<f64>; CLASSES]; TIERS],
    /// All demands, as they would be in calm: cut only to what the operator set.
    in_calm: f64,
    /// Demands of strangers without the cut, and which part of them was seen once.
    strangers: [Seen; CLASSES],
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    flows_per_second: f64,
    once: f64,
}

impl Demands {
    pub(crate) fn replace(&mut self, loads: &[OfferedLoad], policy: &ControlPolicy) {
        self.of.iter_mut().flatten().for_each(Vec::clear);
        self.strangers = Default::default();
        self.in_calm = 0.0;
        for load in loads {
            let ceiling = policy.cap(load.tier, load.class);
            if load.flows_per_second > 0.0 {
                self.in_calm += policy.calm_cap(load.class).min(load.flows_per_second);
                let demands = &mut self.of[load.tier as usize][load.class as usize];
                demands.push(load.flows_per_second.min(ceiling));
                if load.tier == Tier::Strangers {
                    self.strangers[load.class as usize].add(load);
                }
            }
        }
    }

    /// New flows per second that all sources would open if the guard were calm.
    pub(crate) const fn in_calm(&self) -> f64 {
        self.in_calm
    }

    /// Which part of the strangers' next flows, in classes that `count`, will come from sources not
    /// seen yet. It is the part of samples that are the only one of their source (Good, The
    /// population frequencies of species, Biometrika 40, 1953).
    pub(crate) fn unseen(&self, counts: impl Fn(Class) -> bool) -> f64 {
        let all = Class::ALL.into_iter().filter(|&class| counts(class));
        let mut seen = Seen::default();
        for class in all {
            seen.flows_per_second += self.strangers[class as usize].flows_per_second;
            seen.once += self.strangers[class as usize].once;
        }
        if seen.flows_per_second > 0.0 { seen.once / seen.flows_per_second } else { 0.0 }
    }

    /// The demand of each source of a tier, in classes that `count`.
    pub(crate) fn of(&self, tier: Tier, counts: impl Fn(Class) -> bool) -> [&[f64]; CLASSES] {
        let demands = &self.of[tier as usize];
        Class::ALL.map(|class| if counts(class) { &*demands[class as usize] } else { &[] })
    }

    /// The demand of a tier in one class.
    pub(crate) fn total(&self, tier: Tier, class: Class) -> f64 {
        // The sum of nothing is -0, which events would show.
        self.of[tier as usize][class as usize].iter().fold(0.0, |sum, demand| sum + demand)
    }

    /// The demand of a tier in classes that `count`.
    pub(crate) fn ask(&self, tier: Tier, counts: impl Fn(Class) -> bool) -> f64 {
        self.of(tier, counts).into_iter().flatten().sum()
    }

    /// Sources of a tier with a demand in this class.
    pub(crate) fn sources(&self, tier: Tier, class: Class) -> usize {
        self.of[tier as usize][class as usize].len()
    }
}

impl Seen {
    fn add(&mut self, load: &OfferedLoad) {
        self.flows_per_second += load.flows_per_second;
        if load.is_seen_once {
            self.once += load.flows_per_second;
        }
    }
}

#[expect(clippy::float_cmp, reason = "these numbers come out exactly")]
#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: ControlPolicy = ControlPolicy {
        target_ppm: 850_000,
        ceilings: [50, 100, 20],
        are_own_ceilings: [true; CLASSES],
        floors: [1; CLASSES],
        reclaim: true,
    };

    #[test]
    fn nobody_asks_for_more_than_the_ceiling() {
        let mut demands = Demands::default();
        demands.replace(&[load(Class::Tcp, 900.0), load(Class::Tcp, 7.0)], &POLICY);
        assert_eq!(demands.ask(Tier::Strangers, |_| true), 57.0);
    }

    #[test]
    fn a_class_that_does_not_count_asks_for_nothing() {
        let mut demands = Demands::default();
        demands.replace(&[load(Class::Tcp, 3.0), load(Class::Udp, 5.0)], &POLICY);
        assert_eq!(demands.ask(Tier::Strangers, |class| class != Class::Udp), 3.0);
        assert_eq!(demands.total(Tier::Strangers, Class::Udp), 5.0);
        assert_eq!(demands.sources(Tier::Strangers, Class::Udp), 1);
    }

    #[test]
    fn what_was_asked_before_is_forgotten() {
        let mut demands = Demands::default();
        demands.replace(&[load(Class::Tcp, 3.0)], &POLICY);
        demands.replace(&[load(Class::Tcp, f64::NAN)], &POLICY);
        assert_eq!(demands.ask(Tier::Strangers, |_| true), 0.0);
    }

    #[test]
    fn where_nobody_asks_the_demand_is_not_minus_zero() {
        let total = Demands::default().total(Tier::Strangers, Class::Tcp);
        assert_eq!(format!("{total:.0}"), "0");
    }

    #[test]
    fn as_much_is_unseen_as_was_seen_only_once() {
        let once = OfferedLoad { is_seen_once: true, ..load(Class::Tcp, 160.0) };
        let mut demands = Demands::default();
        assert_eq!(demands.unseen(|_| true), 0.0);
        demands.replace(&[once, once, once, load(Class::Tcp, 480.0)], &POLICY);
        assert_eq!(demands.unseen(|_| true), 0.5);
        assert_eq!(demands.unseen(|class| class != Class::Tcp), 0.0);
    }

    fn load(class: Class, flows_per_second: f64) -> OfferedLoad {
        OfferedLoad { class, tier: Tier::Strangers, flows_per_second, is_seen_once: false }
    }
}
