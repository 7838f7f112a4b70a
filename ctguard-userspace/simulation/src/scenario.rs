//! A load as a TOML file describes it: a table, a guard, and groups of sources.

use std::{fs, path::Path, time::Duration};

use serde::Deserialize;

use super::{
    SimulationError,
    group::Group,
    quantity::{Ratio, Span},
};
use ctguard_settings::{Assignment, DEFAULT_POLICY, SettingError, Settings};

/// A report of more groups is unreadable.
const MOST_GROUPS: usize = 64;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Scenario {
    pub duration: Span,
    /// The time that the summary counts; all of it by default.
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

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Measure {
    pub from: Span,
    pub until: Span,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct TableOptions {
    /// `nf_conntrack_max`.
    pub max: u32,
    /// Unanswered SYNs at the start.
    pub entries: u32,
    /// Established connections at the start, each of another source.
    pub connections: u32,
    /// `nf_conntrack_buckets`; the maximum by default.
    pub buckets: Option<u32>,
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
    /// From a wake-up by the data path to the daemon's tick.
    pub wake_delay: Span,
    /// From reading to writing in one tick.
    pub tick_delay: Span,
    /// From the admission of a packet to its entry in the table.
    pub confirm_delay: Span,
    /// The shortest time between two looks at the table in calm, if that is longer than the daemon's.
    pub look_interval_in_calm: Span,
    /// When no daemon runs.
    pub outages: Vec<Outage>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Outage {
    pub begins: Span,
    pub ends: Span,
}

/// What the scenario is to show. If a run shows something else, the exit status is 1.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the names of the keys")]
pub(crate) struct Expectations {
    pub fill_at_most: Option<Ratio>,
    /// Standard deviation of the fill.
    pub deviation_at_most: Option<Ratio>,
    /// Refused packets of all groups, in proportion to their flows.
    pub refused_at_most: Option<Ratio>,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            max: 262_144,
            entries: 0,
            connections: 0,
            buckets: None,
            lifetimes: Lifetimes::default(),
        }
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
            look_interval_in_calm: Span::default(),
            outages: Vec::new(),
        }
    }
}

impl Scenario {
    pub(crate) fn read(path: &Path) -> Result<Self, SimulationError> {
        let text = fs::read_to_string(path)
            .map_err(|source| SimulationError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, SimulationError> {
        let scenario: Self =
            toml::from_str(text).map_err(|error| syntax_error(text, path, &error))?;
        match scenario.broken_rule() {
            None => Ok(scenario),
            Some((key, reason)) => Err(SimulationError::Content {
                place: format!("{}: {key}", path.display()),
                reason: reason.to_owned(),
            }),
        }
    }

    /// The defaults, then the scenario's settings, then `more`.
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
        let Self { table, guard, measure, .. } = self;
        let rules = [
            (self.duration.0.is_zero(), "duration", "must be longer than zero"),
            (table.max == 0, "table.max", "must be at least 1"),
            (table.entries > table.max, "table.entries", "must not be more than table.max"),
            (
                table.connections > table.max - table.entries.min(table.max),
                "table.connections",
                "must not be more than table.max, together with table.entries",
            ),
            (
                !(10..=10_000).contains(&guard.jiffies_per_second),
                "guard.jiffies-per-second",
                "must be from 10 to 10000",
            ),
            (
                measure.is_some_and(|measure| measure.from >= measure.until),
                "measure.until",
                "must be after measure.from",
            ),
            (
                !(1..=MOST_GROUPS).contains(&self.groups.len()),
                "group",
                "there must be 1 to 64 groups",
            ),
        ];
        let broken = rules.into_iter().find(|(is_broken, ..)| *is_broken);
        broken.map(|(_, key, reason)| (key.to_owned(), reason)).or_else(|| {
            self.groups.iter().enumerate().find_map(|(index, group)| {
                let twin = self.groups.iter().take(index).any(|other| other.name == group.name);
                let twin = twin.then_some(("name", "must not be used twice"));
                let (key, reason) = twin.or_else(|| group.broken_rule())?;
                Some((format!("group {}: {key}", group.name), reason))
            })
        })
    }
}

/// Names the line and shows it.
fn syntax_error(text: &str, path: &Path, error: &toml::de::Error) -> SimulationError {
    let before = error.span().and_then(|span| text.get(..span.start));
    let index = before.map(|before| before.matches('\n').count());
    let line = index.and_then(|index| text.lines().nth(index)).unwrap_or_default().trim();
    let message = error.message();
    SimulationError::Content {
        place: format!("{}:{}", path.display(), index.unwrap_or(0) + 1),
        reason: if line.is_empty() { message.to_owned() } else { format!("{message} in: {line}") },
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn two_groups_cannot_have_one_name() {
        let error = parse("[[group]]\nname = 'a'\nrate = '5/s'").unwrap_err().to_string();
        assert_eq!(error, "s.toml: group a: name: must not be used twice");
    }

    fn parse(more: &str) -> Result<Scenario, SimulationError> {
        let text = format!("duration = '10s'\n[[group]]\nname = 'a'\nrate = '5/s'\n{more}\n");
        Scenario::parse(&text, Path::new("s.toml"))
    }

    #[test]
    fn a_damaged_scenario_is_refused_or_read_as_another_one() {
        let usual = include_bytes!("../../../docs/scenarios/office-day.toml");
        ctguard_damage::for_each_damage!(10_000, |damaged| {
            let text = damaged.of(&[usual]);
            let _ = Scenario::parse(&String::from_utf8_lossy(&text), Path::new("s.toml"));
        });
    }
}
