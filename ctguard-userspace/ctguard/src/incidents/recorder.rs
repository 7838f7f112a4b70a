//! When an incident begins and ends, and what it was: pure code, with readings in and incidents out.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use ctguard_control::sources::SourceScope;
use ctguard_layout::{CLASSES, Class, Stage};
use ctguard_units::{real, whole};

use super::{
    ClassFlows, Incident, Peak, Seen,
    series::{Growing, Step},
};
use crate::{holders::Holders, services::ServiceHeld};

/// All classes have been calm for so long: it is over.
const CALM_AGAIN: Duration = Duration::from_mins(1);
/// Sources and networks that are named.
const NAMED: usize = 20;
/// Services that are named.
const NAMED_SERVICES: usize = 10;
/// Sources, networks and services that are followed.
const FOLLOWED: usize = 1000;

/// What the guard counted since it was loaded, and the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    /// Monotonic.
    pub(crate) at: Duration,
    /// RFC 3339, UTC.
    pub(crate) time: String,
    pub(crate) entries: u64,
    /// 0 is no maximum.
    pub(crate) max: u64,
    pub(crate) target_ratio: f64,
    pub(crate) stages: [Stage; CLASSES],
    pub(crate) classes: [ClassFlows; CLASSES],
    /// Admitted by tier.
    pub(crate) tiers: BTreeMap<String, u64>,
    /// By class of entries.
    pub(crate) reclaimed: BTreeMap<String, u64>,
    /// Of sources on a deny list.
    pub(crate) denied_packets: u64,
    pub(crate) is_dry_run: bool,
}

/// Follows the readings of each second.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    before: Option<Reading>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    incident: Incident,
    base: Reading,
    calm_since: Option<Duration>,
    sources: BTreeMap<String, Seen>,
    networks: BTreeMap<String, Seen>,
    services: BTreeMap<String, ServiceHeld>,
    looked_at: String,
    series: Growing,
}

impl Recorder {
    /// The incident that is under way or has just ended.
    pub(crate) fn see(&mut self, now: &Reading, holders: &Holders) -> Option<Incident> {
        let is_calm = now.stages.iter().all(|stage| *stage == Stage::Calm);
        let before = self.before.replace(now.clone()).unwrap_or_else(|| now.clone());
        if self.open.is_none() && !is_calm {
            self.open = Some(Open::new(before.clone()));
        }
        let open = self.open.as_mut()?;
        open.see(&before, now);
        if open.looked_at != holders.looked_at {
            open.looked_at.clone_from(&holders.looked_at);
            open.see_sources(holders);
            open.see_services(holders);
        }
        let since = if is_calm { *open.calm_since.get_or_insert(now.at) } else { now.at };
        if !is_calm {
            open.calm_since = None;
        }
        let is_over = is_calm && now.at >= since + CALM_AGAIN;
        open.incident.ended = is_over.then(|| now.time.clone());
        let incident = open.incident.clone();
        if is_over {
            self.open = None;
        }
        Some(incident)
    }
}

impl Open {
    fn new(base: Reading) -> Self {
        let incident = Incident { began: base.time.clone(), ..Incident::default() };
        Self {
            incident,
            base,
            calm_since: None,
            sources: BTreeMap::new(),
            networks: BTreeMap::new(),
            services: BTreeMap::new(),
            looked_at: String::new(),
            series: Growing::default(),
        }
    }

    fn see(&mut self, before: &Reading, now: &Reading) {
        let Self { incident, base, series, .. } = self;
        incident.seen.clone_from(&now.time);
        incident.was_dry_run |= now.is_dry_run;
        (incident.max_entries, incident.target_ratio) = (now.max, now.target_ratio);
        if now.entries >= incident.peak_entries {
            incident.peak_entries = now.entries;
            incident.peak_at.clone_from(&now.time);
        }
        if now.max > 0 {
            let fill = real(now.entries) / real(now.max);
            incident.peak_fill_ratio = incident.peak_fill_ratio.max(fill);
        }
        let seconds = now.at.saturating_sub(before.at).as_secs_f64();
        let mut step =
            Step { at: now.at.saturating_sub(base.at), entries: now.entries, ..Step::default() };
        for class in Class::ALL {
            let stage = now.stages[class as usize];
            let flows = now.classes[class as usize].since(&base.classes[class as usize]);
            let latest = now.classes[class as usize].since(&before.classes[class as usize]);
            step.arriving += latest.arriving();
            step.admitted += latest.admitted;
            step.refused += latest.refused();
            if stage == Stage::Calm && !incident.classes.contains_key(class.name()) {
                continue;
            }
            let of_class = incident.classes.entry(class.name().to_owned()).or_default();
            if stage.name() == Stage::Challenge.name() || of_class.highest_stage.is_empty() {
                stage.name().clone_into(&mut of_class.highest_stage);
            }
            of_class.flows = flows;
            of_class.see_rates(&latest, seconds);
        }
        series.add(step);
        incident.series = series.series();
        incident.admitted_by_tier = since(&now.tiers, &base.tiers);
        incident.reclaimed = since(&now.reclaimed, &base.reclaimed);
        incident.denied_packets = now.denied_packets.saturating_sub(base.denied_packets);
    }

