//! What keys change: the selection, the order, the filter, a question that waits for its answer.

use std::{cmp::Ordering, time::Duration};

use super::{
    keys::Key,
    state::{Source, State},
};

pub(crate) const FASTEST: Duration = Duration::from_millis(100);
pub(crate) const SLOWEST: Duration = Duration::from_mins(1);
/// What `+` and `-` go through, in milliseconds.
const PACES: [u64; 9] = [100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000];
/// How long `d` denies.
pub(crate) const DENIED_FOR: &str = "10m";
/// How long a sentence about what was done is shown, unless a key comes first.
const SAID_FOR: Duration = Duration::from_secs(10);
const LONGEST_FILTER: usize = 40;
/// Sources that a page key goes past.
const PAGE: usize = 10;

#[derive(Debug)]
pub(crate) struct View {
    pub(super) mode: Mode,
    pub(super) sort: Sort,
    pub(super) filter: String,
    /// By name: sources come and go.
    pub(super) selected: Option<String>,
    pub(super) is_frozen: bool,
    pub(super) period: Duration,
    /// What was done, or why not, and for how long it is still shown.
    pub(super) said: Option<(String, Duration)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Watch,
    Help,
    Filter,
    Confirm(Change),
}

/// What a key changes in the guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Allow(String),
    Deny(String),
    DryRun(bool),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Asks,
    Refused,
    Holds,
    Name,
}

/// What is left to do for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Quit,
    Suspend,
    /// Draw all cells again.
    Redraw,
    Change(Change),
}

impl Change {
    pub(super) fn question(&self) -> String {
        match self {
            Self::Allow(source) => format!("allow {source} until it is removed from the list?"),
            Self::Deny(source) => format!("drop all packets of {source} for 10 minutes?"),
            Self::DryRun(true) => "dry run: decide and count, but drop nothing?".to_owned(),
            Self::DryRun(false) => "end the dry run, and drop what is refused?".to_owned(),
        }
    }
}

impl Sort {
    const fn next(self) -> Self {
        match self {
            Self::Asks => Self::Refused,
            Self::Refused => Self::Holds,
            Self::Holds => Self::Name,
            Self::Name => Self::Asks,
        }
    }

    fn compare(self, one: &Source, other: &Source) -> Ordering {
        let by_asks = other.asks.total_cmp(&one.asks);
        let by_refused = other.refused.total_cmp(&one.refused);
        let by_holds = other.holds.cmp(&one.holds);
        match self {
            Self::Asks => by_asks.then(by_holds),
            Self::Refused => by_refused.then(by_asks).then(by_holds),
            Self::Holds => by_holds.then(by_asks),
            Self::Name => Ordering::Equal,
        }
    }
}

impl View {
    pub(crate) fn new(period: Duration) -> Self {
        Self {
            mode: Mode::default(),
            sort: Sort::default(),
            filter: String::new(),
            selected: None,
            is_frozen: false,
            period,
            said: None,
        }
    }

    pub(crate) const fn period(&self) -> Duration {
        self.period
    }

    pub(crate) const fn is_frozen(&self) -> bool {
        self.is_frozen
    }

    pub(crate) fn say(&mut self, what: String) {
        self.said = Some((what, SAID_FOR));
    }

    /// The next refresh has come.
    pub(crate) fn pass_time(&mut self) {
        if let Some((_, left)) = &mut self.said {
            *left = left.saturating_sub(self.period);
        }
        self.said.take_if(|(_, left)| left.is_zero());
    }

