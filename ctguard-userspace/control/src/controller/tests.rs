use super::{
    plant::{Group, JIFFIES_PER_SECOND, POLICY, Plant},
    *,
};
use crate::OfferedLoad;
use crate::tuning::TUNING;

const SECOND: u64 = 1000;
const FOREVER: u64 = u64::MAX;
/// What a SYN that nobody answers leaves, and a connection that was closed.
const LONG: u64 = 120 * SECOND;

/// Over table sizes, lifetimes, delays of the daemon and pauses of the kernel's collector.
#[test]
fn a_flood_of_spoofed_sources_is_challenged_within_200_milliseconds() {
    for max in [1024, 16_384, 262_144, 1_048_576] {
        for (lifetime, delay, collected_every) in
            [(LONG, 0, 1), (30 * SECOND, 3, 1), (LONG, 20, 1000), (5 * SECOND, 0, 1000)]
        {
            if max > 262_144 && delay > 0 {
                continue;
            }
            let rate = (real(max) * 2.0).min(500_000.0);
            let flood = spoofed(Class::Tcp, rate, lifetime);
            let mut plant = Plant::new(max, vec![starting(5, flood)]);
            (plant.delay, plant.collected_every) = (delay, collected_every);
            plant.run(15 * SECOND);
            let name = format!("max {max} lifetime {lifetime} delay {delay}: {}", plant.line());
            println!("{name}");
            let reaction = plant.first(Stage::Challenge).unwrap() - 5 * SECOND;
            assert!(reaction <= 200 + 6 * delay, "{reaction} ms, {name}");
            // A 32nd of the headroom in calm, and half as much until demands are known.
            assert!(plant.fullest * 8 < max, "{name}");
            assert_eq!(plant.changes.len(), 4, "{name}");
        }
    }
}

/// Sources that keep to their shares, so that the budget alone holds the fill. Entries that live
/// ten seconds come back as waves of their own, which die out more slowly.
#[test]
fn the_fill_settles_below_the_target_and_stays() {
    for (max, sources, rate) in [(1024, 5, 200.0), (16_384, 40, 2000.0), (262_144, 600, 30_000.0)] {
        for (lifetime, delay, collected_every, deviation) in [
            (10 * SECOND, 0, 1, 0.03),
            (10 * SECOND, 3, 1000, 0.03),
            (30 * SECOND, 3, 1, 0.01),
            (30 * SECOND, 20, 1000, 0.01),
        ] {
            if max == 262_144 && delay == 3 {
                continue;
            }
            let bots = live(Tier::Strangers, sources, rate, lifetime);
            let mut plant = Plant::new(max, vec![starting(5, bots)]);
            (plant.delay, plant.collected_every) = (delay, collected_every);
            plant.count_from(180 * SECOND);
            plant.run(200 * SECOND);
            let name = format!("max {max} lifetime {lifetime} delay {delay}: {}", plant.line());
            println!("{name}");
            assert!(plant.fullest <= plant.target(), "{name}");
            assert!(plant.deviation() <= deviation, "{name}");
            assert!(plant.mean_fill() >= 0.6, "{name}");
            assert!(plant.ticks <= 100 * 200, "{name}");
        }
    }
}

#[test]
fn regulars_and_proven_sources_are_never_refused_while_bots_hold_the_table_for_minutes() {
    for (bots, rate, lifetime) in [(100, 5000.0, LONG), (2000, 4000.0, LONG), (100, 2000.0, 30_000)]
    {
        let mut plant = Plant::new(
            16_384,
            vec![
                live(Tier::Regulars, 50, 50.0, 40 * SECOND),
                live(Tier::Proven, 50, 50.0, 40 * SECOND),
                starting(5, live(Tier::Strangers, bots, rate, lifetime)),
            ],
        );
        plant.run(240 * SECOND);
        println!("{bots} bots: {}", plant.line());
        for group in 0..2 {
            assert!(plant.outcome(group).success() >= 0.9999, "{}", plant.line());
        }
        assert!(plant.fullest <= plant.target(), "{}", plant.line());
    }
}

