//! Records incidents, and keeps the last of them in `incidents-NAME.json` of the state directory: a
//! JSON array, the oldest first. NAME is as in the file of the regulars.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use log::info;

use super::{Guard, kept_file::KeptFile};
use crate::{
    incidents::{ClassFlows, Incident, IncidentsReport, MOST, Reading, Recorder},
    report::CounterReport,
};
use ctguard_kernel::bpf::monotonic;
use ctguard_layout::{Class, Policy, Tier};
use ctguard_units::real;

/// How often one that goes on is written.
const INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct IncidentsKeeper {
    file: KeptFile,
    kept: Vec<Incident>,
    recorder: Recorder,
    /// The last of `kept` goes on.
    is_open: bool,
    is_unsaved: bool,
    saved: Duration,
}

impl IncidentsKeeper {
    /// Reads those of former daemons.
    pub(super) fn start(directory: Option<&Path>) -> Self {
        let file = KeptFile::of_this_namespace(directory, "incidents", "json");
        let parse = |bytes: &[u8]| serde_json::from_slice(bytes);
        let kept = file.read("former incidents are lost", parse);
        Self::of(file, kept)
    }

    fn of(file: KeptFile, mut kept: Vec<Incident>) -> Self {
        let mut is_unsaved = false;
        // Their daemons were killed.
        for incident in kept.iter_mut().filter(|incident| incident.ended.is_none()) {
            incident.end_with_daemon(incident.seen.clone());
            is_unsaved = true;
        }
        Self { file, kept, is_unsaved, ..Self::default() }
    }

    /// Takes what was recorded; says whether one began or ended.
    fn take(&mut self, mut incident: Incident) -> bool {
        let is_over = incident.ended.is_some();
        let number = self.kept.last().map_or(0, |last| last.number);
        let has_begun = !self.is_open;
        incident.number = if has_begun { number + 1 } else { number };
        if has_begun {
            self.kept.push(incident);
        } else if let Some(last) = self.kept.last_mut() {
            *last = incident;
        }
        let surplus = self.kept.len().saturating_sub(MOST);
        self.kept.drain(..surplus);
        self.is_open = !is_over;
        has_begun || is_over
    }

    /// Writes what is to be written, if nothing is being written.
    fn save(&mut self, now: Duration) -> anyhow::Result<()> {
        if let Some(Err(error)) = self.file.take_written() {
            self.is_unsaved = true;
            return Err(error.into());
        }
        let is_due = self.is_unsaved || self.is_open && now >= self.saved + INTERVAL;
        if is_due && !self.file.is_being_written() {
            (self.is_unsaved, self.saved) = (false, now);
            self.file.write(serde_json::to_vec(&self.kept)?)?;
        }
        Ok(())
    }

    /// The same at the end, which is that of an incident that goes on.
    pub(super) fn save_last(&mut self) -> anyhow::Result<()> {
        if std::mem::take(&mut self.is_open)
            && let Some(last) = self.kept.last_mut()
        {
            last.end_with_daemon(time());
            self.is_unsaved = true;
        }
        let has_failed = matches!(self.file.wait(), Some(Err(_)));
        if self.is_unsaved || has_failed {
            self.file.write(serde_json::to_vec(&self.kept)?)?;
        }
        self.file.wait().transpose()?;
        Ok(())
    }
}

/// Where this network namespace's are in a state directory; none for a namespace without a name.
pub(crate) fn incidents_path(directory: &Path) -> Option<PathBuf> {
    KeptFile::of_this_namespace(Some(directory), "incidents", "json").path().map(Path::to_owned)
}

/// Once per second.
pub(super) fn follow(guard: &mut Guard) -> anyhow::Result<()> {
    let reading = read(guard)?;
    let keeper = &mut guard.incidents;
    if let Some(incident) = keeper.recorder.see(&reading, &guard.looker.holders) {
        let has_changed = keeper.take(incident);
        keeper.is_unsaved |= has_changed;
        if let Some(last) = keeper.kept.last().filter(|_| has_changed) {
            let what = if last.ended.is_some() { "is over" } else { "begins" };
            info!("incident {} {what}; see: ctguard incidents", last.number);
            let json = serde_json::to_vec(&IncidentsReport::new(std::slice::from_ref(last)))?;
            let hook = guard.configuration.in_force.hook();
            let refused = guard.hooks.add(last.number, hook, json);
            let saved = keeper.save(reading.at);
            if let Some(event) = refused {
                guard.report(event);
            }
            return saved;
        }
    }
    keeper.save(reading.at)
}

fn read(guard: &Guard) -> anyhow::Result<Reading> {
    let (table, limits) = (guard.table.sample()?, guard.maps.limits());
    let counters = CounterReport::new(&guard.maps.totals()?);
    let classes = Class::ALL.map(|class| {
        let of_class = counters.of(class);
        let [admitted, challenged, _] = of_class.verdicts();
        let refused = of_class.refusals().map(|(reason, flows)| (reason.to_owned(), flows));
        ClassFlows { admitted, challenged, refused: refused.collect() }
    });
    let admitted = guard.maps.grant.admissions();
    let tiers = Tier::ALL.map(|tier| (tier.name().to_owned(), admitted[tier as usize]));
    Ok(Reading {
        at: monotonic(),
        time: time(),
        entries: table.entries,
        max: table.max,
        target_ratio: real(guard.maps.policy().target_ppm.into()) / 1e6,
        stages: Class::ALL.map(|class| limits.stage(class)),
        classes,
        tiers: BTreeMap::from(tiers),
        reclaimed: guard.reclaimer.by_class(),
        denied_packets: counters.denied_packets(),
        is_dry_run: guard.maps.policy().has(Policy::DRY_RUN),
    })
}

