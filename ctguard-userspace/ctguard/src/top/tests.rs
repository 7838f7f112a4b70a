//! Screens as text, in `screens/`. `CTGUARD_WRITE_SCREENS=1 cargo test -p ctguard top` writes them;
//! read what changed before you commit it.

use std::{collections::BTreeMap, env, fs, path::PathBuf, time::Duration};

use ctguard_control::sources::SourceScope;
use ctguard_layout::{CLASSES, Stage};
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer, style::Color};

use super::{
    draw::{Look, draw},
    keys::Key,
    reading::{Asked, ClassCounts, Counts, Daemon, Facts, Standing},
    state::State,
    view::{Change, Effect, Mode, View},
};
use crate::holders::{AboveLimit, Holders, PartReport, SourceHolder, StateHolders};

const COLOURS: Look = Look { is_coloured: true, has_eighths: true };
const SMALL: (u16, u16) = (80, 24);
const LARGE: (u16, u16) = (120, 40);

fn view() -> View {
    View::new(Duration::from_secs(1))
}

fn drawn(state: &State, view: &View, look: Look, (width, height): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state, view, look, "14:02:07 UTC")).unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let mut text = String::new();
    for row in buffer.content.chunks(usize::from(buffer.area.width)) {
        // A wide letter leaves the cell behind it empty.
        let (mut line, mut hidden) = (String::new(), 0);
        for cell in row {
            if hidden == 0 {
                line.push_str(cell.symbol());
                hidden = ratatui::text::Span::raw(cell.symbol()).width().max(1);
            }
            hidden -= 1;
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn screens() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "src/top/screens"].iter().collect()
}