#[test]
fn who_asks_for_less_than_the_share_is_never_refused() {
    let mut plant = Plant::new(
        262_144,
        vec![
            live(Tier::Regulars, 100, 50.0, LONG),
            live(Tier::Strangers, 100, 50.0, LONG),
            starting(5, live(Tier::Strangers, 1000, 50_000.0, LONG)),
        ],
    );
    plant.count_from(5 * SECOND);
    plant.run(30 * SECOND);
    println!("{} jain {:.3}", plant.line(), plant.outcome(2).fairness());
    assert!(plant.outcome(0).success() >= 0.999, "{}", plant.line());
    assert!(plant.outcome(1).success() >= 0.999, "{}", plant.line());
    assert!(plant.outcome(2).fairness() >= 0.95);
    assert_eq!(plant.first(Stage::Challenge), None);
}

#[test]
fn ten_thousand_bots_that_answer_leave_regulars_alone_and_share_the_rest_evenly() {
    let mut plant = Plant::new(
        262_144,
        vec![
            live(Tier::Regulars, 100, 50.0, 30 * SECOND),
            starting(5, live(Tier::Strangers, 10_000, 50_000.0, LONG)),
        ],
    );
    plant.run(30 * SECOND);
    println!("{} jain {:.3}", plant.line(), plant.outcome(1).fairness());
    assert!(plant.outcome(0).success() >= 0.999);
    assert!(plant.outcome(1).fairness() >= 0.95);
}

#[test]
fn a_udp_flood_challenges_udp_alone_and_who_tries_again_gets_in() {
    let udp = Group { class: Class::Udp, ..live(Tier::Strangers, 50, 25.0, 30 * SECOND) };
    let mut plant = Plant::new(
        16_384,
        vec![
            live(Tier::Strangers, 50, 25.0, 30 * SECOND),
            udp,
            starting(5, spoofed(Class::Udp, 100_000.0, 30 * SECOND)),
        ],
    );
    plant.count_from(5 * SECOND + 200);
    plant.run(60 * SECOND);
    println!("{}", plant.line());
    let challenged = |(_, change): &(u64, StageChange)| change.to == Stage::Challenge;
    assert!(
        plant.changes.iter().filter(|&it| challenged(it)).all(|(_, it)| it.class == Class::Udp)
    );
    assert!(plant.outcome(0).success() >= 0.999, "{}", plant.line());
    assert!(plant.outcome(1).success() >= 0.99, "{}", plant.line());
}

#[test]
fn a_flood_from_an_allowed_address_stops_at_a_quarter_above_the_target_and_starves_nobody() {
    let allowed = Group { tier: Tier::Allowed, ..spoofed(Class::Tcp, 100_000.0, LONG) };
    let regulars = live(Tier::Regulars, 50, 50.0, 30 * SECOND);
    let strangers = live(Tier::Strangers, 50, 20.0, 30 * SECOND);
    let mut plant = Plant::new(16_384, vec![regulars, strangers, starting(5, allowed)]);
    plant.run(180 * SECOND);
    println!("{}", plant.line());
    assert!(plant.fullest <= plant.target() + (plant.max - plant.target()) / 4);
    assert!(plant.outcome(0).success() >= 1.0, "{}", plant.line());
    assert!(plant.outcome(1).success() >= 1.0, "{}", plant.line());
    assert_eq!(plant.changes.len(), 3, "calm is left once: {:?}", plant.changes);
}

#[test]
fn a_table_full_at_the_start_lets_the_upper_tiers_have_half_of_what_leaves() {
    let regulars = live(Tier::Regulars, 50, 50.0, 30 * SECOND);
    let flood = spoofed(Class::Tcp, 50_000.0, LONG);
    let mut plant = Plant::new(16_384, vec![regulars, flood]);
    plant.policy.reclaim = true;
    plant.fill(16_300, LONG);
    plant.controller = Controller::new(JIFFIES_PER_SECOND);
    plant.count_from(15 * SECOND);
    plant.run(60 * SECOND);
    println!("{}", plant.line());
    assert!(plant.outcome(0).success() >= 0.95, "{}", plant.line());
    assert!(plant.entries < 16_300 - 500, "{}", plant.line());
    assert_eq!(plant.outcome(1).admitted, 0, "strangers wait");
}

