//! The thread that keeps the feeds' lists in the kernel as the feeds say.
//!
//! It has no part in the daemon's ticks. What a feed said last stays until it says something else: when
//! it cannot be read, and also when the daemon starts anew over a guard that went on.

use std::{
    io, mem,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant, SystemTime},
};

use ctguard_kernel::{
    bpf::{KernelClock, Pins, monotonic},
    lock,
    maps::{Entry, FeedListed, GuardMaps, ListKind},
};
use ctguard_layout::{FeedEntry, programs};
use ctguard_settings::Feed;
use log::{debug, warn};

use super::{
    merge::{changes, sorted, too_many, union},
    reader::{self, Reading},
    status::{FeedStatus, FeedsFile, FeedsStatus, bit},
    stop::{self, Running},
};
use crate::{daemon::Background, events::What};

const KINDS: [ListKind; 2] = [ListKind::Allow, ListKind::Deny];

/// Lists with a million prefixes are merged seldom.
const IDLE_FACTOR: u32 = 20;
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Ends that differ by no more are the same: sources tell in whole seconds how long is left.
const SLACK_SECONDS: u64 = 2;

#[derive(Debug)]
pub(super) enum Message {
    /// These are the feeds from here on.
    Configure(Vec<Feed>),
    /// By the reader with this number.
    Read(u64, Reading),
}

/// A feed that is wanted.
struct Followed {
    feed: Feed,
    slot: u32,
    /// Nothing of a feed that had its slot before is counted there any more.
    is_counted: bool,
    reader: u64,
    /// Sorted; ends in jiffies.
    entries: Vec<Entry>,
    ignored: u64,
    note: Option<String>,
    last_success: Option<SystemTime>,
    failures: u64,
    fault: Option<String>,
    /// What it says and the list cannot take.
    refused: Option<Vec<Entry>>,
    /// Ends its reader.
    running: Option<Running>,
}

pub(super) struct Keeper {
    maps: GuardMaps,
    clock: KernelClock,
    pins: Pins,
    file: FeedsFile,
    followed: Vec<Followed>,
    /// What the maps hold, by `ListKind`; none after a write that failed.
    held: [Option<Vec<FeedListed>>; 2],
    /// The feeds, or what they say, have changed.
    is_dirty: bool,
    /// Told to the data path: whether the maps have entries.
    told: Option<[bool; 2]>,
    fault: Option<String>,
    readers: u64,
    inbox: Sender<Message>,
    events: Sender<What>,
}

impl Keeper {
    pub(super) fn new(
        pins: &Pins,
        inbox: Sender<Message>,
        events: Sender<What>,
    ) -> anyhow::Result<Self> {
        let file = FeedsFile::of_this_namespace()?;
        Ok(Self {
            maps: GuardMaps::open(pins)?,
            clock: KernelClock::from_pin(&pins.program(programs::CLOCK))?,
            pins: pins.clone(),
            file,
            followed: Vec::new(),
            held: [None, None],
            is_dirty: true,
            told: None,
            fault: None,
            readers: 0,
            inbox,
            events,
        })
    }

    /// Works until the daemon ends. It knows its first feeds before it writes: else it would remove what
    /// a former daemon read from them.
    pub(super) fn run(mut self, feeds: Vec<Feed>, messages: &Receiver<Message>) {
        self.configure(feeds);
        let mut pause = Duration::ZERO;
        loop {
            match messages.recv_timeout(pause) {
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
            }
            while let Ok(message) = messages.try_recv() {
                self.take(message);
            }
            let began = Instant::now();
            let next = self.keep();
            let took = began.elapsed();
            pause = next.max(took * IDLE_FACTOR).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Configure(feeds) => self.configure(feeds),
            Message::Read(reader, reading) => self.read(reader, reading),
        }
    }