    /// What the daemon's look tells of single sources.
    fn see_sources(&mut self, holders: &Holders) {
        let mut networks = BTreeMap::<String, Seen>::new();
        let held = holders.sources.iter().map(|it| (&it.source, 0.0, 0.0, it.entries));
        let above = holders
            .above_limits
            .iter()
            .map(|it| (&it.source, it.flows_per_second, it.refused_per_second, 0));
        for (source, asks, refused, holds) in held.chain(above) {
            let seen = Seen { name: source.clone(), asks, refused, holds };
            if let Some(network) = network(source) {
                let of_network = networks.entry(network.clone()).or_default();
                of_network.name = network;
                of_network.asks += asks;
                of_network.refused += refused;
                of_network.holds += holds;
            }
            note(&mut self.sources, seen);
        }
        for seen in networks.into_values() {
            note(&mut self.networks, seen);
        }
        self.incident.sources = most(&self.sources);
        self.incident.networks = most(&self.networks);
    }

    fn see_services(&mut self, holders: &Holders) {
        for seen in &holders.services {
            let name = seen.name();
            if !has_room(&mut self.services, &name, seen, service_rank) {
                continue;
            }
            let kept = self.services.entry(name).or_insert_with(|| seen.clone());
            kept.entries = kept.entries.max(seen.entries);
            kept.unanswered_entries = kept.unanswered_entries.max(seen.unanswered_entries);
        }
        let mut most: Vec<_> = self.services.values().cloned().collect();
        most.sort_by_key(|it| Reverse(service_rank(it)));
        most.truncate(NAMED_SERVICES);
        self.incident.services = most;
    }
}

impl Peak {
    fn see_rates(&mut self, latest: &ClassFlows, seconds: f64) {
        if seconds <= 0.0 {
            return;
        }
        let peak = |peak: &mut f64, flows: u64| *peak = peak.max(real(flows) / seconds);
        peak(&mut self.peak_arriving_per_second, latest.arriving());
        peak(&mut self.peak_admitted_per_second, latest.admitted);
        peak(&mut self.peak_refused_per_second, latest.refused());
    }
}

/// Keeps the peaks of a source or network.
fn note(all: &mut BTreeMap<String, Seen>, seen: Seen) {
    if !has_room(all, &seen.name, &seen, rank) {
        return;
    }
    let kept = all.entry(seen.name.clone()).or_default();
    kept.name = seen.name;
    kept.asks = kept.asks.max(seen.asks);
    kept.refused = kept.refused.max(seen.refused);
    kept.holds = kept.holds.max(seen.holds);
}

/// Those that lost most first, then those that held most.
fn most(all: &BTreeMap<String, Seen>) -> Vec<Seen> {
    let mut most: Vec<_> = all.values().cloned().collect();
    most.sort_by_key(|it| Reverse(rank(it)));
    most.truncate(NAMED);
    most
}

/// What was lost to a limit, in thousandths, then what was held.
fn rank(seen: &Seen) -> (u64, u64) {
    (whole((seen.refused * 1e3).round()), seen.holds.into())
}

const fn service_rank(seen: &ServiceHeld) -> (u64, u64) {
    (seen.unanswered_entries, seen.entries)
}

/// Whether `new` can be followed. If too many are, it takes the place of the least, if that is less: else
/// who floods first with names that nobody has would hide who comes later.
fn has_room<T>(
    all: &mut BTreeMap<String, T>,
    name: &str,
    new: &T,
    rank: fn(&T) -> (u64, u64),
) -> bool {
    if all.len() < FOLLOWED || all.contains_key(name) {
        return true;
    }
    let least = all.iter().min_by_key(|(_, it)| rank(it));
    let Some((least, _)) = least.filter(|(_, it)| rank(it) < rank(new)) else { return false };
    let least = least.clone();
    all.remove(&least);
    true
}

