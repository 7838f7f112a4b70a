//! What sources ask for, sorted by tier and class.

use ctguard_ebpf::layout::{CLASSES, Class};

use super::tiers::{TIERS, Tier};

/// What one source asks for, in one class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct OfferedLoad {
    pub(crate) class: Class,
    pub(crate) tier: Tier,
    /// New flows a second, averaged over some seconds: a share is of what is asked for on average.
    pub(crate) flows_per_second: f64,
}

/// The demands of all sources; no source asks for more than its ceiling.
#[derive(Debug, Default)]
pub(crate) struct Demands {
    of: [[Vec<f64>; CLASSES]; TIERS],
}

impl Demands {
    /// Takes the place of what was asked for before.
    pub(crate) fn replace(&mut self, loads: &[OfferedLoad], ceilings: &[u32; CLASSES]) {
        self.of.iter_mut().flatten().for_each(Vec::clear);
        for load in loads {
            let ceiling = f64::from(ceilings[load.class as usize]);
            if load.flows_per_second > 0.0 {
                let demands = &mut self.of[load.tier as usize][load.class as usize];
                demands.push(load.flows_per_second.min(ceiling));
            }
        }
    }

    /// What each source of a tier asks for, by class, leaving out classes that do not `count`.
    pub(crate) fn of(&self, tier: Tier, counts: impl Fn(Class) -> bool) -> [&[f64]; CLASSES] {
        let demands = &self.of[tier as usize];
        Class::ALL.map(|class| if counts(class) { &*demands[class as usize] } else { &[] })
    }

    /// What a tier asks for in a class.
    pub(crate) fn total(&self, tier: Tier, class: Class) -> f64 {
        self.of[tier as usize][class as usize].iter().sum()
    }

    /// What a tier asks for, leaving out classes that do not `count`.
    pub(crate) fn ask(&self, tier: Tier, counts: impl Fn(Class) -> bool) -> f64 {
        self.of(tier, counts).into_iter().flatten().sum()
    }

    /// How many sources of a tier ask for something in a class.
    pub(crate) fn sources(&self, tier: Tier, class: Class) -> usize {
        self.of[tier as usize][class as usize].len()
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers come out exactly")]
mod tests {
    use super::*;

    #[test]
    fn nobody_asks_for_more_than_the_ceiling() {
        let mut demands = Demands::default();
        demands.replace(&[load(Class::Tcp, 900.0), load(Class::Tcp, 7.0)], &[50, 100, 20]);
        assert_eq!(demands.ask(Tier::Strangers, |_| true), 57.0);
    }

    #[test]
    fn a_class_that_does_not_count_asks_for_nothing() {
        let mut demands = Demands::default();
        demands.replace(&[load(Class::Tcp, 3.0), load(Class::Udp, 5.0)], &[50, 100, 20]);
        assert_eq!(demands.ask(Tier::Strangers, |class| class != Class::Udp), 3.0);
        assert_eq!(demands.total(Tier::Strangers, Class::Udp), 5.0);
        assert_eq!(demands.sources(Tier::Strangers, Class::Udp), 1);
    }

    #[test]
    fn what_was_asked_before_is_forgotten() {
        let mut demands = Demands::default();
        demands.replace(&[load(Class::Tcp, 3.0)], &[50, 100, 20]);
        demands.replace(&[load(Class::Tcp, f64::NAN)], &[50, 100, 20]);
        assert_eq!(demands.ask(Tier::Strangers, |_| true), 0.0);
    }

    fn load(class: Class, flows_per_second: f64) -> OfferedLoad {
        OfferedLoad { class, tier: Tier::Strangers, flows_per_second }
    }
}
