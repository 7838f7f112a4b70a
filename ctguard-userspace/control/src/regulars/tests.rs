use std::collections::BTreeSet;

use super::*;
use crate::tuning::TUNING;

const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);
const START: Duration = Duration::from_hours(24 * 365 * 50);

fn source(number: u32) -> SourceScope {
    SourceScope::V4(number)
}

fn regulars(memory: &Regulars) -> BTreeSet<SourceScope> {
    memory.regulars().collect()
}

/// Dumps a minute apart from `start`, all with these sources; the time of the last.
fn dumps(memory: &mut Regulars, start: Duration, count: u32, sources: &[SourceScope]) -> Duration {
    let mut now = start;
    for _ in 0..count {
        now += MINUTE;
        memory.learn(sources.iter().copied(), Weather::Calm, now);
    }
    now
}

#[test]
fn a_source_of_two_dumps_is_a_regular() {
    let mut memory = Regulars::default();
    let now = dumps(&mut memory, START, 1, &[source(1)]);
    assert_eq!(regulars(&memory), BTreeSet::new());
    dumps(&mut memory, now, 1, &[source(1), source(2)]);
    assert_eq!(regulars(&memory), BTreeSet::from([source(1)]));
}

#[test]
fn many_connections_in_one_dump_count_once() {
    let mut memory = Regulars::default();
    dumps(&mut memory, START, 1, &[source(1); 100]);
    assert_eq!(regulars(&memory), BTreeSet::new());
}

#[test]
fn nobody_is_learnt_under_pressure() {
    let mut memory = Regulars::default();
    let now = dumps(&mut memory, START, 2, &[source(1)]);
    for minute in 1..100 {
        memory.learn([source(1), source(2)], Weather::Pressure, now + MINUTE * minute);
    }
    assert_eq!(regulars(&memory), BTreeSet::from([source(1)]));
    let (ranked, _) = memory.ranked();
    assert!(ranked[0].1 < 2.0, "{ranked:?}");
}

#[test]
fn a_score_halves_in_three_days_whatever_the_steps() {
    let [mut at_once, mut in_steps] = [Regulars::default(), Regulars::default()];
    let now = dumps(&mut at_once, START, 100, &[source(1)]);
    dumps(&mut in_steps, START, 100, &[source(1)]);
    let before = at_once.ranked().0[0].1;
    at_once.learn([], Weather::Calm, now + 3 * DAY);
    for hour in 1..=72 {
        in_steps.learn([], Weather::Calm, now + Duration::from_hours(hour));
    }
    for memory in [at_once, in_steps] {
        let after = memory.ranked().0[0].1;
        assert!((after / before - 0.5).abs() < 1e-9, "{before} {after}");
    }
}

#[test]
fn a_daily_hour_makes_a_regular_for_weeks_and_no_longer() {
    let mut memory = Regulars::default();
    let mut now = START;
    for day in 0..7 {
        now = dumps(&mut memory, START + day * DAY, 60, &[source(1)]);
    }
    memory.learn([], Weather::Calm, now + 14 * DAY);
    assert_eq!(regulars(&memory), BTreeSet::from([source(1)]));
    memory.learn([], Weather::Calm, now + 60 * DAY);
    assert!(memory.ranked().0.is_empty());
}

#[test]
fn the_least_give_way_where_there_are_too_many() {
    let capacity = u32::try_from(Regulars::CAPACITY).unwrap();
    let mut memory = Regulars::default();
    let faithful: Vec<_> = (0..1000).map(source).collect();
    let now = dumps(&mut memory, START, 5, &faithful);
    let crowd: Vec<_> = (1000..3 * capacity).map(source).collect();
    dumps(&mut memory, now, 1, &crowd);
    assert_eq!(memory.ranked().0.len(), Regulars::CAPACITY);
    assert_eq!(regulars(&memory), faithful.into_iter().collect());
}

#[test]
fn a_clock_that_goes_back_neither_decays_nor_doubles() {
    let mut memory = Regulars::default();
    let now = dumps(&mut memory, START, 10, &[source(1)]);
    let before = memory.ranked();
    memory.learn([], Weather::Calm, now.saturating_sub(20 * DAY));
    assert_eq!(memory.ranked(), before);
}

#[test]
fn what_was_saved_is_taken_up_and_what_is_unsound_left_out() {
    let mut memory = Regulars::default();
    dumps(&mut memory, START, 10, &[source(1), SourceScope::V6(2)]);
    let (ranked, as_of) = memory.ranked();
    assert_eq!(Regulars::restore(ranked.clone(), as_of), memory);
    let unsound = [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e300].map(|score| (source(9), score));
    let restored = Regulars::restore(ranked.into_iter().chain(unsound), as_of);
    assert_eq!(restored, memory);
    let many = (0..20_000).map(|number| (source(number), 1.0));
    assert_eq!(Regulars::restore(many, as_of).ranked().0.len(), Regulars::CAPACITY);
}

/// Against scores that are never bounded nor decayed in steps.
#[test]
fn scores_are_the_sum_of_what_each_dump_is_worth() {
    let mut random = 7_u32;
    let mut memory = Regulars::default();
    let (mut seen, mut now) = (HashMap::<SourceScope, Vec<Duration>>::new(), START);
    for _ in 0..500 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        now += MINUTE * (random >> 24);
        let dump: Vec<_> = (0..20).filter(|bit| random >> bit & 1 == 1).map(source).collect();
        for source in &dump {
            seen.entry(*source).or_default().push(now);
        }
        memory.learn(dump, Weather::Calm, now);
    }
    for (source, score) in memory.ranked().0 {
        let worth = |at: &Duration| {
            (-now.saturating_sub(*at).as_secs_f64() / TUNING.regular_half_life.as_secs_f64()).exp2()
        };
        let expected: f64 = seen[&source].iter().map(worth).sum();
        assert!((score - expected).abs() < 1e-6, "{source} {score} {expected}");
    }
}
