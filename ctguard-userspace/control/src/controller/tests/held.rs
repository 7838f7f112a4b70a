//! Tables that are full, or that somebody holds, and who still finds room.

use super::*;

/// Bots whose entries nothing but time removes: as many get in as leave, and none beyond the target.
#[test]
fn a_table_that_is_held_takes_what_leaves_and_stays_below_the_target() {
    for (max, sources, rate) in [(1024, 5, 200.0), (16_384, 40, 2000.0), (262_144, 600, 30_000.0)] {
        for (lifetime, delay, collected_every) in [
            (10 * SECOND, 0, 1),
            (10 * SECOND, 3, 1000),
            (30 * SECOND, 3, 1),
            (30 * SECOND, 20, 1000),
        ] {
            if max == 262_144 && delay == 3 {
                continue;
            }
            let bots = live(Tier::Strangers, sources, rate, lifetime);
            let mut plant = Plant::new(max, vec![starting(5, bots)]);
            (plant.delay, plant.collected_every) = (delay, collected_every);
            plant.count_from(50 * SECOND);
            plant.run(200 * SECOND);
            let name = format!("max {max} lifetime {lifetime} delay {delay}: {}", plant.line());
            println!("{name}");
            assert!(plant.fullest <= plant.target(), "{name}");
            let leaves = real(plant.target()) * 1000.0 / real(lifetime);
            assert!(plant.outcome(0).success() >= 0.6 * (leaves / rate).min(1.0), "{name}");
            assert!(plant.ticks <= 100 * 200, "{name}");
        }
    }
}

#[test]
fn regulars_and_proven_sources_are_served_while_bots_hold_the_table_for_minutes() {
    for (bots, rate, lifetime) in [(100, 5000.0, LONG), (2000, 4000.0, LONG), (100, 2000.0, 30_000)]
    {
        let mut plant = Plant::new(
            16_384,
            vec![
                live(Tier::Regulars, 50, 50.0, 40 * SECOND),
                live(Tier::Proven, 50, 50.0, 40 * SECOND),
                starting(45, live(Tier::Strangers, bots, rate, lifetime)),
            ],
        );
        plant.count_from(45 * SECOND);
        plant.run(240 * SECOND);
        println!("{bots} bots: {}", plant.line());
        for group in 0..2 {
            assert!(plant.outcome(group).success() >= 0.999, "{}", plant.line());
        }
        assert!(plant.fullest <= plant.target(), "{}", plant.line());
    }
}

/// Half-open entries, the oldest of which came a tenth of a second ago.
#[test]
fn a_table_full_of_young_entries_makes_room_by_what_the_kernel_would_replace() {
    let strangers = live(Tier::Strangers, 50, 50.0, 30 * SECOND);
    let regulars = live(Tier::Regulars, 50, 50.0, 30 * SECOND);
    let flood = half_open(spoofed(Class::Tcp, 500_000.0, LONG));
    let mut plant = Plant::new(16_384, vec![regulars, strangers, flood]);
    plant.fill(16_384, 100, flood);
    plant.count_from(plant.now + 1000);
    plant.run(20 * SECOND);
    println!("{}", plant.line());
    assert!(plant.outcome(0).success() >= 0.999, "{}", plant.line());
    assert!(plant.outcome(1).success() >= 0.999, "{}", plant.line());
    assert_eq!((plant.outcome(2).admitted, plant.dropped), (0, 0), "{}", plant.line());
    assert!(plant.entries <= plant.target(), "{}", plant.line());
}

/// Fails when a class without a flood is challenged while a full table is reclaimed.
#[test]
fn a_full_table_that_is_reclaimed_challenges_the_flood_alone() {
    let udp = Group { class: Class::Udp, ..live(Tier::Strangers, 20, 20.0, 30 * SECOND) };
    let flood = spoofed(Class::Tcp, 500_000.0, LONG);
    let mut plant =
        Plant::new(16_384, vec![live(Tier::Strangers, 50, 50.0, 30 * SECOND), udp, flood]);
    plant.fill(16_384, 2000, flood);
    plant.count_from(plant.now + 1000);
    plant.run(plant.now + 10 * SECOND);
    println!("{}", plant.line());
    let challenged = plant.changes.iter().filter(|(_, change)| change.to == Stage::Challenge);
    assert!(
        challenged.clone().all(|(_, change)| change.class == Class::Tcp),
        "{:?}",
        plant.changes
    );
    assert!(plant.outcome(0).success() >= 0.999, "{}", plant.line());
    assert!(plant.outcome(1).success() >= 0.999, "{}", plant.line());
}

