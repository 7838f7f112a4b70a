//! Keeps the set of known sources: those that hold a connection they opened, and regulars.

use std::{
    collections::HashSet,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, anyhow};
use log::warn;

use super::{Guard, background::Background, state_file::StateFile};
use crate::files::FileError;
use ctguard_control::{
    holdings::{Entries, Proof},
    regulars::Regulars,
    sources::{KnownSources as Known, SourceScope, apply, known, look_interval, sync},
};
use ctguard_datapath::sources::Tiers;
use ctguard_kernel::{
    bpf::monotonic,
    conntrack::{Completeness, DumpError, Summary, assured::assured_sources},
};

const LEARNING_INTERVAL: Duration = Duration::from_mins(1);

/// Dumps take at most this part of a processor: a 20th under pressure, a 50th in calm.
const PART_OF_A_PROCESSOR: u32 = 20;
const PART_IN_CALM: u32 = 50;

/// How much later the next look is if nothing was admitted during the last two.
const QUIET: Duration = Duration::from_secs(10);

const SAVE_INTERVAL: Duration = Duration::from_mins(10);

#[derive(Debug)]
pub(crate) struct KnownSources {
    regulars: Regulars,
    file: Option<StateFile>,
    saved: Duration,
    saving: Option<Background<Result<(), FileError>>>,
    written: Known,
    dump: Option<Background<Dump>>,
    /// New flows admitted before the last look, and before the one before it.
    admitted: [u64; 2],
    next: Duration,
    learnt: Duration,
    was_calm: bool,
}

#[derive(Debug)]
struct Dump {
    began: Duration,
    lasted: Duration,
    sources: HashSet<SourceScope>,
    summary: Result<Summary, DumpError>,
}

impl KnownSources {
    /// Loads the regulars saved in `directory`.
    pub(super) fn new(directory: Option<PathBuf>) -> Self {
        let file = directory.and_then(|directory| {
            if let Err(error) = std::fs::create_dir_all(&directory) {
                warn!("regulars are not kept: cannot make {}: {error}", directory.display());
                return None;
            }
            StateFile::of_this_namespace(&directory)
        });
        let regulars = file.as_ref().map_or_else(Regulars::default, |file| {
            file.load().unwrap_or_else(|error| {
                warn!("regulars are learnt anew: {error}");
                Regulars::default()
            })
        });
        Self {
            regulars,
            file,
            saved: monotonic(),
            saving: None,
            written: Known::new(),
            dump: None,
            admitted: [0; 2],
            next: Duration::ZERO,
            learnt: Duration::ZERO,
            was_calm: true,
        }
    }

    /// Regulars, and proven sources, that the data path knows.
    pub(super) fn all(&self) -> impl Iterator<Item = SourceScope> {
        self.written.keys().copied()
    }

    pub(crate) fn save(&mut self) -> anyhow::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        // Two would write the same file.
        if let Some(saving) = self.saving.take() {
            let _ = saving.wait();
        }
        file.save(&self.regulars).context("cannot keep the regulars")
    }

    /// The same on a thread: ticks do not wait for a disk.
    fn save_in_background(&mut self, now: Duration) -> anyhow::Result<()> {
        if let Some(saved) = Background::take_finished(&mut self.saving) {
            saved.context("cannot keep the regulars")?;
        }
        let Some(file) = self.file.clone() else { return Ok(()) };
        if self.saving.is_none() && now >= self.saved + SAVE_INTERVAL {
            self.saved = now;
            let regulars = self.regulars.clone();
            self.saving = Some(Background::start("ctguard-save", move || file.save(&regulars))?);
        }
        Ok(())
    }
}