/// Now, in RFC 3339.
fn time() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        incidents::{Peak, Seen, Series},
        services::ServiceHeld,
    };

    fn incident(began: &str, ended: Option<&str>) -> Incident {
        let ended = ended.map(ToOwned::to_owned);
        Incident { began: began.to_owned(), ended, ..Incident::default() }
    }

    #[test]
    fn incidents_are_numbered_and_the_oldest_give_way() {
        let mut keeper = IncidentsKeeper::default();
        for number in 0..MOST + 5 {
            let began = number.to_string();
            assert!(keeper.take(incident(&began, None)), "it begins");
            assert!(!keeper.take(incident(&began, None)));
            assert!(keeper.take(incident(&began, Some("now"))), "it ends");
        }
        assert_eq!(keeper.kept.len(), MOST);
        let last = keeper.kept.last().unwrap();
        assert_eq!((last.number, last.ended.as_deref()), (MOST as u64 + 5, Some("now")));
    }

    #[test]
    fn incidents_outlive_the_daemon_and_a_damaged_file_is_moved_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("incidents-host.json");
        let start = || IncidentsKeeper { file: KeptFile::at(path.clone()), ..Default::default() };
        let mut keeper = start();
        keeper.is_unsaved = keeper.take(incident("first", None));
        keeper.save(Duration::ZERO).unwrap();
        keeper.save_last().unwrap();
        let kept: Vec<Incident> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(kept, keeper.kept);
    }

    /// Fails when the record of an incident stays open for ever because its daemon was stopped or killed.
    #[test]
    fn an_incident_ends_with_its_daemon_also_if_that_was_killed() {
        let directory = tempfile::tempdir().unwrap();
        let file = KeptFile::at(directory.path().join("incidents-host.json"));
        let mut stopped = IncidentsKeeper { file, ..Default::default() };
        stopped.take(incident("first", None));
        stopped.save_last().unwrap();
        assert!(stopped.kept[0].daemon_ended && stopped.kept[0].ended.is_some());

        let killed = Incident { seen: "a while later".to_owned(), ..incident("second", None) };
        let over = incident("first", Some("then"));
        let next = IncidentsKeeper::of(KeptFile::default(), vec![over.clone(), killed]);
        assert_eq!(next.kept[0], over);
        assert_eq!(next.kept[1].ended.as_deref(), Some("a while later"));
        assert!(next.kept[1].daemon_ended && next.is_unsaved && !next.is_open);
    }

    /// Fails when an incident is lost because the disk was full when it ended.
    #[test]
    fn an_incident_that_could_not_be_written_is_written_later() {
        let directory = tempfile::tempdir().unwrap();
        let in_the_way = directory.path().join("state");
        std::fs::write(&in_the_way, "").unwrap();
        let path = in_the_way.join("incidents-host.json");
        let mut keeper = IncidentsKeeper { file: KeptFile::at(path.clone()), ..Default::default() };
        keeper.take(incident("first", None));
        keeper.is_unsaved = keeper.take(incident("first", Some("now")));
        while keeper.save(Duration::ZERO).is_ok() {
            std::thread::yield_now();
        }
        std::fs::remove_file(&in_the_way).unwrap();
        keeper.save_last().unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("first"));
    }

    /// Fails when a daemon could not read again what it wrote.
    #[test]
    fn the_longest_file_is_not_too_long_to_be_read() {
        let [name, label] =
            ["2001:db8:ffff:ffff::/64", "a_long_label_of_a_reason"].map(str::to_owned);
        let count = u64::from(u32::MAX);
        let counts = |many: u32| (0..many).map(|it| (format!("{label}{it}"), count)).collect();
        let seen = Seen { name, asks: 1e6 / 3.0, refused: 1e6 / 3.0, holds: u32::MAX };
        let [address, protocol] =
            ["2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "tcp"].map(str::to_owned);
        let service = ServiceHeld {
            address,
            protocol,
            port: Some(65535),
            entries: count,
            unanswered_entries: count,
        };
        let flows = ClassFlows { admitted: count, challenged: count, refused: counts(20) };
        let peak = Peak { peak_arriving_per_second: 1e6 / 3.0, flows, ..Peak::default() };
        let rates = vec![9_999_999; 240];
        let longest = Incident {
            classes: Class::ALL.map(|class| (class.name().to_owned(), peak.clone())).into(),
            admitted_by_tier: counts(10),
            reclaimed: counts(10),
            sources: vec![seen.clone(); 20],
            networks: vec![seen; 20],
            services: vec![service; 10],
            series: Series {
                at_seconds: rates.clone(),
                entries: vec![9_999_999; 240],
                arriving_per_second: rates.clone(),
                admitted_per_second: rates.clone(),
                refused_per_second: rates,
            },
            ..incident("2026-11-29T04:00:00Z", None)
        };
        let bytes = serde_json::to_vec(&vec![longest; MOST]).unwrap().len() as u64;
        assert!(bytes < crate::files::LONGEST * 9 / 10, "{bytes}");
    }
}
