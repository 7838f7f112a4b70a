//! The lists while the daemon runs: entries end, entries of the configuration come and go, and what
//! commands added is kept across reboots.
//!
//! `lists-NAME.jsonl` in the state directory has a line for each entry that no configuration has:
//! `{"list":"allow","prefix":"192.0.2.7/32","until":SECONDS,"left":SECONDS}`. If the entry ends,
//! `until` is when, since 1970, and `left` is how long after the line was written: a machine without a
//! clock may start in the past. NAME is as in the file of the regulars.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use log::{info, warn};
use serde::{Deserialize, Serialize};

use super::{Guard, StartOptions, kept_file::KeptFile};
use crate::{
    config::{Config, check_room},
    files::FileError,
};
use ctguard_kernel::{
    bpf::{ClockError, KernelClock, monotonic},
    lock::Lock,
    maps::{Entry, ListError, ListKind, SettingsWriter},
};
use ctguard_layout::List;

const KINDS: [ListKind; 2] = [ListKind::Allow, ListKind::Deny];

const LISTS_OF_FEEDS: [List; 4] =
    [List::FeedAllowV4, List::FeedAllowV6, List::FeedDenyV4, List::FeedDenyV6];

/// Reading full lists takes no more than a hundredth of the time.
const IDLE_FACTOR: u32 = 100;
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    list: String,
    prefix: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct ListsKeeper {
    file: KeptFile,
    /// None if the file may not have it.
    kept: Option<Vec<Line>>,
    next: Duration,
}

/// Now, on the kernel's clock and on the wall.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) jiffies: u64,
    jiffies_per_second: u32,
    since_1970: Duration,
}

impl Now {
    pub(super) fn read(clock: &KernelClock, jiffies_per_second: u32) -> Result<Self, ClockError> {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Ok(Self {
            jiffies: clock.now(jiffies_per_second)?.0,
            jiffies_per_second,
            since_1970: since_1970.unwrap_or_default(),
        })
    }

    /// The line of an entry. Its `until` is steady from one call to the next.
    fn line(&self, kind: ListKind, entry: &Entry) -> Line {
        let ends = (entry.expires_at != 0).then(|| {
            let left = u128::from(entry.expires_at.saturating_sub(self.jiffies)) * 1000
                / u128::from(self.jiffies_per_second.max(1));
            let seconds = |millis: u128| u64::try_from(millis / 1000).unwrap_or(u64::MAX);
            (seconds(self.since_1970.as_millis() + left), seconds(left + 999))
        });
        let (until, left) = ends.unzip();
        Line { list: kind.name().to_owned(), prefix: entry.prefix, until, left }
    }

    /// When it will be so many seconds later, in jiffies; 0, which is never, for none.
    pub(super) fn after(&self, seconds: u32) -> u64 {
        if seconds == 0 {
            return 0;
        }
        self.jiffies + u64::from(seconds) * u64::from(self.jiffies_per_second)
    }

    /// The entry of a line that was kept; none if it has ended.
    fn entry(&self, line: &Line) -> Option<Entry> {
        let Some(until) = line.until else { return Some(permanent(line.prefix)) };
        let left = until.checked_sub(self.since_1970.as_secs()).filter(|left| *left > 0)?;
        let left = left.min(line.left.unwrap_or(u64::MAX));
        let jiffies = left.saturating_mul(u64::from(self.jiffies_per_second));
        Some(Entry { prefix: line.prefix, expires_at: self.jiffies.saturating_add(jiffies) })
    }
}