/// The /24 or /48 of a source.
fn network(source: &str) -> Option<String> {
    let net: ipnet::IpNet = match source.parse::<SourceScope>().ok()? {
        SourceScope::V4(address) => ipnet::Ipv4Net::new(address.into(), 24).ok()?.trunc().into(),
        SourceScope::V6(prefix) => {
            let address = u128::from(prefix) << 64;
            ipnet::Ipv6Net::new(address.into(), 48).ok()?.trunc().into()
        }
    };
    Some(net.to_string())
}

/// Counters start over when a guard is loaded again.
fn since(now: &BTreeMap<String, u64>, base: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let of = |(name, count): (&String, &u64)| {
        (name.clone(), count.saturating_sub(base.get(name).copied().unwrap_or_default()))
    };
    now.iter().map(of).filter(|(_, count)| *count > 0).collect()
}

impl ClassFlows {
    pub(super) fn refused(&self) -> u64 {
        self.refused.values().sum()
    }

    fn arriving(&self) -> u64 {
        self.admitted + self.challenged + self.refused()
    }

    fn since(&self, base: &Self) -> Self {
        Self {
            admitted: self.admitted.saturating_sub(base.admitted),
            challenged: self.challenged.saturating_sub(base.challenged),
            refused: since(&self.refused, &base.refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::holders::{AboveLimit, SourceHolder};

    /// A second of a flood that begins at 10 and ends at 40.
    fn reading(second: u64) -> Reading {
        let flood = second.clamp(10, 40) - 10;
        let stage = if (11..=40).contains(&second) { Stage::Challenge } else { Stage::Calm };
        Reading {
            at: Duration::from_secs(second),
            time: format!("second {second}"),
            entries: 100 + 20 * flood,
            max: 1000,
            target_ratio: 0.85,
            stages: [stage, Stage::Calm, Stage::Calm],
            classes: [
                ClassFlows {
                    admitted: 5 * second,
                    challenged: 900 * flood,
                    refused: BTreeMap::from([("source".to_owned(), 90 * flood)]),
                },
                ClassFlows { admitted: second, ..ClassFlows::default() },
                ClassFlows::default(),
            ],
            tiers: BTreeMap::from([("proven".to_owned(), 4 * second)]),
            reclaimed: BTreeMap::from([("unanswered".to_owned(), 7 * flood)]),
            denied_packets: 1000 * second,
            is_dry_run: false,
        }
    }

    fn service(port: u16, entries: u64, unanswered_entries: u64) -> ServiceHeld {
        let [address, protocol] = ["192.0.2.9", "udp"].map(str::to_owned);
        ServiceHeld { address, protocol, port: Some(port), entries, unanswered_entries }
    }

    fn holders(second: u64) -> Holders {
        let holder = |source: &str, entries| SourceHolder {
            source: source.to_owned(),
            entries,
            states: Vec::new(),
            is_above_part: false,
        };
        let above = AboveLimit {
            source: "198.51.100.7".to_owned(),
            class: "tcp".to_owned(),
            flows_per_second: 150.0,
            refused_per_second: 147.0,
            limit: "share".to_owned(),
            limit_per_second: 3.0,
            burst: 1.0,
        };
        Holders {
            looked_at: format!("look {}", second / 10),
            sources: vec![holder("192.0.2.1", 40), holder("192.0.2.2", 50)],
            above_limits: vec![above],
            services: vec![service(443, 900, second), service(53, 10, 2 * second)],
            ..Holders::default()
        }
    }

    #[test]
    fn an_incident_begins_with_the_first_stage_and_ends_after_a_minute_of_calm() {
        let mut recorder = Recorder::default();
        let seen: Vec<_> =
            (0..120).map(|second| recorder.see(&reading(second), &holders(second))).collect();
        assert!(seen[..=10].iter().all(Option::is_none));
        let open = seen[30].as_ref().unwrap();
        assert_eq!((open.began.as_str(), open.ended.as_deref()), ("second 10", None));
        let ended = seen.iter().position(|seen| seen.as_ref().is_some_and(|it| it.ended.is_some()));
        assert_eq!(ended, Some(101), "the 41st second was the first that was calm");
        assert!(seen[102..].iter().all(Option::is_none));

        let incident = seen[101].as_ref().unwrap();
        assert_eq!((incident.peak_entries, incident.max_entries), (700, 1000));
        assert!((incident.peak_fill_ratio - 0.7).abs() < 1e-9);
        assert_eq!(incident.classes.keys().collect::<Vec<_>>(), ["tcp"]);
        let tcp = &incident.classes["tcp"];
        assert_eq!(tcp.highest_stage, "challenge");
        assert!((tcp.peak_arriving_per_second - 995.0).abs() < 1e-9, "{tcp:?}");
        assert_eq!(tcp.flows.refused["source"], 30 * 90);
        assert_eq!(incident.reclaimed["unanswered"], 210);
        assert_eq!(incident.denied_packets, 1000 * 91);
        assert_eq!(incident.admitted_by_tier["proven"], 4 * 91);
        assert_eq!(incident.series.at_seconds.len(), 91);
        assert_eq!(incident.series.entries.iter().max(), Some(&700));
        assert_eq!(incident.series.refused_per_second[5], 90);
        let names = |all: &[Seen]| all.iter().map(|it| it.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&incident.sources), ["198.51.100.7", "192.0.2.2", "192.0.2.1"]);
        assert_eq!(names(&incident.networks), ["198.51.100.0/24", "192.0.2.0/24"]);
        let ports: Vec<_> = incident.services.iter().map(|it| it.port).collect();
        assert_eq!(ports, [Some(53), Some(443)]);
        assert_eq!(incident.services[0].unanswered_entries, 200, "of the last look");
        assert_eq!(incident.networks[1].holds, 90, "not 90 at each look");
    }

    #[test]
    fn a_flood_that_comes_back_within_a_minute_is_the_same_incident() {
        let mut recorder = Recorder::default();
        let again = |second: u64| Reading {
            at: Duration::from_secs(second),
            time: format!("second {second}"),
            ..reading(second % 90)
        };
        let ended = (0..300_u64).filter(|second| {
            let seen = recorder.see(&again(*second), &Holders::default());
            seen.is_some_and(|incident| incident.ended.is_some())
        });
        assert_eq!(ended.count(), 0, "59 seconds of calm are too few");
    }

    #[test]
    fn what_an_incident_remembers_is_bounded() {
        let mut recorder = Recorder::default();
        let mut incident = None;
        for second in 11..40_u64 {
            let mut many = holders(second * 10);
            many.sources = (0..100_u64)
                .map(|number| SourceHolder {
                    source: format!("10.{second}.{number}.1"),
                    entries: 1,
                    states: Vec::new(),
                    is_above_part: false,
                })
                .collect();
            incident = recorder.see(&reading(second), &many);
        }
        let incident = incident.unwrap();
        assert_eq!((incident.sources.len(), incident.networks.len()), (NAMED, NAMED));
        assert!(recorder.open.unwrap().sources.len() <= FOLLOWED);
    }

    /// Fails when a flood from random addresses hides who floods after it.
    #[test]
    fn who_comes_late_and_is_worse_than_the_least_is_named() {
        let mut recorder = Recorder::default();
        let mut seen = Holders::default();
        for look in 0..250_u16 {
            seen.looked_at = look.to_string();
            seen.sources = (0..10)
                .map(|number| SourceHolder {
                    source: format!("10.{look}.{number}.1"),
                    entries: 2,
                    states: Vec::new(),
                    is_above_part: false,
                })
                .collect();
            seen.services = (0..10).map(|it| service(1000 + 10 * look + it, 2, 2)).collect();
            recorder.see(&reading(12), &seen);
        }
        let open = recorder.open.as_ref().unwrap();
        assert_eq!([open.sources.len(), open.networks.len()], [FOLLOWED; 2]);
        assert_eq!(open.services.len(), FOLLOWED);
        let incident = recorder.see(&reading(13), &holders(5000)).unwrap();
        assert_eq!(incident.sources[0].name, "198.51.100.7");
        assert_eq!(incident.sources[1].name, "192.0.2.2");
        assert_eq!(incident.networks[0].name, "198.51.100.0/24");
        assert_eq!(incident.services[0].port, Some(53));
        let open = recorder.open.as_ref().unwrap();
        assert_eq!([open.sources.len(), open.services.len()], [FOLLOWED; 2]);
    }

    #[test]
    fn the_network_of_an_ipv6_source_is_its_48() {
        assert_eq!(network("2001:db8:7:ffff::/64").as_deref(), Some("2001:db8:7::/48"));
        assert_eq!(network("192.0.2.7").as_deref(), Some("192.0.2.0/24"));
        assert_eq!(network("nobody"), None);
    }
}