    fn configure(&mut self, feeds: Vec<Feed>) {
        let mut former = mem::take(&mut self.followed);
        let known = if former.is_empty() { self.of_former_daemon() } else { Vec::new() };
        let mut wanted = Vec::new();
        for feed in feeds {
            let own = former.iter().position(|it| it.feed.name == feed.name);
            let own = own.map(|position| former.swap_remove(position));
            match own.filter(|own| own.feed.allows == feed.allows) {
                Some(own) if own.feed == feed => wanted.push(own),
                Some(own) => wanted.push(Followed { feed, reader: 0, running: None, ..own }),
                None => {
                    let known = known
                        .iter()
                        .find(|(status, kind)| status.name == feed.name && *kind == list_of(&feed));
                    let entries = known.map(|(status, kind)| self.said(*kind, status.slot));
                    wanted.push(Followed {
                        slot: known.map_or(u32::MAX, |(status, _)| status.slot),
                        is_counted: known.is_some_and(|(status, _)| status.is_counted),
                        entries: entries.unwrap_or_default(),
                        ..Followed::new(feed)
                    });
                }
            }
        }
        // The bits of those that go are free only when their readers and entries are.
        drop(former);
        self.followed = wanted;
        for position in 0..self.followed.len() {
            if self.followed[position].slot == u32::MAX {
                let is_taken = |slot: &u32| self.followed.iter().any(|it| it.slot == *slot);
                // The configuration has no more feeds than there are bits.
                let free = (0..u32::BITS).find(|slot| !is_taken(slot));
                self.followed[position].slot = free.unwrap_or_default();
            }
            if self.followed[position].reader == 0 {
                self.start_reader(position);
            }
        }
        self.is_dirty = true;
    }

    fn start_reader(&mut self, position: usize) {
        self.readers += 1;
        let (reader, inbox) = (self.readers, self.inbox.clone());
        let own = &mut self.followed[position];
        own.reader = reader;
        let feed = own.feed.clone();
        let started = stop::pair().and_then(|(running, stop)| {
            let job = move || {
                reader::follow(&feed, &stop, |reading| {
                    // Nobody listens any more when the daemon ends.
                    let _ = inbox.send(Message::Read(reader, reading));
                });
            };
            Background::start("ctguard-feed", job).map(|_| running)
        });
        match started {
            Ok(running) => own.running = Some(running),
            Err(error) => self.read(reader, Reading::failed(format!("cannot read it: {error}"))),
        }
    }

    /// The feeds that a former daemon followed, whose entries the maps still hold.
    fn of_former_daemon(&mut self) -> Vec<(FeedStatus, ListKind)> {
        let kind = |status: &FeedStatus| match &status.list[..] {
            "allow" => ListKind::Allow,
            _ => ListKind::Deny,
        };
        let feeds = self.file.read().feeds;
        feeds.into_iter().map(|status| (status.clone(), kind(&status))).collect()
    }

    /// What the maps hold of a feed.
    fn said(&mut self, kind: ListKind, slot: u32) -> Vec<Entry> {
        let held = self.held(kind).unwrap_or_default();
        let own = held.iter().filter(|listed| listed.feeds & bit(slot) != 0);
        let said = own.map(|&FeedListed { prefix, expires_at, .. }| Entry { prefix, expires_at });
        let said = said.collect();
        self.held[kind as usize] = Some(held);
        said
    }

    fn held(&mut self, kind: ListKind) -> io::Result<Vec<FeedListed>> {
        self.held[kind as usize].take().map_or_else(|| self.maps.feeds.entries(kind), Ok)
    }