/// Fails when a guard that may delete nothing refuses what the kernel would have made room for.
#[test]
fn a_full_table_that_is_not_reclaimed_is_left_to_the_kernel_but_for_the_flood() {
    let strangers = live(Tier::Strangers, 50, 50.0, 30 * SECOND);
    let regulars = live(Tier::Regulars, 50, 50.0, 30 * SECOND);
    let flood = spoofed(Class::Tcp, 500_000.0, 100 * LONG);
    for fill in [13_930, 16_384] {
        let mut plant = Plant::new(16_384, vec![regulars, strangers, flood]);
        plant.policy.reclaim = false;
        plant.fill(fill, 100, flood);
        plant.count_from(plant.now + 1000);
        plant.run(20 * SECOND);
        println!("{}", plant.line());
        assert!(plant.outcome(0).success() >= 0.99, "{}", plant.line());
        assert!(plant.outcome(1).success() >= 0.95, "{}", plant.line());
        assert_eq!(plant.dropped, 0, "{}", plant.line());
    }
}

/// Fails when everybody waits for room that nobody can make, while a table without a guard would take
/// flows up to its maximum.
#[test]
fn when_no_room_can_be_made_the_tiers_go_on_to_the_maximum() {
    let held = Group { is_replaceable: false, ..live(Tier::Proven, 1, 1.0, 100 * LONG) };
    let mut plant = Plant::new(16_384, vec![live(Tier::Proven, 50, 50.0, 60 * SECOND)]);
    plant.fill(13_930, 1, held);
    plant.count_from(SECOND);
    plant.run(40 * SECOND);
    println!("{}", plant.line());
    assert!(plant.outcome(0).success() >= 0.999, "{}", plant.line());
}

/// As many idle connections as the target takes, from before the guard. Fails when the few entries
/// that can be deleted pass for room, so that newcomers wait for them.
#[test]
fn a_table_full_of_idle_connections_takes_newcomers_up_to_the_maximum() {
    let held = live(Tier::Proven, 1, 1.0, 100 * LONG);
    let web = Group { reclaimable_after: 10 * SECOND, ..live(Tier::Proven, 300, 80.0, LONG) };
    let dns = Group {
        class: Class::Udp,
        reclaimable_after: 10 * SECOND,
        is_replaceable: true,
        ..live(Tier::Strangers, 300, 60.0, 30 * SECOND)
    };
    let mut plant = Plant::new(16_384, vec![web, dns]);
    plant.fill(14_040, 1, held);
    plant.count_from(SECOND);
    plant.run(60 * SECOND);
    println!("{}", plant.line());
    assert!(plant.outcome(0).success() >= 0.999, "{}", plant.line());
    assert!(plant.outcome(1).success() >= 0.95, "{}", plant.line());
    assert_eq!(plant.dropped, 0, "{}", plant.line());
}

/// Fails when connections that fill the table nearly to its target leave strangers no room, while a
/// table without a guard has room for them.
#[test]
fn beside_idle_connections_just_below_the_target_strangers_find_room() {
    let held = live(Tier::Proven, 1, 1.0, 100 * LONG);
    for fill in [3_240, 3_330, 3_400, 3_440, 3_500, 3_700] {
        let web = Group { reclaimable_after: 12 * SECOND, ..live(Tier::Strangers, 300, 5.0, LONG) };
        let dns = Group { class: Class::Udp, is_replaceable: true, ..web };
        let mut plant = Plant::new(4_096, vec![web, dns]);
        plant.fill(fill, 1, held);
        plant.count_from(SECOND);
        plant.run(60 * SECOND);
        println!("{fill}: {}", plant.line());
        assert!(plant.outcome(0).success() >= 0.99, "{fill}: {}", plant.line());
        assert!(plant.outcome(1).success() >= 0.99, "{fill}: {}", plant.line());
        assert_eq!(plant.dropped, 0, "{}", plant.line());
    }
}

/// Fails when a target that bots have nearly filled, with a few connections each, leaves strangers no
/// room, while a table without a guard has room for them.
#[test]
fn beside_bots_within_their_part_strangers_find_room() {
    let held = live(Tier::Proven, 1, 1.0, 100 * LONG);
    for bots in [380, 430, 480, 540, 580, 640, 700] {
        let web =
            Group { reclaimable_after: 10 * SECOND, ..live(Tier::Strangers, 300, 10.0, LONG) };
        let dns = Group { class: Class::Udp, is_replaceable: true, ..web };
        let flood = starting(5, spoofed(Class::Tcp, 2_000.0, LONG));
        let bots = Group {
            until: 14 * SECOND,
            ..live(Tier::Proven, 1, f64::from(bots) / 8.0, 100 * LONG)
        };
        let mut plant = Plant::new(4_096, vec![web, dns, starting(6, bots), flood]);
        plant.fill(2_800, 1, held);
        plant.count_from(6 * SECOND);
        plant.run(60 * SECOND);
        println!("{bots:?}: {}", plant.line());
        assert!(plant.outcome(0).success() >= 0.9, "{}", plant.line());
        assert!(plant.outcome(1).success() >= 0.85, "{}", plant.line());
        assert_eq!(plant.dropped, 0, "{}", plant.line());
    }
}

