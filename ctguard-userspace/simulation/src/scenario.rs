//! A load as a TOML file describes it: a table, a guard, and groups of sources.

use std::{ops::Range, path::PathBuf, time::Duration};

use serde::Deserialize;
use thiserror::Error;

use super::{
    group::Group,
    quantity::{Ratio, Span},
};
use ctguard_settings::{Assignment, DEFAULT_POLICY, SettingError, Settings};

/// More groups than this are no picture that anybody can read.
const MOST_GROUPS: usize = 64;

/// Why a scenario cannot be run.
#[derive(Debug, Error)]
pub enum ScenarioError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}:{line}: {message}", path.display())]
    Syntax { path: PathBuf, line: usize, message: String },
    #[error("{}: {key}: {reason}", path.display())]
    Rule { path: PathBuf, key: String, reason: String },
    #[error(transparent)]
    Setting(#[from] SettingError),
}

/// A load, and what it meets.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Scenario {
    /// How long the load lasts.
    pub duration: Span,
    /// The part of it that the summary counts; all of it by default.
    #[serde(default)]
    pub measure: Option<Measure>,
    #[serde(default)]
    pub table: TableOptions,
    #[serde(default)]
    pub guard: GuardOptions,
    #[serde(default)]
    pub expect: Expectations,
    #[serde(default, rename = "group")]
    pub groups: Vec<Group>,
}

/// A stretch of time.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Measure {
    pub from: Span,
    pub until: Span,
}

/// The connection table.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct TableOptions {
    /// `nf_conntrack_max`.
    pub max: u32,
    /// Entries of half-open connections that it holds at the start.
    pub entries: u32,
    pub lifetimes: Lifetimes,
}

/// The kernel's timeouts, `nf_conntrack_tcp_timeout_syn_sent` and so on.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Lifetimes {
    pub syn_sent: Span,
    pub syn_recv: Span,
    pub established: Span,
    pub unacknowledged: Span,
    pub time_wait: Span,
    pub udp: Span,
    pub udp_stream: Span,
    pub icmp: Span,
}

/// The guard, and the machine that it runs on.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct GuardOptions {
    /// Settings as `ctguard set` takes them.
    pub set: Vec<String>,
    pub jiffies_per_second: u32,
    pub processors: u32,
    /// From the data path's call to the daemon's tick.
    pub wake_delay: Span,
    /// From reading to writing within a tick.
    pub tick_delay: Span,
    /// From the admission of a packet to its entry in the table.
    pub confirm_delay: Span,
    /// When no daemon lives.
    pub outages: Vec<Outage>,
}

/// A time without a daemon.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Outage {
    pub begins: Span,
    pub ends: Span,
}

/// What the scenario shows; a run that shows something else ends with exit code 1.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Expectations {
    pub fill_at_most: Option<Ratio>,
    /// Standard deviation of the fill.
    pub deviation_at_most: Option<Ratio>,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self { max: 262_144, entries: 0, lifetimes: Lifetimes::default() }
    }
}

impl Default for Lifetimes {
    /// The kernel's own (`net/netfilter/nf_conntrack_proto_*.c`).
    fn default() -> Self {
        let seconds = |count| Span(Duration::from_secs(count));
        Self {
            syn_sent: seconds(120),
            syn_recv: seconds(60),
            established: seconds(432_000),
            unacknowledged: seconds(300),
            time_wait: seconds(120),
            udp: seconds(30),
            udp_stream: seconds(120),
            icmp: seconds(30),
        }
    }
}

impl Default for GuardOptions {
    fn default() -> Self {
        Self {
            set: Vec::new(),
            jiffies_per_second: 250,
            processors: 4,
            wake_delay: Span(Duration::from_micros(50)),
            tick_delay: Span(Duration::from_micros(20)),
            confirm_delay: Span(Duration::from_micros(100)),
            outages: Vec::new(),
        }
    }
}