fn ensure_screen(name: &str, state: &State, view: &View, size: (u16, u16)) {
    let path = screens().join(format!("{name}.txt"));
    let drawn = text(&drawn(state, view, COLOURS, size));
    if env::var_os("CTGUARD_WRITE_SCREENS").is_some() {
        fs::write(&path, &drawn).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(drawn == expected, "{name} has changed:\n{drawn}\nand not:\n{expected}");
}

fn holder(source: &str, states: &[(&str, u32)], is_above_part: bool) -> SourceHolder {
    let states: Vec<_> =
        states.iter().map(|(name, entries)| ((*name).to_owned(), *entries)).collect();
    let entries = states.iter().map(|(_, entries)| entries).sum();
    SourceHolder { source: source.to_owned(), entries, states, is_above_part }
}

fn above(source: &str, asks: f64, refused: f64, limit: &str, rate: f64) -> AboveLimit {
    AboveLimit {
        source: source.to_owned(),
        class: "tcp".to_owned(),
        flows_per_second: asks,
        refused_per_second: refused,
        limit: limit.to_owned(),
        limit_per_second: rate,
        burst: 200.0,
    }
}

fn holders() -> Holders {
    let state = |state: &str, entries, idle_entries| StateHolders {
        state: state.to_owned(),
        entries,
        idle_entries,
    };
    Holders {
        services: Vec::new(),
        looked_at: "2026-01-02T14:02:05.000Z".to_owned(),
        entries: 13_020,
        states: vec![
            state("established", 9100, 3000),
            state("half-open", 2610, 0),
            state("unanswered", 1120, 0),
            state("finished", 190, 0),
        ],
        sources: vec![
            holder("203.0.113.9", &[("established", 4100), ("half-open", 12)], true),
            holder("2001:db8:1234:5678::/64", &[("established", 310)], false),
            holder("192.0.2.40", &[("stream", 77), ("finished", 9)], false),
        ],
        parts: Some(PartReport {
            connections: Some(400),
            connections_before: Some(1800),
            other_entries: Some(120),
        }),
        reclaimable: 3400,
        reclaimed: BTreeMap::from([("unanswered".to_owned(), 900), ("finished".to_owned(), 50)]),
        growth_per_second: 120.0,
        above_limits: vec![
            above("198.51.100.7", 150.2, 147.7, "share", 2.5),
            above("203.0.113.9", 82.0, 82.0, "ceiling", 50.0),
        ],
    }
}

fn facts() -> Facts {
    let cause = "since 14:01:12 at 61.3 % fill: 2507 strangers ask for 48210 new flows/s, and 0.36/s \
                 is left for each (the table can take 2433/s from all tiers)";
    Facts {
        is_tracking: true,
        target: 0.85,
        interfaces: vec!["wan0".to_owned(), "lan0".to_owned()],
        regulars: 312,
        proven: 540,
        allowed: 2,
        denied: 1,
        holders: Some(holders()),
        causes: [
            Some(cause.to_owned()),
            Some("since 14:01:10 at 60.9 % fill: at 1622 new flows/s of all classes, …".to_owned()),
            None,
        ],
        ..Facts::default()
    }
}

fn standing(source: SourceScope) -> Standing {
    let tier = match source.to_string().as_str() {
        "203.0.113.9" => "above-part",
        "192.0.2.40" => "regulars",
        _ => "strangers",
    };
    Standing { tier, counted: None }
}

fn asked(second: u64) -> [Asked; 2] {
    let counted = |rate: u64| u32::try_from(rate * second).unwrap();
    [
        Asked { slot: 1, source: SourceScope::V4(0xc633_6407), counted: counted(160) },
        Asked { slot: 2, source: SourceScope::V4(0xc000_0228), counted: counted(32) },
    ]
}

fn counts(second: u64) -> Counts {
    let class = |admitted, challenged, source, grant| ClassCounts {
        admitted: admitted * second,
        challenged: challenged * second,
        refused: vec![("source", source * second), ("grant", grant * second), ("fallback", 0)],
    };
    Counts {
        at: Duration::from_secs(1000 + second),
        entries: 9000 + 70 * second,
        max: 16_384,
        stages: [
            if second < 20 { Stage::Calm } else { Stage::Challenge },
            Stage::Fair,
            Stage::Calm,
        ],
        classes: [class(320, 48_000, 148, 12), class(40, 0, 0, 0), class(1, 0, 0, 0)],
        answered: 214 * second,
        denied_packets: 0,
    }
}

/// A minute of a flood.
fn busy() -> State {
    let mut state = State::default();
    let mut early = holders();
    early.looked_at = "2026-01-02T14:01:55.000Z".to_owned();
    early.reclaimed = BTreeMap::from([("unanswered".to_owned(), 400)]);
    state.learn(Facts { holders: Some(early), ..facts() });
    state.learn(facts());
    for second in 0..=60 {
        state.update(counts(second), &asked(second), standing);
    }
    state
}

/// A guard that was just started, of a machine with nothing to do.
fn idle() -> State {
    let mut state = State::default();
    state.learn(Facts {
        is_tracking: true,
        target: 0.85,
        interfaces: vec!["wan0".to_owned()],
        ..Facts::default()
    });
    for second in 0..3 {
        let counts = Counts { at: Duration::from_secs(second), max: 262_144, ..Counts::default() };
        state.update(counts, &[], standing);
    }
    state
}

#[test]
fn a_flood_on_a_small_and_on_a_large_screen() {
    ensure_screen("flood-80x24", &busy(), &view(), SMALL);
    ensure_screen("flood-120x40", &busy(), &view(), LARGE);
}

#[test]
fn an_empty_table() {
    ensure_screen("empty-80x24", &idle(), &view(), SMALL);
}

#[test]
fn the_keys() {
    let mut view = view();
    view.press(Key::Char('?'), &idle());
    ensure_screen("help-80x24", &idle(), &view, SMALL);
    view.press(Key::Char('q'), &idle());
    assert_eq!(view.mode, Mode::Watch, "any key goes back");
}

#[test]
fn a_daemon_that_is_gone_and_a_guard_that_is_gone() {
    let mut state = busy();
    state.learn(Facts { daemon: Daemon::IsGone, is_dry_run: true, ..facts() });
    ensure_screen("no-daemon-80x24", &state, &view(), SMALL);
    state.fail(
        "no guard is loaded at /run/ctguard/7; start one: ctguard run -i INTERFACE".to_owned(),
    );
    ensure_screen("no-guard-80x24", &state, &view(), SMALL);
    state.update(counts(61), &[], standing);
    assert_eq!(state.problem, None);
}

#[test]
fn a_filter_shows_a_part_of_the_sources() {
    let (state, mut view) = (busy(), view());
    "/192.".chars().for_each(|letter| drop(view.press(Key::Char(letter), &state)));
    ensure_screen("filter-80x24", &state, &view, SMALL);
    view.press(Key::Enter, &state);
    let names = |view: &View| -> Vec<_> {
        view.sources(&state).iter().map(|source| source.name.clone()).collect()
    };
    assert_eq!(names(&view), ["192.0.2.40"]);
    view.press(Key::Char('a'), &state);
    assert_eq!(view.mode, Mode::Confirm(Change::Allow("192.0.2.40".to_owned())));
    view.press(Key::Escape, &state);
    view.press(Key::Escape, &state);
    assert_eq!(names(&view).len(), 4);
    "/above-part".chars().for_each(|letter| drop(view.press(Key::Char(letter), &state)));
    assert_eq!(names(&view), ["203.0.113.9"]);
}

/// Fails when a name from outside moves the cursor, or shifts what is beside it.
#[test]
fn names_from_outside_are_escaped_and_wide_letters_are_counted() {
    let mut state = busy();
    let hostile = "w\u{1b}[2J\u{7}\u{9b}2J\u{202e}\nx";
    state.learn(Facts {
        interfaces: vec!["広域網0".to_owned(), hostile.to_owned()],
        fault: Some(format!("{hostile} cannot be read")),
        ..facts()
    });
    state.fail(format!("cannot open {hostile}"));
    ensure_screen("odd-names-80x24", &state, &view(), SMALL);
    for size in [SMALL, LARGE, (60, 16)] {
        let drawn = text(&drawn(&state, &view(), COLOURS, size));
        let is_visible = |letter: char| letter == '\n' || letter.escape_debug().len() == 1;
        assert!(drawn.chars().all(|it| is_visible(it) || "\"'\\".contains(it)), "{drawn:?}");
        assert!(drawn.contains("14:02:07 UTC"), "{drawn}");
    }
}

/// Fails when packets of denied sources look like a flood that the guard refuses.
#[test]
fn packets_of_denied_sources_are_told_apart_from_refused_flows() {
    let mut state = idle();
    let counted = Counts {
        at: Duration::from_secs(10),
        max: 262_144,
        denied_packets: 80_000,
        ..Counts::default()
    };
    state.update(counted, &[], standing);
    let shown = text(&drawn(&state, &view(), COLOURS, SMALL));
    assert!(shown.contains("denied     10.0k packets/s from denied sources dropped"), "{shown}");
    assert_eq!(state.classes().map(|class| class.arriving() > 0.0), [false; CLASSES]);
    state.learn(Facts { is_dry_run: true, ..facts() });
    let shown = text(&drawn(&state, &view(), COLOURS, SMALL));
    assert!(shown.contains("packets/s from denied sources would be dropped"), "{shown}");
}

#[test]
fn without_colours_the_same_is_shown() {
    let plain = Look { is_coloured: false, ..COLOURS };
    let [coloured, plain] = [COLOURS, plain].map(|look| drawn(&busy(), &view(), look, SMALL));
    assert_eq!(text(&coloured), text(&plain));
    let colours = |buffer: &Buffer| {
        buffer.content.iter().any(|cell| (cell.fg, cell.bg) != (Color::Reset, Color::Reset))
    };
    assert!(colours(&coloured) && !colours(&plain));
}

#[test]
fn no_screen_is_too_small_or_too_large_to_be_drawn() {
    for size in [(1, 1), (20, 50), (59, 24), (60, 16), (200, 16), (61, 70), (400, 120)] {
        for state in [busy(), idle(), State::default()] {
            let drawn = text(&drawn(&state, &view(), COLOURS, size));
            assert_eq!(drawn.contains("too sm"), size == (20, 50) || size == (59, 24), "{drawn}");
        }
    }
}

#[test]
fn a_key_asks_before_it_changes_anything() {
    let (state, mut view) = (busy(), view());
    assert_eq!(view.press(Key::Down, &state), None);
    assert_eq!(view.press(Key::Char('d'), &state), None);
    ensure_screen("deny-80x24", &state, &view, SMALL);
    assert_eq!(view.press(Key::Enter, &state), None);
    assert_eq!(view.said.as_ref().map(|said| &said.0[..]), Some("nothing was changed"));
    (0..9).for_each(|_| view.pass_time());
    assert!(view.said.is_some());
    view.pass_time();
    assert_eq!(view.said, None, "the keys are shown again");
    view.press(Key::Char('d'), &state);
    let deny = Effect::Change(Change::Deny("203.0.113.9".to_owned()));
    assert_eq!(view.press(Key::Char('y'), &state), Some(deny));
    view.press(Key::Char('n'), &state);
    let dry_run = Effect::Change(Change::DryRun(true));
    assert_eq!(view.press(Key::Char('y'), &state), Some(dry_run));
    assert_eq!(view.press(Key::Char('y'), &state), None);
}

#[test]
fn the_selection_stays_with_its_source_as_others_move() {
    let (mut state, mut view) = (busy(), view());
    view.press(Key::End, &state);
    let selected = view.selected.clone();
    view.press(Key::Char('s'), &state);
    let sources = view.sources(&state);
    assert_eq!(Some(sources[view.position(&sources)].name.clone()), selected);
    state.sources.clear();
    assert_eq!(view.press(Key::Char('a'), &state), None);
    assert_eq!(view.mode, Mode::Watch, "there is nobody to allow");
}

#[test]
fn the_pace_stays_within_its_bounds() {
    let mut view = view();
    for _ in 0..20 {
        view.press(Key::Char('+'), &idle());
    }
    assert_eq!(view.period(), super::FASTEST);
    for _ in 0..20 {
        view.press(Key::Char('-'), &idle());
    }
    assert_eq!(view.period(), super::SLOWEST);
}

#[test]
fn rates_are_of_a_second_however_often_they_are_read() {
    let mut state = State::default();
    for tenth in 0..=50_u64 {
        let mut counts = counts(0);
        counts.at = Duration::from_millis(100 * tenth);
        // Packets come in heaps, once a second.
        counts.classes[0].admitted = tenth / 10 * 500;
        state.update(counts, &[], standing);
    }
    assert!((state.classes()[0].admitted - 500.0).abs() < 1.0, "{:?}", state.classes());
}

#[test]
fn counters_that_start_over_show_no_rate() {
    let mut state = busy();
    let fresh = Counts { at: Duration::from_secs(1061), max: 16_384, ..Counts::default() };
    state.update(fresh, &[], standing);
    assert_eq!(state.classes().map(|class| class.arriving() > 0.0), [false; CLASSES]);
}

#[test]
fn the_page_shows_the_screen_of_the_test() {
    let page = include_str!("../../../../docs/top.md");
    let screen = fs::read_to_string(screens().join("flood-80x24.txt")).unwrap();
    assert!(page.contains(&format!("```text\n{screen}```\n")), "copy screens/flood-80x24.txt");
}