/// Fails when a class without a flood is challenged during the second that a reclaim takes, and for
/// the ten seconds after which a challenge may end.
#[test]
fn a_full_table_that_is_reclaimed_challenges_the_flood_alone() {
    let udp = Group { class: Class::Udp, ..live(Tier::Strangers, 20, 20.0, 30 * SECOND) };
    let flood = spoofed(Class::Tcp, 500_000.0, LONG);
    let mut plant =
        Plant::new(16_384, vec![live(Tier::Strangers, 50, 50.0, 30 * SECOND), udp, flood]);
    plant.policy.reclaim = true;
    plant.fill_unanswered(16_384, LONG);
    plant.count_from(1500);
    plant.run(10 * SECOND);
    println!("{}", plant.line());
    let challenged = plant.changes.iter().filter(|(_, change)| change.to == Stage::Challenge);
    assert!(
        challenged.clone().all(|(_, change)| change.class == Class::Tcp),
        "{:?}",
        plant.changes
    );
    assert_eq!(challenged.count(), 1);
    assert!(plant.outcome(0).success() >= 0.999, "{}", plant.line());
    assert!(plant.outcome(1).success() >= 0.999, "{}", plant.line());
}

/// Fails when a guard that may delete nothing refuses what the kernel would have made room for.
#[test]
fn a_full_table_that_is_not_reclaimed_is_left_to_the_kernel_but_for_the_flood() {
    let strangers = live(Tier::Strangers, 50, 50.0, 30 * SECOND);
    let regulars = live(Tier::Regulars, 50, 50.0, 30 * SECOND);
    let flood = spoofed(Class::Tcp, 500_000.0, LONG);
    let mut plant = Plant::new(16_384, vec![regulars, strangers, flood]);
    plant.fill_unanswered(16_384, 100 * LONG);
    plant.count_from(500);
    plant.run(20 * SECOND);
    println!("{}", plant.line());
    assert!(plant.outcome(0).success() >= 0.99, "{}", plant.line());
    assert!(plant.outcome(1).success() >= 0.95, "{}", plant.line());
    assert_eq!((plant.outcome(2).admitted, plant.dropped), (0, 0), "{}", plant.line());
}

#[test]
fn packets_that_die_later_starve_nobody() {
    let strangers = live(Tier::Strangers, 50, 50.0, 30 * SECOND);
    let lost = starting(5, live(Tier::Strangers, 20, 2000.0, 0));
    let mut plant = Plant::new(16_384, vec![strangers, lost]);
    plant.count_from(5 * SECOND);
    plant.run(30 * SECOND);
    println!("{}", plant.line());
    assert!(plant.outcome(0).success() >= 0.999, "{}", plant.line());
}

#[test]
fn calm_costs_ten_ticks_a_second_and_no_scan() {
    let mut plant = Plant::new(16_384, vec![live(Tier::Strangers, 100, 60.0, LONG)]);
    plant.run(90 * SECOND);
    assert_eq!((plant.scans, plant.changes.len()), (0, 0));
    assert!(plant.ticks <= 901, "{}", plant.ticks);
    assert!(plant.outcome(0).success() >= 1.0);
}

