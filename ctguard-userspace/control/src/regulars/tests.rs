use std::collections::BTreeSet;

use super::*;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const START: Duration = Duration::from_hours(24 * 365 * 50);

fn source(number: u32) -> SourceScope {
    SourceScope::V4(number)
}

fn regulars(memory: &Regulars) -> BTreeSet<SourceScope> {
    memory.regulars().into_keys().collect()
}

fn learn(memory: &mut Regulars, sources: &[SourceScope], proof: Proof, now: Duration) {
    memory.learn(sources.iter().map(|&source| (source, proof, Entries::default())), now);
}

/// Looks every 15 seconds for some hours, all with these sources; the time of the last.
fn hours(memory: &mut Regulars, start: Duration, count: u32, sources: &[SourceScope]) -> Duration {
    let mut now = start;
    while now < start + count * HOUR {
        learn(memory, sources, Proof::OfAddress, now);
        now += TUNING.learning_interval;
    }
    now
}

#[test]
fn a_source_of_three_hours_is_a_regular() {
    let mut memory = Regulars::default();
    let now = hours(&mut memory, START, 2, &[source(1)]);
    assert_eq!(regulars(&memory), BTreeSet::new());
    learn(&mut memory, &[source(1), source(2)], Proof::OfAddress, now);
    assert_eq!(regulars(&memory), BTreeSet::from([source(1)]));
}

#[test]
fn three_hours_of_three_days_are_enough() {
    let mut memory = Regulars::default();
    for day in 0..3 {
        learn(&mut memory, &[source(1)], Proof::OfAddress, START + day * DAY);
    }
    assert_eq!(regulars(&memory), BTreeSet::from([source(1)]));
}

#[test]
fn who_is_answered_without_a_handshake_needs_five_hours() {
    let mut memory = Regulars::default();
    for hour in 0..4 {
        for again in 0..10 {
            let now = START + hour * HOUR + again * TUNING.learning_interval;
            learn(&mut memory, &[source(1)], Proof::None, now);
        }
    }
    assert_eq!(regulars(&memory), BTreeSet::new());
    learn(&mut memory, &[source(1)], Proof::None, START + 4 * HOUR);
    assert_eq!(regulars(&memory), BTreeSet::from([source(1)]));
}

#[test]
fn an_hour_is_worth_no_more_than_one_however_it_proves() {
    let mut memory = Regulars::default();
    for proof in [Proof::None, Proof::OfAddress, Proof::None, Proof::OfAddress] {
        learn(&mut memory, &[source(1)], proof, START);
    }
    assert!((memory.ranked().0[0].1.score - 1.0).abs() < 1e-6);
}

#[test]
fn a_restart_does_not_count_an_hour_twice() {
    let mut memory = Regulars::default();
    for _ in 0..10 {
        learn(&mut memory, &[source(1)], Proof::OfAddress, START);
        let (ranked, as_of) = memory.ranked();
        memory = Regulars::restore(ranked, as_of);
    }
    assert_eq!(regulars(&memory), BTreeSet::new());
}

#[test]
fn a_score_halves_in_three_days_whatever_the_steps() {
    let [mut at_once, mut in_steps] = [Regulars::default(), Regulars::default()];
    let now = hours(&mut at_once, START, 10, &[source(1)]);
    hours(&mut in_steps, START, 10, &[source(1)]);
    let before = at_once.ranked().0[0].1.score;
    learn(&mut at_once, &[], Proof::OfAddress, now + 3 * DAY);
    for hour in 1..=72 {
        learn(&mut in_steps, &[], Proof::OfAddress, now + hour * HOUR);
    }
    for memory in [at_once, in_steps] {
        let after = memory.ranked().0[0].1.score;
        assert!((after / before - 0.5).abs() < 1e-3, "{before} {after}");
    }
}

#[test]
fn a_daily_hour_makes_a_regular_for_days_and_is_forgotten_after_weeks() {
    let mut memory = Regulars::default();
    let mut now = START;
    for day in 0..14 {
        now = hours(&mut memory, START + day * DAY, 1, &[source(1)]);
    }
    learn(&mut memory, &[], Proof::OfAddress, now + 2 * DAY);
    assert_eq!(regulars(&memory), BTreeSet::from([source(1)]));
    learn(&mut memory, &[], Proof::OfAddress, now + 30 * DAY);
    assert!(memory.ranked().0.is_empty());
}

#[test]
fn who_was_seen_once_never_displaces_a_regular() {
    let capacity = u32::try_from(Regulars::CAPACITY).unwrap();
    let mut memory = Regulars::default();
    let office: Vec<_> = (0..250).map(source).collect();
    let now = hours(&mut memory, START, 3, &office);
    let crowd: Vec<_> = (1000..3 * capacity).map(|host| source(host << 8)).collect();
    learn(&mut memory, &crowd, Proof::OfAddress, now);
    assert_eq!(memory.ranked().0.len(), Regulars::CAPACITY);
    assert_eq!(regulars(&memory), office.into_iter().collect());
}