/// Takes the next step, if there is one.
pub(crate) fn follow(guard: &mut Guard) -> anyhow::Result<()> {
    let now = monotonic();
    let calm = guard.ticker.is_calm();
    let keeper = &mut guard.known_sources;
    if let Some(dump) = Background::take_finished(&mut keeper.dump) {
        let part = if calm { PART_IN_CALM } else { PART_OF_A_PROCESSOR };
        keeper.next = dump.began + look_interval(calm).max(dump.lasted * part);
        let summary = dump.summary.context("cannot learn who holds connections")?;
        let proven = proven(dump.sources, &summary, &keeper.written);
        learn(guard, &proven, calm);
    }
    let keeper = &mut guard.known_sources;
    if keeper.was_calm && !calm {
        keeper.next = now;
    }
    keeper.was_calm = calm;
    let admitted = guard.maps.grant.admissions().into_iter().fold(0, u64::wrapping_add);
    let quiet = if keeper.admitted == [admitted; 2] { QUIET } else { Duration::ZERO };
    if keeper.dump.is_none() && now >= keeper.next + quiet && guard.table.is_there() {
        keeper.admitted = [admitted, keeper.admitted[0]];
        keeper.dump = Some(Background::start("ctguard-assured", move || ask(now))?);
    }
    keeper.save_in_background(now)
}

/// Sources that hold a connection. An interrupted dump may have missed some that still do.
fn proven(
    mut found: HashSet<SourceScope>,
    summary: &Summary,
    written: &Known,
) -> HashSet<SourceScope> {
    // An entry that cannot be read stays in the table; a source that is no more must not stay.
    if summary.completeness == Completeness::Interrupted && summary.unread == 0 {
        found.extend(
            written.iter().filter(|(_, tiers)| tiers.has(Tiers::PROVEN)).map(|(source, _)| source),
        );
    }
    found
}

fn learn(guard: &mut Guard, proven: &HashSet<SourceScope>, calm: bool) {
    let now = monotonic();
    let keeper = &mut guard.known_sources;
    if now >= keeper.learnt + LEARNING_INTERVAL {
        if calm {
            let seen = |&source| (source, Proof::OfAddress, Entries::default());
            keeper.regulars.learn(proven.iter().map(seen), since_1970());
        }
        keeper.learnt = now;
    }
    let changes = sync(
        &keeper.written,
        &known(keeper.regulars.regulars().into_keys(), proven.iter().copied()),
    );
    let key = guard.maps.environment().fixed.source_key;
    let left_out = apply(&guard.sources, &key, changes, &mut keeper.written);
    let kept = match left_out.len() {
        0 => Ok(()),
        count => Err(anyhow!("there is no room for {count}")),
    };
    guard.attempted("keep every known source", "some count as strangers", &kept);
}

fn ask(began: Duration) -> Dump {
    let mut sources = HashSet::new();
    let summary = assured_sources(|source| {
        sources.insert(SourceScope::from(source));
    });
    let lasted = monotonic().saturating_sub(began);
    Dump { began, lasted, sources, summary }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    /// Hangs when a tick waits for a disk: a FIFO that nobody reads is a slow one.
    #[test]
    fn a_disk_that_takes_its_time_holds_up_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let mut keeper = KnownSources::new(Some(directory.path().to_owned()));
        if keeper.file.is_none() {
            return;
        }
        keeper.save().unwrap();
        let saved = std::fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
        let slow = saved.with_added_extension("new");
        mknodat(CWD, &slow, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let now = keeper.saved + SAVE_INTERVAL;
        keeper.save_in_background(now).unwrap();
        assert!(Background::take_finished(&mut keeper.saving).is_none() && keeper.saving.is_some());
        // A FIFO cannot be synchronised.
        let _reader = File::open(&slow).unwrap();
        assert!(keeper.saving.take().unwrap().wait().is_err());
    }

    /// Fails when an interrupted dump makes strangers of sources whose connections go on.
    #[test]
    fn a_proven_source_that_an_interrupted_dump_missed_stays_proven() {
        let [told, missed, regular] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
            .map(|text| text.parse::<SourceScope>().unwrap());
        let written = Known::from([(missed, Tiers::PROVEN), (regular, Tiers::REGULAR)]);
        let proven = |completeness, unread| {
            let summary = Summary { entries: 1, unread, completeness };
            proven(HashSet::from([told]), &summary, &written)
        };
        assert_eq!(proven(Completeness::Interrupted, 0), HashSet::from([told, missed]));
        assert_eq!(proven(Completeness::Interrupted, 1), HashSet::from([told]));
        assert_eq!(proven(Completeness::Complete, 0), HashSet::from([told]));
    }
}