impl Scenario {
    /// Reads a scenario and checks what the fields alone do not.
    pub(crate) fn read(path: &std::path::Path) -> Result<Self, ScenarioError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ScenarioError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    pub(crate) fn parse(text: &str, path: &std::path::Path) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text).map_err(|error| ScenarioError::Syntax {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| line_of(text, &span)),
            message: message(text, &error),
        })?;
        match scenario.broken_rule() {
            None => Ok(scenario),
            Some((key, reason)) => {
                Err(ScenarioError::Rule { path: path.to_owned(), key, reason: reason.to_owned() })
            }
        }
    }

    /// The settings in force: the defaults, the scenario's, then `more`.
    pub(crate) fn settings(&self, more: &[Assignment]) -> Result<Settings, SettingError> {
        let own = self.guard.set.iter().map(|text| text.parse());
        let mut assignments = own.collect::<Result<Vec<Assignment>, _>>()?;
        assignments.extend_from_slice(more);
        let mut settings = Settings { policy: DEFAULT_POLICY, interfaces: Vec::new() };
        settings.apply(&assignments)?;
        Ok(settings)
    }

    /// The key that breaks a rule, and the rule.
    fn broken_rule(&self) -> Option<(String, &'static str)> {
        let guard = &self.guard;
        if self.duration.0.is_zero() {
            return Some(("duration".to_owned(), "must be longer than zero"));
        }
        if self.table.max == 0 {
            return Some(("table.max".to_owned(), "must be at least 1"));
        }
        if self.table.entries > self.table.max {
            return Some(("table.entries".to_owned(), "must not be more than table.max"));
        }
        if !(10..=10_000).contains(&guard.jiffies_per_second) {
            return Some(("guard.jiffies-per-second".to_owned(), "must be from 10 to 10000"));
        }
        if self.measure.is_some_and(|measure| measure.from >= measure.until) {
            return Some(("measure.until".to_owned(), "must be after measure.from"));
        }
        if self.groups.is_empty() || self.groups.len() > MOST_GROUPS {
            return Some(("group".to_owned(), "there must be 1 to 64 groups"));
        }
        self.groups.iter().enumerate().find_map(|(index, group)| {
            let (key, reason) = group.broken_rule()?;
            let twin = self.groups.iter().take(index).any(|other| other.name == group.name);
            let (key, reason) =
                if twin { ("name", "must not be used twice") } else { (key, reason) };
            Some((format!("group {}: {key}", group.name), reason))
        })
    }
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    text.get(..span.start).unwrap_or_default().matches('\n').count() + 1
}

/// What is wrong, and the text that is.
fn message(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().and_then(|span| text.lines().nth(line_of(text, &span) - 1));
    match line.map(str::trim).filter(|line| !line.is_empty()) {
        Some(line) => format!("{} in: {line}", error.message()),
        None => error.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn an_unknown_key_is_told_with_file_and_line() {
        let error = parse("colour = 'red'").unwrap_err().to_string();
        assert!(error.starts_with("s.toml:5: unknown field `colour`"), "{error}");
    }

    #[test]
    fn a_bad_value_is_told_with_its_line_and_what_to_write() {
        let error = parse("begins = 'soon'").unwrap_err().to_string();
        assert!(error.contains("s.toml:5") && error.contains("begins = 'soon'"), "{error}");
        assert!(error.contains("soon is not a time (write 20ms"), "{error}");
    }

    #[test]
    fn a_rule_between_keys_is_told_with_its_group() {
        let error = parse("begins = '9s'\nends = '8s'").unwrap_err().to_string();
        assert_eq!(error, "s.toml: group a: ends: must be after begins");
        let error = parse("network = '192.0.2.0/31'\nsources = 3").unwrap_err().to_string();
        assert_eq!(error, "s.toml: group a: network: must have room for all sources");
    }

    fn parse(more: &str) -> Result<Scenario, ScenarioError> {
        let text = format!("duration = '10s'\n[[group]]\nname = 'a'\nrate = '5/s'\n{more}\n");
        Scenario::parse(&text, Path::new("s.toml"))
    }
}