/// Fails when a class is challenged for what a sample makes of a few quiet sources: its share may well
/// be below the floor where known sources ask for most of what there is.
#[test]
fn quiet_strangers_are_not_challenged_while_their_grant_lasts() {
    let load = |tier, class, flows_per_second| OfferedLoad {
        tier,
        class,
        flows_per_second,
        is_seen_once: true,
    };
    let mut loads = vec![load(Tier::Proven, Class::Tcp, 2.0); 50];
    loads.extend([load(Tier::Strangers, Class::Udp, 1.0); 20]);
    let stage_after = |limit: u64, flood: Option<OfferedLoad>| {
        let mut controller = Controller::new(JIFFIES_PER_SECOND);
        controller.tick(&snapshot(0, 0, 1000), &POLICY);
        controller.tick(&snapshot(100, 4000, 5000), &POLICY);
        let loads: Vec<_> =
            loads.iter().copied().chain(vec![flood; 100].into_iter().flatten()).collect();
        let mut limits = [0; TIERS];
        limits[Tier::Strangers as usize] = limit;
        let mut last = None;
        for now in [500, 600, 700] {
            let snapshot = Snapshot { limits, loads: Some(&loads), ..snapshot(now, 4000, 5000) };
            last = controller.tick(&snapshot, &POLICY);
        }
        last.unwrap().stages[Class::Udp as usize]
    };
    assert_eq!(stage_after(5000, None), Stage::Fair);
    assert_eq!(stage_after(4000, None), Stage::Challenge, "their grant is spent");
    let flood = load(Tier::Strangers, Class::Udp, 50.0);
    assert_eq!(stage_after(5000, Some(flood)), Stage::Challenge, "it is clearly too much");
}

/// Fails when known sources, or who answers a challenge, have nothing while a flood that the daemon
/// has not seen spends what strangers may open; or when all together pass the target.
#[test]
fn in_calm_a_grant_lies_ready_for_each_tier_that_is_told_apart_once_strangers_have_spent_theirs() {
    let mut controller = Controller::new(JIFFIES_PER_SECOND);
    let decision = controller.tick(&snapshot(0, 0, 1000), &POLICY).unwrap();
    assert!(decision.limits().is_calm());
    let [strangers, _, regulars, proven, answered, retried, ..] =
        decision.grants.map(|grant| grant.limit);
    let headroom = u64::from(POLICY.target_ppm) * 10_000 / 1_000_000 - 1000;
    assert!(strangers > headroom / 40 && strangers <= headroom / 32, "{strangers}");
    for ready in [regulars, proven, answered] {
        assert!(ready > headroom / 40 && ready <= headroom / 32, "{ready}");
    }
    assert_eq!(retried, 0);
}

#[test]
fn a_flood_that_ends_is_over_within_half_a_minute_and_only_once() {
    let mut flood = starting(5, spoofed(Class::Tcp, 50_000.0, LONG));
    flood.until = 20 * SECOND;
    let mut plant = Plant::new(16_384, vec![live(Tier::Strangers, 100, 30.0, 30 * SECOND), flood]);
    plant.run(120 * SECOND);
    let last = plant.changes.last().unwrap();
    assert!(last.0 <= 50 * SECOND && last.1.to == Stage::Calm, "{last:?}");
    assert_eq!(plant.changes.len(), 8, "{:?}", plant.changes);
}

#[test]
fn a_change_of_stage_tells_its_reason() {
    let mut plant = Plant::new(16_384, vec![starting(5, spoofed(Class::Tcp, 100_000.0, LONG))]);
    plant.run(6 * SECOND);
    let (_, change) =
        plant.changes.iter().find(|(_, change)| change.to == Stage::Challenge).unwrap();
    assert!(change.demand > 10_000.0 && change.sources == Some(1024), "{change:?}");
    assert!(change.share.unwrap() < 1.0 && change.steering.budget < 300.0, "{change:?}");
}

#[test]
fn a_count_that_cannot_be_read_decides_nothing() {
    let mut controller = Controller::new(JIFFIES_PER_SECOND);
    assert_eq!(controller.tick(&Snapshot { table: None, ..snapshot(0, 0, 0) }, &POLICY), None);
    assert!(controller.tick(&snapshot(100, 0, 0), &POLICY).is_some());
}