impl ListsKeeper {
    /// Reads what was kept, and fills the lists of a new guard with it and with what is configured.
    pub(super) fn start(
        options: &StartOptions,
        new: Option<(&mut SettingsWriter<'_>, Now)>,
    ) -> Result<Self, ListError> {
        let file = KeptFile::of_this_namespace(options.state.as_deref(), "lists", "jsonl");
        let kept = file.read("the lists are empty", parse);
        let keeper = |kept| Self { file, kept: Some(kept), ..Self::default() };
        let Some((writer, now)) = new else { return Ok(keeper(kept)) };
        for kind in KINDS {
            let listed = options.config.list(kind);
            writer.change_list(kind, [], listed.keys().copied().map(permanent))?;
            let own = kept.iter().filter(|line| line.list == kind.name());
            let own = own.filter(|line| !listed.contains_key(&line.prefix));
            let own: Vec<_> = own.filter_map(|line| now.entry(line)).collect();
            match writer.change_list(kind, [], own) {
                // A guard without some entries is better than none.
                Err(error @ ListError::Full) => {
                    warn!(
                        "some prefixes that `ctguard {} add` added are lost: {error}",
                        kind.name()
                    );
                }
                added => added?,
            }
        }
        Ok(keeper(kept))
    }

    /// Keeps `lines` if they are news.
    fn keep(&mut self, lines: Vec<Line>) -> anyhow::Result<()> {
        let written = self.file.take_written();
        self.note(written)?;
        if self.file.is_being_written()
            || self.kept.as_ref().is_some_and(|kept| !differ(&lines, kept))
        {
            return Ok(());
        }
        self.file.write(document(&lines))?;
        self.kept = Some(lines);
        Ok(())
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let written = self.file.wait();
        self.note(written)
    }

    /// What could not be written is tried again.
    fn note(&mut self, written: Option<Result<(), FileError>>) -> anyhow::Result<()> {
        if let Some(Err(error)) = written {
            self.kept = None;
            return Err(error.into());
        }
        Ok(())
    }
}

const fn permanent(prefix: IpNet) -> Entry {
    Entry { prefix, expires_at: 0 }
}

/// Whether more differs than the rounding of a time.
fn differ(now: &[Line], kept: &[Line]) -> bool {
    let same = |(a, b): (&Line, &Line)| {
        let (ends, ended) = (a.until.unwrap_or(u64::MAX), b.until.unwrap_or(u64::MAX));
        a.list == b.list && a.prefix == b.prefix && ends.abs_diff(ended) <= 2
    };
    now.len() != kept.len() || !now.iter().zip(kept).all(same)
}

fn document(lines: &[Line]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut bytes, line).expect("a vector takes all, and the keys are text");
        bytes.push(b'\n');
    }
    bytes
}

