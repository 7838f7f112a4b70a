//! Looks at the table on a thread: who holds it, who is known, and what may be deleted.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, anyhow};
use log::{debug, warn};
use rustix::time::{ClockId, clock_gettime};

use super::{Guard, background::Background, held::Rules, overload::net, tick::Relief};
use crate::{
    events::{PartEvent, What},
    holders::{Holders, Sums},
    services::Services,
};
use ctguard_control::{
    holdings::PartsRoom,
    look::{self, Looking},
    overload::Overload,
    reclaim::{Queue, ReclaimAges},
    refusals::{LimitsOfSources, Refusal, Refusals, asked_by_known},
    sources::{KnownSources, SourceScope, apply, sync},
    standing::{Standings, parts_room},
};
use ctguard_datapath::sources::summarize;
use ctguard_kernel::{
    bpf::monotonic,
    conntrack::{Completeness, Deletion, DumpError, FullTimeouts, Table, Timeouts, dump_deletable},
    maps::{FeedLists, GuardMaps, ListKind, SourceMemory},
};
use ctguard_layout::{CLASSES, HashKey, Policy, Rate};
use ctguard_units::{TableSample, in_force, real};

/// How much later the next look is if nothing was admitted in calm during the last two.
const QUIET: Duration = Duration::from_secs(10);

/// A larger table is not looked at before the guard is ready, because that takes a second.
const MOST_AT_START: u64 = 300_000;

#[derive(Debug)]
pub(crate) struct Looker {
    memory: Arc<Mutex<Memory>>,
    look: Option<Background<Looked>>,
    pub(super) queue: Queue<Deletion>,
    pub(super) interval: Duration,
    pub(super) holders: Holders,
    /// Sources to deny because they have been above their part for long.
    pub(super) overloaded: Vec<SourceScope>,
    /// Begin and entries of the last look.
    last: Option<(Duration, u64)>,
    /// Begin of the last look, whether or not it succeeded, and its processor time.
    began: Duration,
    took: Duration,
    /// New flows admitted before the last look, and before the one before it.
    admitted: [u64; 2],
    was_calm: bool,
}

/// What is kept from look to look.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) standings: Standings,
    /// What the data path's set of known sources holds.
    written: KnownSources,
    timeouts: FullTimeouts,
    refusals: Refusals,
    overload: Overload,
}

/// One look.
struct Job {
    memory: Arc<Mutex<Memory>>,
    sources: Arc<SourceMemory>,
    key: HashKey,
    rules: Rules,
    feeds: Arc<FeedLists>,
    ages: ReclaimAges,
    limits: LimitsOfSources,
    /// When a source above its part is denied, and for how long.
    overload: [Option<Duration>; 2],
    table: TableSample,
    room: PartsRoom,
    is_calm: bool,
    handshakes_prove: bool,
}

#[derive(Debug)]
struct Looked {
    began: Duration,
    /// Processor time.
    took: Duration,
    seen: Result<Seen, DumpError>,
}

#[derive(Debug)]
struct Seen {
    queue: Queue<Deletion>,
    holders: Holders,
    overloaded: Vec<SourceScope>,
    /// Sources for which the set has no room.
    left_out: usize,
}

impl Looker {
    pub(super) fn new(standings: Standings) -> Self {
        let memory = Memory {
            standings,
            written: KnownSources::new(),
            timeouts: FullTimeouts::default(),
            refusals: Refusals::default(),
            overload: Overload::default(),
        };
        Self {
            memory: Arc::new(Mutex::new(memory)),
            look: None,
            queue: Queue::default(),
            interval: look::interval(Duration::ZERO, true, false),
            holders: Holders::default(),
            overloaded: Vec::new(),
            last: None,
            began: Duration::ZERO,
            took: Duration::ZERO,
            admitted: [0; 2],
            was_calm: true,
        }
    }

    /// Looks before the first packet is judged, unless the table is large.
    pub(super) fn first(
        &mut self,
        maps: &GuardMaps,
        sources: &Arc<SourceMemory>,
        table: &Table,
        timeouts: &Timeouts,
    ) -> anyhow::Result<()> {
        // A former daemon's sources, of which only hashes are left.
        sources.lines().iter().flat_map(|line| &line.slots).for_each(|slot| slot.store(0));
        summarize(sources.as_ref());
        let (sample, is_calm) = (table.sample()?, maps.limits().is_calm());
        if !table.is_there() || sample.entries > MOST_AT_START {
            return Ok(());
        }
        let looked = self.job(maps, sources, sample, timeouts, is_calm)?.run();
        self.take(looked)?;
        Ok(())
    }

