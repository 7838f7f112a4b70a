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
    in_calm: [f64; CLASSES],
    /// The same without strangers that are challenged, who take no room.
    unchallenged: [f64; CLASSES],
    /// The rate for which there is room. Default ceilings hold in a class that asks for more.
    most: f64,
    /// Demands of strangers without the cut, and which part of them was seen once.
    strangers: [Seen; CLASSES],
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    flows_per_second: f64,
    once: f64,
}

impl Demands {
    /// `most` is the rate for which there is room.
    pub(crate) fn replace(
        &mut self,
        loads: &[OfferedLoad],
        policy: &ControlPolicy,
        challenged: impl Fn(Class) -> bool,
        most: f64,
    ) {
        self.of.iter_mut().flatten().for_each(Vec::clear);
        self.strangers = Default::default();
        self.in_calm = [0.0; CLASSES];
        self.unchallenged = [0.0; CLASSES];
        self.most = most;
        for load in loads.iter().filter(|load| load.flows_per_second > 0.0) {
            let demand = policy.calm_cap(load.class).min(load.flows_per_second);
            self.in_calm[load.class as usize] += demand;
            if load.tier != Tier::Strangers || !challenged(load.class) {
                self.unchallenged[load.class as usize] += demand;
            }
        }
        for load in loads {
            let ceiling = self.cap(load.tier, load.class, policy);
            if load.flows_per_second > 0.0 {
                let demands = &mut self.of[load.tier as usize][load.class as usize];
                demands.push(load.flows_per_second.min(ceiling));
                if load.tier == Tier::Strangers {
                    self.strangers[load.class as usize].add(load);
                }
            }
        }
    }

    /// New flows per second that all sources would open if the guard were calm.
    pub(crate) fn in_calm(&self) -> f64 {
        self.in_calm.iter().sum()
    }

    /// The most that a source of this tier may open per second outside calm.
    ///
    /// For strangers all strangers count. Else one source that floods would have no ceiling once they
    /// are challenged, and its demand would keep them challenged.
    pub(crate) fn cap(&self, tier: Tier, class: Class, policy: &ControlPolicy) -> f64 {
        let asked = if tier == Tier::Strangers { &self.in_calm } else { &self.unchallenged };
        let is_pressing = asked[class as usize] > self.most;
        if is_pressing { policy.cap(tier, class) } else { policy.calm_cap(class) }
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
        demands.replace(
            &[load(Class::Tcp, 900.0), load(Class::Tcp, 7.0)],
            &POLICY,
            |_| false,
            1000.0,
        );
        assert_eq!(demands.ask(Tier::Strangers, |_| true), 57.0);
    }

    #[test]
    fn a_class_that_does_not_count_asks_for_nothing() {
        let mut demands = Demands::default();
        demands.replace(
            &[load(Class::Tcp, 3.0), load(Class::Udp, 5.0)],
            &POLICY,
            |_| false,
            1000.0,
        );
        assert_eq!(demands.ask(Tier::Strangers, |class| class != Class::Udp), 3.0);
        assert_eq!(demands.total(Tier::Strangers, Class::Udp), 5.0);
        assert_eq!(demands.sources(Tier::Strangers, Class::Udp), 1);
    }

    #[test]
    fn what_was_asked_before_is_forgotten() {
        let mut demands = Demands::default();
        demands.replace(&[load(Class::Tcp, 3.0)], &POLICY, |_| false, 1000.0);
        demands.replace(&[load(Class::Tcp, f64::NAN)], &POLICY, |_| false, 1000.0);
        assert_eq!(demands.ask(Tier::Strangers, |_| true), 0.0);
    }

    #[test]
    fn default_ceilings_hold_while_a_class_asks_for_more_than_there_is() {
        let policy = ControlPolicy { are_own_ceilings: [false; CLASSES], ..POLICY };
        let mut demands = Demands::default();
        let mut cap = |tier, challenged: &[Class], udp, most| {
            let loads = [load(Class::Udp, udp), load(Class::Tcp, 1e6)];
            demands.replace(&loads, &policy, |class| challenged.contains(&class), most);
            demands.cap(tier, Class::Udp, &policy)
        };
        for tier in [Tier::Strangers, Tier::Proven] {
            assert_eq!(cap(tier, &[], 801.0, 800.0), 100.0);
            assert_eq!(cap(tier, &[], 800.0, 800.0), f64::INFINITY);
        }
        let challenged = [Class::Udp];
        assert_eq!(cap(Tier::Strangers, &challenged, 801.0, 800.0), 100.0);
        assert_eq!(
            cap(Tier::Proven, &challenged, 801.0, 800.0),
            f64::INFINITY,
            "they take no room"
        );
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
        demands.replace(&[once, once, once, load(Class::Tcp, 480.0)], &POLICY, |_| false, 1000.0);
        assert_eq!(demands.unseen(|_| true), 0.5);
        assert_eq!(demands.unseen(|class| class != Class::Tcp), 0.0);
    }

    fn load(class: Class, flows_per_second: f64) -> OfferedLoad {
        OfferedLoad { class, tier: Tier::Strangers, flows_per_second, is_seen_once: false }
    }
}