fn parse(bytes: &[u8]) -> anyhow::Result<Vec<Line>> {
    str::from_utf8(bytes)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Brings the lists from what `former` configured to what is configured; says what changed, with what
/// comes to each list and what goes from it apart, also if one of them could not be changed.
pub(super) fn configure(
    guard: &mut Guard,
    former: &Config,
    writing: &Lock,
) -> (Vec<Vec<String>>, anyhow::Result<()>) {
    let config = &guard.configuration.in_force;
    let maps = &mut guard.maps;
    change_each(|kind| {
        let [old, new]: [BTreeSet<_>; 2] =
            [former, config].map(|it| it.list(kind).keys().copied().collect());
        let entries = maps.lists.entries(kind)?;
        let there = entries.iter().map(|entry| (entry.prefix, entry.expires_at)).collect();
        let changes = differences(kind.name(), &there, &old, &new);
        let gone: Vec<_> = old.difference(&new).copied().collect();
        let mut writer = maps.settings_writer(writing.clone());
        writer.change_list(kind, gone, new.into_iter().map(permanent))?;
        Ok(changes)
    })
}

/// Changes one list after the other until one cannot be changed.
fn change_each(
    mut change: impl FnMut(ListKind) -> anyhow::Result<[Vec<String>; 2]>,
) -> (Vec<Vec<String>>, anyhow::Result<()>) {
    let mut changes = Vec::new();
    let done = KINDS.into_iter().try_for_each(|kind| {
        changes.extend(change(kind)?);
        Ok(())
    });
    (changes, done)
}

/// What comes to a list and what goes, given what the configuration `old` had and `new` has. What is
/// `there`, and until when, may differ from `old`: a command may have removed it, or added it for a
/// while.
fn differences(
    name: &str,
    there: &BTreeMap<IpNet, u64>,
    old: &BTreeSet<IpNet>,
    new: &BTreeSet<IpNet>,
) -> [Vec<String>; 2] {
    let is_news = |prefix: &&IpNet| !old.contains(prefix) || there.get(prefix) != Some(&0);
    let gone = old.difference(new).filter(|prefix| there.contains_key(prefix));
    [
        new.iter().filter(is_news).map(|prefix| format!("{name} + {prefix}")).collect(),
        gone.map(|prefix| format!("{name} - {prefix}")).collect(),
    ]
}

/// Has the feeds followed that are configured.
pub(super) fn follow_feeds(guard: &mut Guard) {
    let Guard { feeds, pins, configuration, maps, .. } = guard;
    let in_use = maps.environment().operator.lists_in_use;
    let has_entries = LISTS_OF_FEEDS.iter().any(|list| in_use & list.bit() != 0);
    let followed = feeds.configure(pins, configuration.in_force.feeds(), has_entries);
    guard.attempted("follow the feeds", "their lists stay as they are", &followed);
}

/// # Errors
/// If a list cannot take what `config` adds, beside what commands added.
pub(super) fn check(guard: &Guard, config: &Config) -> anyhow::Result<()> {
    for kind in KINDS {
        let (old, new) = (guard.configuration.in_force.list(kind), config.list(kind));
        let entries = guard.maps.lists.entries(kind)?;
        let mut prefixes: BTreeSet<_> = entries.into_iter().map(|entry| entry.prefix).collect();
        prefixes.retain(|prefix| !old.contains_key(prefix));
        prefixes.extend(new.keys());
        check_room(kind, prefixes.iter())?;
    }
    Ok(())
}

/// Ends entries whose time is over, and keeps the others.
pub(crate) fn follow(guard: &mut Guard) -> anyhow::Result<()> {
    let began = monotonic();
    if began < guard.lists.next {
        return Ok(());
    }
    let now = Now::read(&guard.kernel_clock, guard.jiffies_per_second)?;
    let (lines, has_ended) = lines(guard, now)?;
    let took = monotonic().saturating_sub(began);
    guard.lists.next = began + INTERVAL.max(took * IDLE_FACTOR);
    guard.lists.keep(lines)?;
    if has_ended && let Some(writing) = guard.try_writing()? {
        let ended = guard.maps.settings_writer(writing).expire_lists(now.jiffies)?;
        info!("list entries that ended: {ended}");
    }
    Ok(())
}

/// Keeps what changed in the last second, before the daemon ends.
pub(super) fn keep_last(guard: &mut Guard) -> anyhow::Result<()> {
    // If that failed, it is tried again.
    let _ = guard.lists.wait();
    let now = Now::read(&guard.kernel_clock, guard.jiffies_per_second)?;
    let (lines, _) = lines(guard, now)?;
    guard.lists.keep(lines)?;
    guard.lists.wait()
}

/// What no configuration has, and whether other entries have ended.
fn lines(guard: &Guard, now: Now) -> anyhow::Result<(Vec<Line>, bool)> {
    let in_use = guard.maps.environment().operator.lists_in_use != 0;
    let mut lines = Vec::new();
    let mut has_ended = false;
    for kind in KINDS.into_iter().filter(|_| in_use) {
        let own = guard.configuration.in_force.list(kind);
        for entry in guard.maps.lists.entries(kind)? {
            if !entry.is_live(now.jiffies) {
                has_ended = true;
            } else if entry.expires_at != 0 || !own.contains_key(&entry.prefix) {
                lines.push(now.line(kind, &entry));
            }
        }
    }
    Ok((lines, has_ended))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const HZ: u32 = 250;

    fn now(jiffies: u64, seconds: u64) -> Now {
        Now { jiffies, jiffies_per_second: HZ, since_1970: Duration::from_secs(seconds) }
    }

    fn line(prefix: &str, until: Option<u64>) -> Line {
        Line { list: "allow".to_owned(), prefix: prefix.parse().unwrap(), until, left: until }
    }

    #[test]
    fn an_entry_ends_at_the_same_time_after_a_reboot() {
        let prefix = "192.0.2.0/24".parse().unwrap();
        let ends = Entry { prefix, expires_at: 1_000_000 + 600 * u64::from(HZ) };
        let line = now(1_000_000, 5000).line(ListKind::Deny, &ends);
        assert_eq!((line.until, line.left), (Some(5600), Some(600)));
        let after = |seconds| now(77, seconds).entry(&line).map(|entry| entry.expires_at);
        assert_eq!(after(5100), Some(77 + 500 * u64::from(HZ)));
        assert_eq!(after(5600), None);
        let permanent = permanent(prefix);
        assert_eq!(
            now(77, 5100).entry(&now(1, 1).line(ListKind::Deny, &permanent)),
            Some(permanent)
        );
    }

    /// Fails when a machine without a clock denies a source for decades that was denied for minutes.
    #[test]
    fn an_entry_lasts_no_longer_because_the_clock_was_set_back() {
        let prefix = "192.0.2.0/24".parse().unwrap();
        let ends = Entry { prefix, expires_at: 600 * u64::from(HZ) };
        let line = now(0, 1_800_000_000).line(ListKind::Deny, &ends);
        let after = now(0, 100).entry(&line).map(|entry| entry.expires_at);
        assert_eq!(after, Some(600 * u64::from(HZ)));
    }

    /// Fails when what was added while the disk was full is lost at the next reboot.
    #[test]
    fn lists_that_could_not_be_written_are_written_later() {
        let directory = tempfile::tempdir().unwrap();
        let in_the_way = directory.path().join("state");
        std::fs::write(&in_the_way, "").unwrap();
        let file = in_the_way.join("lists.jsonl");
        let mut keeper = ListsKeeper {
            file: KeptFile::at(file.clone()),
            kept: Some(Vec::new()),
            ..ListsKeeper::default()
        };
        let mut attempt = || {
            keeper.keep(vec![line("192.0.2.7/32", None)])?;
            keeper.wait()
        };
        assert!(attempt().is_err());
        std::fs::remove_file(&in_the_way).unwrap();
        attempt().unwrap();
        assert!(std::fs::read_to_string(&file).unwrap().contains("192.0.2.7/32"));
    }

    /// Fails when a reload says that nothing changes while it denies again what a command removed.
    #[test]
    fn a_reload_tells_what_it_does_to_a_list_that_commands_have_changed() {
        let [new, removed, ends, stays, leaves, left] =
            [1, 2, 3, 4, 5, 6].map(|host| IpNet::from(IpAddr::from([192, 0, 2, host])));
        let there = BTreeMap::from([(ends, 9), (stays, 0), (leaves, 0)]);
        let old = BTreeSet::from([removed, ends, stays, leaves, left]);
        let [added, gone] =
            differences("deny", &there, &old, &BTreeSet::from([new, removed, ends, stays]));
        assert_eq!(added, [1, 2, 3].map(|host| format!("deny + 192.0.2.{host}/32")));
        assert_eq!(gone, ["deny - 192.0.2.5/32"]);
    }

    /// Fails when nobody is told of the allow list because the deny list is full.
    #[test]
    fn a_reload_tells_what_it_changed_before_it_failed() {
        let (changes, done) = change_each(|kind| match kind {
            ListKind::Allow => Ok([vec!["allow + 192.0.2.7/32".to_owned()], Vec::new()]),
            ListKind::Deny => Err(ListError::Full.into()),
        });
        assert_eq!(changes.concat(), ["allow + 192.0.2.7/32"]);
        assert!(done.is_err());
    }

    #[test]
    fn what_is_kept_is_read_back_and_a_rounded_time_is_no_news() {
        let lines = vec![line("192.0.2.7/32", None), line("2001:db8::/48", Some(7))];
        let again = parse(&document(&lines)).unwrap();
        assert_eq!(again, lines);
        assert!(!differ(&lines, &again));
        assert!(!differ(&[line("192.0.2.7/32", Some(8))], &[line("192.0.2.7/32", Some(7))]));
        assert!(differ(&[line("192.0.2.7/32", Some(10))], &[line("192.0.2.7/32", Some(7))]));
        assert!(differ(&[line("192.0.2.7/32", None)], &[line("192.0.2.7/32", Some(7))]));
        assert!(differ(&lines[..1], &lines));
        assert!(parse(b"{\"list\":\"allow\",\"pre").is_err());
    }

    #[test]
    fn damaged_lists_are_refused_or_read_as_others() {
        let kept = document(&[line("192.0.2.7/32", None), line("2001:db8::/48", Some(7))]);
        ctguard_damage::survives!(&[&kept], |bytes: &[u8]| {
            let entries = parse(bytes).unwrap_or_default();
            let _: Vec<_> = entries.iter().map(|line| now(0, 1_800_000_000).entry(line)).collect();
        });
    }
}
