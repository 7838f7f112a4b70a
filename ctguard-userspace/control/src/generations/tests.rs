use super::*;

mod simulation;

const LIGHT: Load = Load(0.1);
const HEAVY: Load = Load(0.3);

#[test]
fn the_first_dump_comes_as_soon_as_nothing_of_before_is_in_flight() {
    let mut generations = Generations::new(ms(1000));
    assert_eq!(generations.next(ms(1099), LIGHT), Step::Wait);
    assert_eq!(generations.next(ms(1100), LIGHT), Step::Dump);
    generations.dumped(ms(1100), ms(1400), true);
    assert_eq!(generations.next(ms(1400), LIGHT), Step::Turn);
    assert!(!generations.is_complete());
    generations.turned(ms(1401), LIGHT);
    assert!(generations.is_complete());
    assert_eq!(generations.next(ms(1402), LIGHT), Step::Wait);
}

#[test]
fn a_generation_lasts_a_minute_and_ends_with_a_dump() {
    let mut generations = lasting();
    assert_eq!(generations.next(ms(59_999), LIGHT), Step::Wait);
    assert_eq!(generations.next(ms(60_000), LIGHT), Step::Dump);
    generations.dumped(ms(60_000), ms(60_300), true);
    assert_eq!(generations.next(ms(60_300), LIGHT), Step::Turn);
    generations.turned(ms(60_301), LIGHT);
    assert_eq!(generations.next(ms(120_300), LIGHT), Step::Wait);
    assert_eq!(generations.next(ms(120_301), LIGHT), Step::Dump);
    assert!(generations.is_complete(), "a turn forgets no flow that lives");
}

#[test]
fn a_loaded_generation_ends_early_but_not_at_once() {
    let generations = lasting();
    assert_eq!(generations.next(ms(4999), HEAVY), Step::Wait);
    assert_eq!(generations.next(ms(5000), HEAVY), Step::Dump);
    assert_eq!(generations.next(ms(5000), HIGHEST_LOAD), Step::Wait);
}

/// Fails when a table that outgrew the filter is dumped without pause.
#[test]
fn a_load_that_live_flows_make_ends_no_generation_early() {
    let mut generations = Generations::new(ms(0));
    generations.turned(ms(0), HEAVY);
    assert_eq!(generations.next(ms(5000), Load(0.4)), Step::Wait);
    assert_eq!(generations.next(ms(5000), Load(0.5)), Step::Dump);
}

#[test]
fn a_dump_that_failed_is_tried_again_ever_later() {
    let mut generations = Generations::new(ms(0));
    let mut now = ms(100);
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        generations.dumped(now, now, false);
        now += Duration::from_secs(seconds);
        assert_eq!(generations.next(now.saturating_sub(ms(1)), HEAVY), Step::Wait, "{seconds} s");
        assert_eq!(generations.next(now, HEAVY), Step::Dump, "{seconds} s");
    }
    assert!(!generations.is_complete());
    generations.dumped(now, now, true);
    generations.turned(now, LIGHT);
    now += Duration::from_mins(1);
    generations.dumped(now, now, false);
    assert_eq!(generations.next(now + ms(1000), LIGHT), Step::Dump, "success starts over");
}

#[test]
fn no_turn_follows_a_dump_that_failed() {
    let mut generations = lasting();
    generations.dumped(ms(60_000), ms(60_300), false);
    assert_eq!(generations.next(ms(60_300), HEAVY), Step::Wait);
    assert_eq!(generations.next(ms(61_300), HEAVY), Step::Dump);
}

#[test]
fn a_dump_begun_before_its_generation_does_not_count() {
    let mut generations = Generations::new(ms(1000));
    generations.dumped(ms(1099), ms(1500), true);
    assert_eq!(generations.next(ms(1500), LIGHT), Step::Dump);

    let mut generations = lasting();
    generations.turned(ms(60_000), LIGHT);
    generations.dumped(ms(60_099), ms(60_500), true);
    assert_eq!(generations.next(ms(60_500), LIGHT), Step::Wait);
}

/// Complete, and gathering since 0.
fn lasting() -> Generations {
    let mut generations = Generations::new(ms(0));
    generations.turned(ms(0), LIGHT);
    generations
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