#[test]
fn a_maximum_that_falls_below_the_count_grants_nothing_and_one_that_rises_grants_again() {
    let mut controller = Controller::new(JIFFIES_PER_SECOND);
    let mut flows = |now, max| {
        let table = Some(TableSample { entries: 5000, max });
        let snapshot = Snapshot { table, ..snapshot(now, 7, 0) };
        let decision = controller.tick(&snapshot, &POLICY).unwrap();
        decision.grants[Tier::Strangers as usize].limit - 7
    };
    assert_eq!(flows(0, 10_000), (8500 - 5000 - 2) / 32);
    assert_eq!(flows(100, 4000), 0);
    assert_eq!(flows(200, 0), TUNING.unlimited);
    assert_eq!(flows(300, 10_000), (8500 - 5000 - 2) / 32);
}

#[test]
fn a_clock_that_goes_back_is_no_time_and_no_credit() {
    let mut controller = Controller::new(JIFFIES_PER_SECOND);
    controller.tick(&snapshot(3_600_000, 0, 1000), &POLICY);
    controller.tick(&snapshot(3_600_100, 50, 1050), &POLICY);
    let back = controller.tick(&snapshot(5, 60, 1060), &POLICY).unwrap();
    assert_eq!(back.stages, [Stage::Calm; CLASSES]);
    let on = controller.tick(&snapshot(105, 60, 1060), &POLICY).unwrap();
    let headroom = 8500 - 1060 - 2;
    assert_eq!(on.grants[Tier::Strangers as usize].limit, 60 + headroom / 32);
}

#[test]
fn a_tick_five_seconds_late_is_no_burst() {
    let bots = live(Tier::Strangers, 100, 5000.0, LONG);
    let mut plant = Plant::new(16_384, vec![bots]);
    plant.run(30 * SECOND);
    let before = plant.entries;
    plant.pause(5 * SECOND);
    plant.run(plant.now + 20);
    let grown = plant.entries - before;
    println!("{grown} entries; {}", plant.line());
    assert!(grown < 13_926 / 20, "{grown} entries");
    assert!(plant.fullest <= plant.target());
}

/// Six floods, starting and stopping at random.
#[test]
fn mixed_floods_harm_no_regular() {
    let during = |from: u64, until: u64, group| Group {
        from: from * SECOND,
        until: until * SECOND,
        ..group
    };
    let mut plant = Plant::new(
        16_384,
        vec![
            live(Tier::Regulars, 50, 50.0, 30 * SECOND),
            live(Tier::Proven, 50, 30.0, 30 * SECOND),
            during(3, 17, spoofed(Class::Tcp, 80_000.0, LONG)),
            during(9, 41, spoofed(Class::Udp, 30_000.0, 30 * SECOND)),
            during(13, 55, live(Tier::Strangers, 300, 3000.0, LONG)),
            during(31, 34, spoofed(Class::Other, 20_000.0, 30 * SECOND)),
            during(38, 70, spoofed(Class::Tcp, 5000.0, LONG)),
            during(60, 90, live(Tier::Strangers, 10, 500.0, LONG)),
        ],
    );
    plant.run(110 * SECOND);
    println!("{} {} changes", plant.line(), plant.changes.len());
    for group in 0..2 {
        assert!(plant.outcome(group).success() >= 0.999, "{}", plant.line());
    }
    assert!(plant.fullest <= plant.target());
}

fn snapshot(now: u64, admitted: u64, entries: u64) -> Snapshot<'static> {
    Snapshot {
        now: Duration::from_millis(now),
        limits: [0; TIERS],
        admitted: [admitted, 0, 0, 0, 0, 0, 0, 0],
        new_flows: Some(admitted),
        table: Some(TableSample { entries, max: 10_000 }),
        loads: None,
        processors: 2,
    }
}

/// A flood of sources that spoof, each flow of another.
fn spoofed(class: Class, rate: f64, lifetime: u64) -> Group {
    Group { class, sources: 0, ..live(Tier::Strangers, 0, rate, lifetime) }
}

fn live(tier: Tier, sources: u32, rate: f64, lifetime: u64) -> Group {
    Group { tier, class: Class::Tcp, sources, rate, lifetime, from: 0, until: FOREVER }
}

fn starting(second: u64, group: Group) -> Group {
    Group { from: second * SECOND, ..group }
}
