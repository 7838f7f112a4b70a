//! What the controller does after a time in which nothing was dropped.

use super::*;

/// Fails when what passed in a dry run counts as flows that others open: the guard then leaves calm for
/// them every five seconds, without any traffic, and keeps a tenth of the table free for nobody.
#[test]
fn after_a_dry_run_in_a_flood_nothing_flaps_and_nothing_is_kept_for_others() {
    for (rate, lifetime, until) in [(3000.0, 5 * SECOND, 40), (100_000.0, 30 * SECOND, 25)] {
        for enforced in [until - 5, until] {
            let mut flood = starting(5, spoofed(Class::Tcp, rate, lifetime));
            flood.until = until * SECOND;
            let quiet = live(Tier::Strangers, 50, 20.0, 10 * SECOND);
            let mut plant = Plant::new(16_384, vec![quiet, flood]);
            plant.dry_run(true);
            plant.run(enforced * SECOND);
            plant.dry_run(false);
            plant.run((until + 120) * SECOND);
            let name = format!("{rate} enforced {enforced}: {}", plant.line());
            println!("{name}");
            let of_tcp = plant.changes.iter().filter(|(_, change)| change.class == Class::Tcp);
            let stages: Vec<_> = of_tcp.map(|(_, change)| change.to).collect();
            assert_eq!(stages, [Stage::Fair, Stage::Challenge, Stage::Fair, Stage::Calm], "{name}");
            let others = plant.changes.iter().map(|(_, change)| change.steering.others);
            assert!(others.fold(0.0, f64::max) < 10.0, "{name}: {:?}", plant.changes);
        }
    }
}

/// Fails when calm returns although what others open ends it at once.
#[test]
fn what_others_open_does_not_let_calm_come_and_go() {
    let others = Group { until: 20 * SECOND, ..unguarded(live(Tier::Strangers, 1, 450.0, LONG)) };
    let mut plant = Plant::new(16_384, vec![live(Tier::Strangers, 50, 20.0, 10 * SECOND), others]);
    plant.run(LONG);
    println!("{} {:?}", plant.line(), plant.changes);
    assert_eq!(plant.changes.len(), 6, "{:?}", plant.changes);
}

/// Fails when calm returns between two bursts of which each ends it.
#[test]
fn what_others_open_in_bursts_does_not_let_calm_come_and_go() {
    for rate in [1900.0, 1950.0, 2050.0, 2150.0, 2250.0] {
        let burst = |second: u64| {
            let others = unguarded(live(Tier::Strangers, 1, rate, 4 * SECOND));
            Group { until: (second + 2) * SECOND, ..starting(second, others) }
        };
        let quiet = live(Tier::Strangers, 50, 20.0, 10 * SECOND);
        let bursts = (2..10).map(|number| burst(8 * number));
        let mut plant = Plant::new(16_384, std::iter::once(quiet).chain(bursts).collect());
        plant.run(200 * SECOND);
        assert_eq!(plant.changes.len(), 6, "{rate}: {:?}", plant.changes);
    }
}