    fn job(
        &self,
        maps: &GuardMaps,
        sources: &Arc<SourceMemory>,
        table: TableSample,
        timeouts: &Timeouts,
        is_calm: bool,
    ) -> anyhow::Result<Job> {
        let (policy, environment) = (maps.policy(), maps.environment());
        let allowed = maps.lists.entries(ListKind::Allow)?;
        Ok(Job {
            memory: Arc::clone(&self.memory),
            sources: Arc::clone(sources),
            key: environment.fixed.source_key,
            rules: Rules {
                tcp_loose: environment.daemon.tcp_loose != 0,
                allowed: allowed.into_iter().map(|entry| entry.prefix).collect(),
            },
            feeds: Arc::clone(&maps.feeds),
            ages: ReclaimAges::of(&policy),
            limits: LimitsOfSources {
                ceilings: highest_ceilings(maps, &policy),
                in_force: maps.limits(),
                jiffies_per_second: environment.daemon.jiffies_per_second,
            },
            overload: [policy.overload_after, policy.overload_for]
                .map(|seconds| (seconds > 0).then(|| Duration::from_secs(seconds.into()))),
            table,
            room: parts_room(table, policy.target_ppm),
            is_calm,
            handshakes_prove: !timeouts.take_any_ack(),
        })
    }

    /// Sources that are known but not written, because there is no room for them.
    fn take(&mut self, looked: Looked) -> Result<usize, DumpError> {
        let Looked { began, took, seen } = looked;
        (self.began, self.took) = (began, took);
        let Seen { queue, mut holders, overloaded, left_out } = seen?;
        self.overloaded.extend(overloaded);
        if let Some((before, entries)) = self.last.replace((began, holders.entries)) {
            let seconds = began.saturating_sub(before).as_secs_f64().max(f64::EPSILON);
            holders.growth_per_second = (real(holders.entries) - real(entries)) / seconds;
        }
        (self.queue, self.holders) = (queue, holders);
        Ok(left_out)
    }

    /// Finds how long the next look at a table that now holds this has to wait.
    fn pace(&mut self, is_calm: bool, table: TableSample, target_ppm: u32) {
        let Holders { entries, parts, .. } = &self.holders;
        let is_urgent = look::is_urgent(table, target_ppm, *entries, parts.is_some());
        self.interval = look::interval(self.took, is_calm, is_urgent);
    }

    pub(super) fn relief(&self, deleted: u64) -> Relief {
        Relief {
            reclaimable: self.queue.len(),
            replaceable: self.queue.replaceable(),
            firm: self.queue.firm(),
            deleted,
            look_interval: self.interval,
        }
    }

    /// `None` while a look is under way.
    pub(super) fn try_memory(&self) -> Option<MutexGuard<'_, Memory>> {
        self.memory.try_lock().ok()
    }

    /// Waits for a look that is under way.
    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the next step, if there is one.
pub(crate) fn follow(guard: &mut Guard) -> anyhow::Result<()> {
    let now = monotonic();
    let is_calm = guard.ticker.is_calm();
    if let Some(looked) = Background::take_finished(&mut guard.looker.look) {
        let parts = guard.looker.holders.parts;
        let left_out = guard.looker.take(looked);
        let left_out = left_out.context("cannot learn who holds connections")?;
        let kept = match left_out {
            0 => Ok(()),
            count => Err(anyhow!("there is no room for {count}")),
        };
        guard.attempted("keep every known source", "some count as strangers", &kept);
        let reclaimed = guard.reclaimer.by_class();
        let holders = &mut guard.looker.holders;
        holders.reclaimed = reclaimed;
        if holders.parts.is_some() != parts.is_some() {
            let event = PartEvent::new(holders);
            guard.report(What::Part(event));
        }
        let kept = guard.holders.write(&guard.looker.holders).map_err(Into::into);
        guard.attempted("say who holds the table", "`ctguard status` does not", &kept);
    }
    let looker = &mut guard.looker;
    if looker.look.is_some() || !guard.table.is_there() {
        return Ok(());
    }
    // Asked only now: a look that began in calm does not know who came since.
    let has_left_calm = looker.was_calm && !is_calm;
    looker.was_calm = is_calm;
    let table = guard.table.sample()?;
    looker.pace(is_calm, table, guard.maps.policy().target_ppm);
    let admitted = guard.maps.grant.admissions().into_iter().fold(0, u64::wrapping_add);
    let is_quiet = is_calm && looker.admitted == [admitted; 2];
    let quiet = if is_quiet { QUIET } else { Duration::ZERO };
    if has_left_calm || now >= looker.began + looker.interval + quiet {
        looker.admitted = [admitted, looker.admitted[0]];
        let job = looker.job(&guard.maps, &guard.sources, table, &guard.timeouts, is_calm)?;
        looker.look = Some(Background::start("ctguard-look", move || job.run())?);
    }
    Ok(())
}

