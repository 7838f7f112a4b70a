//! Max-min fair shares (Bertsekas and Gallager, Data Networks, 6.5.2) by water-filling. Sources that
//! ask for less than the share are not limited; all others get the same.

use crate::tuning::TUNING;
use ctguard_layout::CLASSES;

/// New flows per second that each source may open, by class; infinite if the class gets all that it
/// asks for.
///
/// Solves Σ min(demand, share) = budget with one share for all classes. A class that would get less
/// than its kept part has its own share of that part.
pub(crate) fn fair_shares(demands: [&[f64]; CLASSES], budget: f64) -> [f64; CLASSES] {
    let kept = demands.map(|demands| demands.iter().sum::<f64>().min(budget * TUNING.class_part));
    let mut keeps = [false; CLASSES];
    loop {
        let rest: f64 = budget - total(kept, |class| keeps[class]);
        let common = demands.iter().zip(keeps).filter(|(_, keeps)| !keeps);
        let share = share(&common.flat_map(|(demands, _)| demands.iter().copied()), rest);

        let gets =
            |class: usize| demands[class].iter().map(|demand| demand.min(share)).sum::<f64>();
        let short: Vec<usize> = (0..CLASSES)
            .filter(|&class| !keeps[class] && gets(class) < kept[class] * (1.0 - 1e-9))
            .collect();
        for &class in &short {
            keeps[class] = true;
        }
        if short.is_empty() {
            let own = |class: usize| self::share(&demands[class].iter().copied(), kept[class]);
            return std::array::from_fn(|class| if keeps[class] { own(class) } else { share });
        }
    }
}

/// The share with Σ min(demand, share) = budget; infinite if less is asked for.
///
/// Serves all that ask for less than an equal part, and divides the rest again. That is exact, and
/// needs a few passes instead of a sort.
fn share(demands: &(impl Iterator<Item = f64> + Clone), budget: f64) -> f64 {
    let mut share = 0.0;
    loop {
        let (mut served, mut asking) = (0.0, 0.0);
        for demand in demands.clone() {
            if demand <= share {
                served += demand;
            } else {
                asking += 1.0;
            }
        }
        if asking == 0.0 {
            return f64::INFINITY;
        }
        let equal = (budget - served) / asking;
        if equal <= share {
            return share;
        }
        share = equal;
    }
}

fn total(values: [f64; CLASSES], counts: impl Fn(usize) -> bool) -> f64 {
    values.iter().enumerate().filter(|&(class, _)| counts(class)).map(|(_, value)| value).sum()
}

#[expect(clippy::float_cmp, reason = "these numbers come out exactly")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn who_asks_for_less_than_the_share_gets_it_all() {
        let shares = fair_shares([&[1.0, 2.0, 50.0, 90.0], &[], &[]], 23.0);
        assert_eq!(shares[0], 10.0);
    }

    #[test]
    fn a_budget_above_the_demand_limits_nobody() {
        assert_eq!(fair_shares([&[1.0, 2.0], &[3.0], &[]], 6.0), [f64::INFINITY; CLASSES]);
    }

    #[test]
    fn a_class_of_many_sources_leaves_a_tenth_to_the_others() {
        let udp = vec![5.0; 10_000];
        let [tcp, udp, _] = fair_shares([&[30.0, 30.0], &udp, &[]], 100.0);
        assert_eq!(tcp, 5.0, "ten a second, for two");
        assert!((udp - 0.009).abs() < 1e-9, "{udp}");
    }

    #[test]
    fn a_budget_of_nothing_gives_nothing() {
        assert_eq!(fair_shares([&[1.0], &[1.0], &[1.0]], 0.0), [0.0; CLASSES]);
    }

    /// Fills in small drops: first the kept parts, then whoever has least.
    #[test]
    fn the_shares_are_the_optimum_that_brute_force_finds() {
        const DROP: f64 = 0.02;
        let mut random = Random::new(7);
        for round in 0..300 {
            let demands: [Vec<f64>; CLASSES] = std::array::from_fn(|_| {
                let sources = random.below(6);
                (0..sources).map(|_| 0.1 + random.unit() * 20.0).collect()
            });
            let budget = random.unit() * 60.0;
            let shares = fair_shares([&demands[0], &demands[1], &demands[2]], budget);
            let expected = brute_force(&demands, budget, DROP);
            for class in 0..CLASSES {
                for (demand, filled) in demands[class].iter().zip(&expected[class]) {
                    let got = demand.min(shares[class]);
                    assert!((got - filled).abs() < 20.0 * DROP, "round {round}: {got} {filled}");
                }
            }
            let given: f64 = (0..CLASSES)
                .flat_map(|class| demands[class].iter().map(move |demand| (class, demand)))
                .map(|(class, demand)| demand.min(shares[class]))
                .sum();
            let asked: f64 = demands.iter().flatten().sum();
            assert!((given - asked.min(budget)).abs() < 1e-6, "round {round}: {given} of {budget}");
        }
    }

    fn brute_force(demands: &[Vec<f64>; CLASSES], budget: f64, drop: f64) -> [Vec<f64>; CLASSES] {
        let mut filled = demands.each_ref().map(|demands| vec![0.0; demands.len()]);
        let mut left = budget;
        for class in 0..CLASSES {
            let mut kept = budget * TUNING.class_part;
            while kept > 0.0 && pour(&demands[class], &mut filled[class], drop) {
                kept -= drop;
                left -= drop;
            }
        }
        while left > 0.0 {
            let lowest = (0..CLASSES)
                .filter_map(|class| Some((class, lowest(&demands[class], &filled[class])?.1)))
                .min_by(|(_, one), (_, other)| one.total_cmp(other));
            let Some((class, _)) = lowest else { break };
            pour(&demands[class], &mut filled[class], drop);
            left -= drop;
        }
        filled
    }

    fn pour(demands: &[f64], filled: &mut [f64], drop: f64) -> bool {
        let Some((source, _)) = lowest(demands, filled) else { return false };
        filled[source] += drop;
        true
    }

    fn lowest(demands: &[f64], filled: &[f64]) -> Option<(usize, f64)> {
        let asking =
            filled.iter().copied().enumerate().filter(|&(at, filled)| filled < demands[at]);
        asking.min_by(|(_, one), (_, other)| one.total_cmp(other))
    }
}