/// Fails when bots that hold their connections take the room above the target too, or when those that
/// came before wait for room that nobody can make.
#[test]
fn while_bots_hold_the_table_those_that_came_before_may_open_more_than_they_had() {
    let bots = live(Tier::Strangers, 500, 2000.0, 100 * LONG);
    let [regulars, earlier] =
        [Tier::Regulars, Tier::Earlier].map(|tier| starting(60, live(tier, 50, 20.0, 10 * SECOND)));
    let mut plant = Plant::new(16_384, vec![regulars, earlier, bots]);
    plant.count_from(60 * SECOND);
    plant.run(240 * SECOND);
    println!("{}", plant.line());
    assert!(plant.outcome(0).success() >= 0.999, "{}", plant.line());
    assert!(plant.outcome(1).success() >= 0.999, "{}", plant.line());
    assert!(plant.dropped == 0 && plant.fullest < plant.max, "{}", plant.line());
}

/// Three quarters of it as `TIME_WAIT`, of which ten seconds' are needed: more than the table would
/// hold for two minutes.
#[test]
fn connections_that_are_over_make_room_in_calm() {
    let web = Group { reclaimable_after: 10 * SECOND, ..live(Tier::Strangers, 600, 120.0, LONG) };
    let dns = Group { class: Class::Udp, ..live(Tier::Strangers, 600, 60.0, 30 * SECOND) };
    let mut plant = Plant::new(16_384, vec![web, dns]);
    plant.run(300 * SECOND);
    println!("{}", plant.line());
    assert_eq!(plant.changes.len(), 0, "{:?}", plant.changes);
    assert!(plant.outcome(0).success() >= 1.0 && plant.outcome(1).success() >= 1.0);
    assert!(plant.fullest <= plant.target());
}

/// Fails when the guard keeps so much room for others that strangers find none, or when the others'
/// entries, which it deletes all the time, are no room.
#[test]
fn beside_a_flood_that_others_let_in_strangers_find_room() {
    let web = Group { reclaimable_after: 10 * SECOND, ..live(Tier::Strangers, 300, 40.0, LONG) };
    let dns =
        Group { class: Class::Udp, is_replaceable: true, rate: 20.0, lifetime: 30 * SECOND, ..web };
    for rate in [400.0, 2_000.0, 3_000.0] {
        let flood = starting(5, unguarded(spoofed(Class::Tcp, rate, LONG)));
        let mut plant = Plant::new(4096, vec![web, dns, flood]);
        plant.fill(300, 1, live(Tier::Proven, 1, 1.0, 100 * LONG));
        plant.count_from(6 * SECOND);
        plant.run(30 * SECOND);
        println!("{rate}: {}", plant.line());
        assert!(plant.outcome(0).success() >= 0.95, "{rate}: {}", plant.line());
        assert!(plant.outcome(1).success() >= 0.95, "{rate}: {}", plant.line());
        assert!(plant.fullest < plant.max, "{}", plant.line());
    }
}

/// As many idle connections as the table takes, from before the guard, and what others open. Fails
/// when the room that is kept for these is all that there is.
#[test]
fn idle_connections_above_their_part_make_room_for_newcomers_and_for_others() {
    let held = live(Tier::Earlier, 1, 1.0, 100 * LONG);
    let web = Group { reclaimable_after: 2 * SECOND, ..live(Tier::Strangers, 600, 100.0, LONG) };
    let dns = Group {
        class: Class::Udp,
        reclaimable_after: 10 * SECOND,
        is_replaceable: true,
        ..live(Tier::Strangers, 300, 50.0, 30 * SECOND)
    };
    let inside =
        unguarded(Group { reclaimable_after: 10 * SECOND, ..live(Tier::Proven, 0, 57.0, LONG) });
    for (above_part, least) in [(0, 0.4), (2_000, 0.98), (3_500, 0.999)] {
        let mut plant = Plant::new(16_384, vec![web, dns, inside]);
        plant.fill(16_000 - above_part, 1, held);
        let idle = Group { reclaimable_after: 60 * SECOND, ..held };
        if above_part > 0 {
            plant.fill(above_part, 600 * SECOND, idle);
        }
        let started = plant.now;
        plant.count_from(started + SECOND);
        plant.run(started + 30 * SECOND);
        println!("{above_part}: {}", plant.line());
        for group in 0..2 {
            assert!(plant.outcome(group).success() >= least, "{above_part}: {}", plant.line());
        }
        assert!(above_part == 0 || plant.dropped == 0, "{}", plant.line());
    }
}
