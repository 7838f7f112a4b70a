//! Every metric: its name, kind and meaning, and where its samples come from.

use std::{fmt, time::SystemTime};

use ctguard_control::{look::Kind as HeldKind, reclaim::ReclaimClass};
use ctguard_layout::{Class, LAYOUT_VERSION, Stage};

use crate::report::StatusReport;

/// What a metric counts, as Prometheus names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    /// Labels without a number.
    Info,
}

/// Samples that have a name in common.
pub(super) struct Family {
    /// With its unit, and without the suffix that a kind asks for.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    read: fn(&StatusReport, &mut Samples),
}

#[derive(Debug, Default)]
pub(super) struct Samples(Vec<Sample>);

#[derive(Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    Whole(u64),
    Real(f64),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => number.fmt(f),
            Self::Real(number) => number.fmt(f),
        }
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Whole(value.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Whole(value as u64)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl Samples {
    fn one(&mut self, value: impl Into<Value>) {
        self.with(&[], value);
    }

    fn with(&mut self, labels: &[(&'static str, &str)], value: impl Into<Value>) {
        let labels = labels.iter().map(|&(name, text)| (name, text.to_owned())).collect();
        self.0.push(Sample { labels, value: value.into() });
    }
}

impl Family {
    /// None while there is nothing to tell.
    pub(super) fn samples(&self, status: &StatusReport) -> Vec<Sample> {
        let mut samples = Samples::default();
        (self.read)(status, &mut samples);
        samples.0
    }
}

pub(super) static FAMILIES: &[Family] = &[
    info("ctguard_build", "The running command's version", |_, out| {
        let layout = LAYOUT_VERSION.to_string();
        out.with(&[("version", env!("CARGO_PKG_VERSION")), ("layout", &layout)], true);
    }),
    gauge("ctguard_daemon_running", "Whether a daemon steers the guard", |status, out| {
        out.one(status.daemon.running);
    }),
    gauge("ctguard_heartbeat_age_seconds", "Time since the daemon's last tick", |status, out| {
        if let Some(age) = status.daemon.heartbeat_age_seconds {
            out.one(age);
        }
    }),
    gauge(
        "ctguard_fallback_active",
        "Whether the fallback rate applies, because no daemon ticks",
        |status, out| out.one(status.grant.fallback_active),
    ),
    gauge(
        "ctguard_dry_run",
        "Whether everything is decided and counted, but nothing dropped",
        |status, out| out.one(status.dry_run),
    ),
    gauge(
        "ctguard_paused",
        "Whether `ctguard pause` made a dry run that ends by itself",
        |status, out| {
            out.one(status.pause.is_some());
        },
    ),
    gauge("ctguard_table_entries", "Entries of the connection table", |status, out| {
        out.one(status.conntrack.count);
    }),
    gauge(
        "ctguard_table_max_entries",
        "Entries that the connection table may have",
        |status, out| {
            if status.conntrack.fill_ratio.is_some() {
                out.one(status.conntrack.max);
            }
        },
    ),
    gauge(
        "ctguard_table_fill_ratio",
        "Entries of the connection table, of those that it may have",
        |status, out| {
            if let Some(fill) = status.conntrack.fill_ratio {
                out.one(fill);
            }
        },
    ),
    gauge(
        "ctguard_table_target_ratio",
        "Highest fill to which guarded interfaces may bring the table",
        |status, out| out.one(status.conntrack.target_ratio),
    ),
    gauge(
        "ctguard_table_held_entries",
        "Entries of the connection table by state, at the daemon's last look",
        |status, out| {
            let Some(holders) = &status.holders else { return };
            for state in HeldKind::ALL.map(HeldKind::name) {
                let held = holders.states.iter().find(|held| held.state == state);
                out.with(&[("state", state)], held.map_or(0, |held| held.entries));
            }
        },
    ),
    gauge(
        "ctguard_table_reclaimable_entries",
        "Entries that may be deleted when room is needed, at the daemon's last look",
        |status, out| {
            if let Some(holders) = &status.holders {
                out.one(holders.reclaimable);
            }
        },
    ),
    counter(
        "ctguard_reclaimed_entries",
        "Entries deleted to make room, since the daemon's start",
        |status, out| {
            let Some(holders) = &status.holders else { return };
            for class in ReclaimClass::ALL.map(ReclaimClass::name) {
                out.with(&[("kind", class)], holders.reclaimed.get(class).copied().unwrap_or(0));
            }
        },
    ),
    gauge("ctguard_stage", "Whether a class is in this stage", |status, out| {
        for class in Class::ALL {
            let now = *status.stages.of(class);
            for stage in [Stage::Calm, Stage::Fair, Stage::Challenge] {
                let labels = [("class", class.name()), ("stage", stage.name())];
                out.with(&labels, now == stage.name());
            }
        }
    }),
    counter(
        "ctguard_new_flows",
        "New flows by what became of them; in a dry run, of what would have",
        |status, out| {
            for class in Class::ALL {
                let own = status.counters.of(class);
                let [admitted, challenged, refused] = own.verdicts();
                for (verdict, flows) in
                    [("admitted", admitted), ("challenged", challenged), ("refused", refused)]
                {
                    out.with(&[("class", class.name()), ("verdict", verdict)], flows);
                }
            }
        },
    ),
    counter("ctguard_refused_flows", "New flows that were refused, by reason", |status, out| {
        for class in Class::ALL {
            for (reason, flows) in status.counters.of(class).refusals() {
                out.with(&[("class", class.name()), ("reason", reason)], flows);
            }
        }
    }),
    counter(
        "ctguard_allowed_flows",
        "New flows of sources on the allow list, which also count as admitted",
        |status, out| {
            for class in Class::ALL {
                out.with(&[("class", class.name())], status.counters.of(class).allowed());
            }
        },
    ),
    counter(
        "ctguard_packets",
        "Packets that open no flow, by outcome; in a dry run, denied ones pass",
        |status, out| {
            for (outcome, packets) in status.counters.packets() {
                out.with(&[("outcome", outcome)], packets);
            }
            out.with(&[("outcome", "denied")], status.counters.denied_packets());
        },
    ),
    gauge(
        "ctguard_unreadable_packets_ratio",
        "Packets that passed because their headers cannot be read, of all",
        |status, out| out.one(status.unreadable.share_ratio),
    ),
    counter(
        "ctguard_tier_admitted_flows",
        "Flows taken from a tier's grant, with packets that follow an admission",
        |status, out| {
            for tier in &status.tiers {
                out.with(&[("tier", tier.name)], tier.admitted);
            }
        },
    ),
    gauge(
        "ctguard_tier_grant_flows",
        "New flows that a tier may open until the daemon's next tick",
        |status, out| {
            for tier in &status.tiers {
                out.with(&[("tier", tier.name)], tier.remaining);
            }
        },
    ),
    gauge("ctguard_known_sources", "Sources that are served before strangers", |status, out| {
        out.with(&[("tier", "regulars")], status.known_sources.regulars);
        out.with(&[("tier", "proven")], status.known_sources.proven);
    }),
    gauge("ctguard_memory_used_ratio", "How full a memory of the data path is", |status, out| {
        for (memory, used) in [
            ("answered", status.memories.answered.load_ratio),
            ("known-flows", status.known_flows.load_ratio),
            ("known-sources", status.known_sources.load_ratio),
            ("retries", status.memories.retries.load_ratio),
        ] {
            out.with(&[("memory", memory)], used);
        }
    }),
    gauge("ctguard_feed_entries", "Prefixes that a feed lists", |status, out| {
        for feed in &status.feeds.feeds {
            out.with(&[("feed", &feed.name), ("list", &feed.list)], feed.prefixes);
        }
    }),
    gauge(
        "ctguard_feed_last_success_timestamp_seconds",
        "When a feed was last read without a fault",
        |status, out| {
            for feed in &status.feeds.feeds {
                let at = feed.last_success.as_deref().map(humantime::parse_rfc3339);
                let Some(Ok(at)) = at else { continue };
                let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                out.with(&[("feed", &feed.name)], at.as_secs());
            }
        },
    ),
    counter(
        "ctguard_feed_failures",
        "Reads of a feed that failed, since the daemon's start",
        |status, out| {
            for feed in &status.feeds.feeds {
                out.with(&[("feed", &feed.name)], feed.failures);
            }
        },
    ),
    counter(
        "ctguard_feed_refused_packets",
        "Packets refused because a feed denies their source, each counted for one feed",
        |status, out| {
            for feed in &status.feeds.feeds {
                if let Some(packets) = feed.refused_packets {
                    out.with(&[("feed", &feed.name)], packets);
                }
            }
        },
    ),
    gauge("ctguard_list_prefixes", "Prefixes on a list of the operator", |status, out| {
        out.with(&[("list", "allow")], status.lists.allow);
        out.with(&[("list", "deny")], status.lists.deny);
    }),
    counter(
        "ctguard_list_refused_packets",
        "Packets refused because the operator's deny list has their source",
        |status, out| out.with(&[("list", "deny")], status.lists.refused_packets),
    ),
    gauge(
        "ctguard_interface_attached",
        "Whether the program is on the interface; in mode none the daemon waits for it, or cannot guard it",
        |status, out| {
            for interface in &status.interfaces {
                let labels = [("interface", &interface.name[..]), ("mode", interface.mode)];
                out.with(&labels, interface.attached);
            }
            for waited in &status.waiting {
                out.with(&[("interface", &waited.name[..]), ("mode", "none")], false);
            }
        },
    ),
    gauge("ctguard_maps_bytes", "Memory of all maps", |status, out| out.one(status.maps.bytes)),
];

type Read = fn(&StatusReport, &mut Samples);

const fn gauge(name: &'static str, help: &'static str, read: Read) -> Family {
    Family { name, kind: Kind::Gauge, help, read }
}

const fn counter(name: &'static str, help: &'static str, read: Read) -> Family {
    Family { name, kind: Kind::Counter, help, read }
}

const fn info(name: &'static str, help: &'static str, read: Read) -> Family {
    Family { name, kind: Kind::Info, help, read }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_those_that_prometheus_asks_for() {
        let units = [
            "_entries",
            "_seconds",
            "_ratio",
            "_flows",
            "_packets",
            "_bytes",
            "_sources",
            "_prefixes",
            "_failures",
        ];
        for Family { name, kind, help, .. } in FAMILIES {
            let rest = name.strip_prefix("ctguard_").unwrap_or_else(|| panic!("{name}"));
            assert!(rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert!(!name.ends_with("_total") && !name.ends_with("_info"), "{name}");
            assert!(!help.is_empty() && !help.ends_with('.'), "{name}: {help}");
            if *kind == Kind::Counter {
                assert!(units.iter().any(|unit| name.ends_with(unit)), "{name} has no unit");
            }
        }
        let names: BTreeSet<_> = FAMILIES.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), FAMILIES.len());
    }

    #[test]
    fn every_metric_is_in_the_docs_with_its_meaning() {
        let docs = include_str!("../../../../docs/metrics.md");
        for Family { name, kind, help, .. } in FAMILIES {
            let suffix = match kind {
                Kind::Counter => "_total",
                Kind::Gauge => "",
                Kind::Info => "_info",
            };
            let row = format!("| `{name}{suffix}` |");
            let line = docs.lines().find(|line| line.starts_with(&row));
            let line = line.unwrap_or_else(|| panic!("{row} is not in docs/metrics.md"));
            assert!(line.ends_with(&format!("| {help} |")), "{line}");
        }
        let rows = docs.lines().filter(|line| line.starts_with("| `ctguard_")).count();
        assert_eq!(rows, FAMILIES.len());
    }
}