#[test]
fn one_network_does_not_take_the_places_of_others() {
    let mut memory = Regulars::default();
    let bots: Vec<_> = (0..60_000).map(|host| SourceScope::V6(0x2001_0db8 << 32 | host)).collect();
    let others: Vec<_> = (0..500).map(|host| source(host << 8)).collect();
    for hour in 0..4 {
        learn(&mut memory, &bots, Proof::OfAddress, START + hour * HOUR);
        learn(&mut memory, &others, Proof::OfAddress, START + hour * HOUR);
    }
    let regulars = regulars(&memory);
    assert!(others.iter().all(|other| regulars.contains(other)));
    assert_eq!(regulars.len(), TUNING.regulars_few, "they are few");

    let many: Vec<_> = (0..2000).map(|host| source(host << 8)).collect();
    for hour in 4..8 {
        learn(&mut memory, &many, Proof::OfAddress, START + hour * HOUR);
    }
    let regulars = self::regulars(&memory);
    assert!(many.iter().all(|one| regulars.contains(one)));
    let bots = regulars.iter().filter(|one| matches!(one, SourceScope::V6(_))).count();
    assert_eq!(u32::try_from(bots), Ok(TUNING.regulars_in_network));
}

#[test]
fn sources_that_may_be_spoofed_take_a_part_of_the_places_only() {
    let mut memory = Regulars::default();
    let spoofed: Vec<_> = (0..10_000).map(|host| source(host << 8)).collect();
    for hour in 0..10 {
        learn(&mut memory, &spoofed, Proof::None, START + hour * HOUR);
    }
    assert_eq!(regulars(&memory).len(), TUNING.regulars_unproven);
}

/// A flood in calm does not raise within minutes what its sources may hold in the next one.
#[test]
fn what_a_regular_usually_holds_rises_in_hours_and_falls_in_days() {
    let mut memory = Regulars::default();
    let held = |proving| (source(1), Proof::OfAddress, Entries { proving, other: 0 });
    let mut now = START;
    for _ in 0..3 * 240 {
        memory.learn([held(1000)], now);
        now += TUNING.learning_interval;
    }
    let usual = memory.regulars()[&source(1)].proving;
    assert!((860..=890).contains(&usual), "{usual}");
    for _ in 0..4 {
        memory.learn([held(10_000)], now);
        now += TUNING.learning_interval;
    }
    let risen = memory.regulars()[&source(1)].proving;
    assert!(risen < usual + 120, "{risen}");
    for _ in 0..12 {
        memory.learn([held(0)], now);
        now += HOUR;
    }
    let at_night = memory.regulars()[&source(1)].proving;
    assert!(at_night > risen * 8 / 10, "{at_night}");
}

#[test]
fn a_clock_that_goes_back_neither_decays_nor_doubles() {
    let mut memory = Regulars::default();
    let now = hours(&mut memory, START, 10, &[source(1)]);
    let before = memory.ranked();
    learn(&mut memory, &[], Proof::OfAddress, now.saturating_sub(20 * DAY));
    assert_eq!(memory.ranked(), before);
}

#[test]
fn what_was_saved_is_taken_up_and_what_is_unsound_left_out() {
    let regular = Regular { score: 3.0, usual: [40.0, 2.5], is_proven: true };
    let sources = [(source(1), regular), (SourceScope::V6(2), regular)];
    let memory = Regulars::restore(sources, START);
    assert_eq!(memory.ranked(), (sources.to_vec(), START));
    let scores =
        [f32::NAN, f32::INFINITY, -1.0, 0.0, 1e30].map(|score| Regular { score, ..regular });
    let usuals =
        [f32::NAN, f32::INFINITY, -1.0].map(|usual| Regular { usual: [usual; 2], ..regular });
    let unsound = scores.into_iter().chain(usuals).map(|unsound| (source(9), unsound));
    assert_eq!(Regulars::restore(sources.into_iter().chain(unsound), START), memory);
    let many = (0..20_000).map(|number| (source(number), regular));
    assert_eq!(Regulars::restore(many, START).ranked().0.len(), Regulars::CAPACITY);
}

/// Against scores that are never bounded nor decayed in steps.
#[test]
fn scores_are_the_sum_of_what_each_hour_is_worth() {
    let mut random = crate::testing::Random::new(7);
    let mut memory = Regulars::default();
    let (mut seen, mut now) = (HashMap::<SourceScope, Vec<Duration>>::new(), START);
    for _ in 0..500 {
        now += HOUR * (1 + random.below(3));
        let look: Vec<_> = (0..20).filter(|_| random.below(2) == 1).map(source).collect();
        for source in &look {
            seen.entry(*source).or_default().push(now);
        }
        learn(&mut memory, &look, Proof::OfAddress, now);
    }
    for (source, regular) in memory.ranked().0 {
        let worth = |at: &Duration| halved(now.saturating_sub(*at), TUNING.regular_half_life);
        let expected: f32 = seen[&source].iter().map(worth).sum();
        assert!((regular.score - expected).abs() < 1e-3, "{source} {regular:?} {expected}");
    }
}