impl Job {
    fn run(mut self) -> Looked {
        let (began, cpu) = (monotonic(), processor_time());
        // Feeds may list too many for the daemon's thread.
        match self.feeds.entries(ListKind::Allow) {
            Ok(allowed) => self.rules.allowed.extend(allowed.iter().map(|listed| listed.prefix)),
            Err(error) => warn!("entries of sources that feeds allow are not spared: {error}"),
        }
        let seen = self.see(began);
        Looked { began, took: processor_time().saturating_sub(cpu), seen }
    }

    fn see(self, now: Duration) -> Result<Seen, DumpError> {
        let memory = &mut *self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.timeouts.follow(now);
        let marks = memory.standings.marks();
        let mut looking = Looking::new(self.ages, &marks, self.table.max);
        let (mut sums, mut services) = (Sums::default(), Services::default());
        let summary = dump_deletable(|entry, deletion| {
            let held = self.rules.held(entry, memory.timeouts.idle(entry, now));
            sums.add(&held);
            services.add(entry, held.kind);
            looking.add(&held, deletion);
        })?;
        // An entry that cannot be read stays in the table; a look is never more complete than that.
        let is_complete = summary.completeness == Completeness::Complete || summary.unread > 0;
        let mut look = looking.finish(is_complete);
        look.handshakes_prove = self.handshakes_prove;
        // A flow that spoke after its timeout had shrunk was taken for an old one.
        if memory.timeouts.follow(monotonic()) {
            look.queue.keep_dead_weight();
        }
        debug!("looked at {} entries: {summary:?}", look.entries);
        memory.standings.looked(&look, now, since_1970(), self.is_calm, self.room);
        let changes = sync(&memory.written, &memory.standings.known());
        let left_out = apply(&*self.sources, &self.key, changes, &mut memory.written).len();
        let refusals = self.refusals(now, &mut memory.refusals, &memory.written);
        let above_limits = refusals.iter().map(Into::into).collect();
        let overloaded = self.overloaded(now, memory);
        let holders = Holders {
            above_limits,
            services: services.most(),
            ..Holders::new(&look, &memory.standings, &sums)
        };
        Ok(Seen { queue: look.queue, holders, overloaded, left_out })
    }

    fn overloaded(&self, now: Duration, memory: &mut Memory) -> Vec<SourceScope> {
        let [after, lasts] = self.overload;
        let mut sources = memory.overload.look(&memory.standings.marks(), now, after, lasts);
        // The deny list goes before the allow list, so a /64 with one allowed address stays as it is.
        sources.retain(|source| !self.rules.allowed.touch(net(*source)));
        sources
    }

    fn refusals(
        &self,
        now: Duration,
        refusals: &mut Refusals,
        known: &KnownSources,
    ) -> Vec<Refusal> {
        let sources = &self.sources;
        let asked = asked_by_known(sources.lines(), sources.cells(), known, &self.key);
        refusals.look(now, &self.limits, sources.offered(), known, asked)
    }
}

/// The ceilings on the interface that allows most, and whether the operator set them.
fn highest_ceilings(maps: &GuardMaps, policy: &Policy) -> [(Rate, bool); CLASSES] {
    let interfaces = maps.interfaces.used();
    std::array::from_fn(|class| {
        let is_own = policy.has_own_ceiling(class);
        let on_interfaces = interfaces.iter().map(|slot| {
            let own = slot.interface.overrides[class];
            (in_force(policy.source[class], own), is_own || own != Rate::default())
        });
        let highest = on_interfaces.max_by_key(|(rate, _)| rate.flows_per_second);
        highest.unwrap_or((policy.source[class], is_own))
    })
}

/// Of this thread.
fn processor_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