    fn read(&mut self, reader: u64, reading: Reading) {
        let Some(position) = self.followed.iter().position(|it| it.reader == reader) else {
            return;
        };
        let (entries, ignored, note, fault) = match reading {
            Reading::Same => {
                let Some(refused) = self.followed[position].refused.take() else {
                    self.followed[position].last_success = Some(SystemTime::now());
                    return;
                };
                // There may be room now.
                (Some(refused), 0, None, None)
            }
            Reading::Read { entries, ignored, note, fault } => (entries, ignored, note, fault),
        };
        let refused = entries.and_then(|entries| self.replace(position, entries).err());
        let own = &mut self.followed[position];
        if fault.is_none() {
            (own.ignored, own.note) = (ignored, note);
        }
        let fault = fault.or(refused);
        let name = own.feed.name.clone();
        match (&own.fault, &fault) {
            (None, Some(error)) => {
                self.report(What::FeedFailed { feed: name, error: error.clone() });
            }
            (Some(_), None) => {
                let prefixes = own.entries.len() as u64;
                self.report(What::FeedReadAgain { feed: name, prefixes });
            }
            _ => {}
        }
        let own = &mut self.followed[position];
        if fault.is_some() {
            own.failures += 1;
        } else {
            own.last_success = Some(SystemTime::now());
        }
        own.fault = fault;
    }

    /// Puts what a feed says in place of what it said, unless the list cannot take it now.
    fn replace(&mut self, position: usize, entries: Vec<Entry>) -> Result<(), String> {
        let jiffies = self.now().map_err(|error| format!("cannot read the clock: {error}"))?;
        let per_second = u64::from(self.maps.environment().daemon.jiffies_per_second);
        let millis = u64::try_from(monotonic().as_millis()).unwrap_or(u64::MAX);
        let in_jiffies = |Entry { prefix, expires_at }| {
            if expires_at == 0 {
                return Some(Entry { prefix, expires_at });
            }
            let left = expires_at.checked_sub(millis).filter(|left| *left > 0)?;
            let left = left.saturating_mul(per_second) / 1000;
            Some(Entry { prefix, expires_at: jiffies.saturating_add(left).max(1) })
        };
        let entries = sorted(entries.into_iter().filter_map(in_jiffies).collect());
        let count = entries.len();
        let former = mem::replace(&mut self.followed[position].entries, entries);
        // Without overlaps there are no more than this.
        let kind = list_of(&self.followed[position].feed);
        let most: usize = self.of(kind).map(|own| own.entries.len()).sum();
        if most > FeedEntry::CAPACITY as usize
            && let Some((family, all)) = too_many(&self.wanted(kind, jiffies))
        {
            let own = &mut self.followed[position];
            own.refused = Some(mem::replace(&mut own.entries, former));
            return Err(format!(
                "it lists {count} prefixes, and the {} list would have {all} {family} prefixes of \
                 feeds; it takes {}",
                kind.name(),
                FeedEntry::CAPACITY
            ));
        }
        self.followed[position].refused = None;
        self.is_dirty = true;
        if count == 0 {
            let before = former.iter().filter(|entry| entry.is_live(jiffies)).count() as u64;
            if before > 0 {
                let feed = self.followed[position].feed.name.clone();
                self.report(What::FeedEmptied { feed, before });
            }
        }
        Ok(())
    }

    fn of(&self, kind: ListKind) -> impl Iterator<Item = &Followed> {
        self.followed.iter().filter(move |own| list_of(&own.feed) == kind)
    }

    fn wanted(&self, kind: ListKind, jiffies: u64) -> Vec<FeedListed> {
        union(self.of(kind).map(|own| (bit(own.slot), &own.entries[..])), jiffies)
    }

    /// Brings the maps to what the feeds say; returns when something ends.
    fn keep(&mut self) -> Duration {
        let mut next = LONGEST_PAUSE;
        let fault = match self.try_keep(&mut next) {
            Ok(()) => None,
            Err(error) => Some(format!("{error:#}")),
        };
        if let (None, Some(error)) = (&self.fault, &fault) {
            warn!("cannot keep the lists of the feeds: {error}");
        }
        self.fault = fault;
        if let Err(error) = self.file.write(&self.status()) {
            debug!("`ctguard feeds` is out of date: {error}");
        }
        next
    }