    /// The sources to show, in their order.
    pub(super) fn sources<'s>(&self, state: &'s State) -> Vec<&'s Source> {
        let is_wanted = |source: &&Source| {
            source.name.contains(&self.filter) || source.tier.contains(&self.filter)
        };
        let mut sources: Vec<_> = state.sources.iter().filter(is_wanted).collect();
        // Sources of equal rank keep the order of their addresses.
        sources.sort_by(|one, other| self.sort.compare(one, other));
        sources
    }

    /// The place of the selected source among those; the first if it is not there.
    pub(super) fn position(&self, sources: &[&Source]) -> usize {
        let selected = self.selected.as_deref();
        sources.iter().position(|source| Some(source.name.as_str()) == selected).unwrap_or(0)
    }

    pub(crate) fn press(&mut self, key: Key, state: &State) -> Option<Effect> {
        if let Key::Control(letter) = key {
            match letter {
                'c' => return Some(Effect::Quit),
                'z' => return Some(Effect::Suspend),
                'l' => return Some(Effect::Redraw),
                _ => {}
            }
        }
        self.said = None;
        match std::mem::take(&mut self.mode) {
            Mode::Watch => return self.watch(key, state),
            Mode::Help => {}
            Mode::Filter => self.edit_filter(key),
            Mode::Confirm(change) => {
                if key == Key::Char('y') {
                    return Some(Effect::Change(change));
                }
                self.say("nothing was changed".to_owned());
            }
        }
        None
    }

    fn watch(&mut self, key: Key, state: &State) -> Option<Effect> {
        match key {
            Key::Char('q') => return Some(Effect::Quit),
            Key::Char('?' | 'h') => self.mode = Mode::Help,
            Key::Char('/') => self.mode = Mode::Filter,
            Key::Char('s') => self.sort = self.sort.next(),
            Key::Char('f') => self.is_frozen = !self.is_frozen,
            Key::Char('+') => self.period = self.pace(|one, period| one < period, true),
            Key::Char('-') => self.period = self.pace(|one, period| one > period, false),
            Key::Char('n') => self.mode = Mode::Confirm(Change::DryRun(!state.facts.is_dry_run)),
            Key::Char('a') => self.ask(Change::Allow, state),
            Key::Char('d') => self.ask(Change::Deny, state),
            Key::Escape => self.filter.clear(),
            Key::Up | Key::Char('k') => self.select(state, |at, _| at.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.select(state, |at, _| at + 1),
            Key::PageUp => self.select(state, |at, _| at.saturating_sub(PAGE)),
            Key::PageDown => self.select(state, |at, _| at + PAGE),
            Key::Home => self.select(state, |_, _| 0),
            Key::End => self.select(state, |_, last| last),
            Key::Char(_) | Key::Control(_) | Key::Enter | Key::Backspace => {}
        }
        None
    }

    fn edit_filter(&mut self, key: Key) {
        self.mode = Mode::Filter;
        match key {
            Key::Char(letter) if self.filter.len() < LONGEST_FILTER => self.filter.push(letter),
            Key::Backspace => drop(self.filter.pop()),
            Key::Enter => self.mode = Mode::Watch,
            Key::Escape => {
                self.filter.clear();
                self.mode = Mode::Watch;
            }
            Key::Char(_)
            | Key::Control(_)
            | Key::Up
            | Key::Down
            | Key::PageUp
            | Key::PageDown
            | Key::Home
            | Key::End => {}
        }
    }

    /// Asks before it acts on the selected source.
    fn ask(&mut self, change: fn(String) -> Change, state: &State) {
        let sources = self.sources(state);
        match sources.get(self.position(&sources)) {
            Some(source) => self.mode = Mode::Confirm(change(source.name.clone())),
            None => self.say("there is no source to choose".to_owned()),
        }
    }

    fn select(&mut self, state: &State, to: impl Fn(usize, usize) -> usize) {
        let sources = self.sources(state);
        let Some(last) = sources.len().checked_sub(1) else { return };
        let at = to(self.position(&sources), last).min(last);
        self.selected = Some(sources[at].name.clone());
    }

    /// The next pace of the list that `is_beyond` the present one.
    fn pace(&self, is_beyond: fn(Duration, Duration) -> bool, is_faster: bool) -> Duration {
        let mut paces = PACES.map(Duration::from_millis).to_vec();
        if is_faster {
            paces.reverse();
        }
        paces.into_iter().find(|one| is_beyond(*one, self.period)).unwrap_or(self.period)
    }
}