    fn try_keep(&mut self, next: &mut Duration) -> anyhow::Result<()> {
        let jiffies = self.now()?;
        let per_second = u64::from(self.maps.environment().daemon.jiffies_per_second.max(1));
        for kind in KINDS {
            let has_ended = |own: &Followed| own.entries.iter().any(|it| !it.is_live(jiffies));
            if self.is_dirty || self.fault.is_some() || self.of(kind).any(has_ended) {
                self.write(kind, jiffies, per_second)?;
            }
            let ends = self.of(kind).flat_map(|own| &own.entries).map(|entry| entry.expires_at);
            if let Some(first) = ends.filter(|end| *end != 0).min() {
                *next =
                    (*next).min(Duration::from_secs(first.saturating_sub(jiffies) / per_second));
            }
        }
        self.start_counting()?;
        self.is_dirty = false;
        self.tell_data_path()
    }

    /// Only after the entries of a feed that had the slot before are gone.
    fn start_counting(&mut self) -> anyhow::Result<()> {
        for own in self.followed.iter_mut().filter(|own| !own.is_counted) {
            self.maps.clear_refusals(own.slot)?;
            own.is_counted = true;
        }
        Ok(())
    }

    fn write(&mut self, kind: ListKind, jiffies: u64, per_second: u64) -> anyhow::Result<()> {
        let began = Instant::now();
        for own in self.followed.iter_mut().filter(|own| list_of(&own.feed) == kind) {
            own.entries.retain(|entry| entry.is_live(jiffies));
        }
        let mut wanted = self.wanted(kind, jiffies);
        // Until all is written, nobody knows what the map holds.
        let held = self.held(kind)?;
        let changes = changes(&held, &mut wanted, SLACK_SECONDS * per_second);
        self.maps.feeds.update(kind, &changes.put)?;
        self.maps.feeds.remove(kind, &changes.remove)?;
        self.held[kind as usize] = Some(wanted);
        let (put, removed, took) = (changes.put.len(), changes.remove.len(), began.elapsed());
        if put + removed > 0 {
            debug!("feeds: {} {put} prefixes written, {removed} removed in {took:?}", kind.name());
        }
        Ok(())
    }

    fn tell_data_path(&mut self) -> anyhow::Result<()> {
        let in_use =
            KINDS.map(|kind| self.held[kind as usize].as_ref().is_none_or(|held| !held.is_empty()));
        if self.told != Some(in_use) {
            let writing = lock::for_writing(self.pins.path())?;
            self.maps.settings_writer(writing).note_lists()?;
            self.told = Some(in_use);
        }
        Ok(())
    }

    fn now(&self) -> anyhow::Result<u64> {
        Ok(self.clock.now(self.maps.environment().daemon.jiffies_per_second)?.0)
    }

    fn status(&self) -> FeedsStatus {
        let time = |at| humantime::format_rfc3339_seconds(at).to_string();
        let status = |own: &Followed| FeedStatus {
            name: own.feed.name.clone(),
            kind: own.feed.source.kind().to_owned(),
            list: list_of(&own.feed).name().to_owned(),
            source: own.feed.source.to_string(),
            settings: own.feed.to_string(),
            slot: own.slot,
            is_counted: own.is_counted,
            prefixes: own.entries.len() as u64,
            ignored: own.ignored,
            note: own.note.clone(),
            last_success: own.last_success.map(time),
            failures: own.failures,
            fault: own.fault.clone(),
        };
        let mut feeds: Vec<_> = self.followed.iter().map(status).collect();
        // A packet counts for the first of those that list its source.
        feeds.sort_unstable_by_key(|feed| feed.slot);
        FeedsStatus { feeds, fault: self.fault.clone() }
    }

    fn report(&self, what: What) {
        // Nobody listens any more when the daemon ends.
        let _ = self.events.send(what);
    }
}

impl Followed {
    const fn new(feed: Feed) -> Self {
        Self {
            feed,
            slot: u32::MAX,
            is_counted: false,
            reader: 0,
            entries: Vec::new(),
            ignored: 0,
            note: None,
            last_success: None,
            failures: 0,
            fault: None,
            refused: None,
            running: None,
        }
    }
}

const fn list_of(feed: &Feed) -> ListKind {
    if feed.allows { ListKind::Allow } else { ListKind::Deny }
}
