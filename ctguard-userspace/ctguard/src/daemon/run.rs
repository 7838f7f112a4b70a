//! The main loop: it waits for a tick, a wake-up, a change of interfaces, a second, a signal.

use std::{io, time::Duration};

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use log::{Log, info, warn};
use sd_notify::NotifyState;
use tokio::{
    io::unix::AsyncFd,
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};

use super::{
    Guard, StartError, StartOptions, configuration, hook,
    housekeeping::{end_pause, fit_timeouts, follow_kernel, notice_others, notice_unreadable},
    incidents, keep_pins, keep_regulars, known_flows, lists, look, overload, reclaim,
    start::start,
    tick::Ticked,
    tick_timer::TickTimer,
    watch,
    watched::watched,
};
use crate::{
    events::{PartEvent, What},
    signals::{Reload, Stop},
};
use ctguard_control::Pace;
use ctguard_kernel::{
    bpf::{is_attached, monotonic},
    memory::share_one_heap,
    net::LinkEvents,
    urgency::be_urgent,
};

/// The shortest time between two looks at the interfaces.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);
const SETTLING_INTERVAL: Duration = Duration::from_mins(1);

type Logger = EbpfLogger<&'static dyn Log>;

/// The daemon's only thread, and the signals that end it.
#[derive(Debug)]
pub(crate) struct MainLoop {
    runtime: Runtime,
    stop: Stop,
    learn: Signal,
    reload: Reload,
}

impl MainLoop {
    /// Makes this thread urgent, and catches signals from here on. One that comes while the guard is
    /// being loaded ends the loop as soon as it begins, and the guard is removed.
    pub(crate) fn prepare() -> io::Result<Self> {
        be_urgent();
        share_one_heap();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let ((stop, reload), learn) = {
            let _context = runtime.enter();
            (Stop::or_reload()?, signal(SignalKind::user_defined1())?)
        };
        Ok(Self { runtime, stop, learn, reload })
    }

    /// Starts a guard; what fails leaves the kernel as it was.
    pub(crate) fn start(&self, options: &StartOptions) -> Result<(Guard, Waits), StartError> {
        let _context = self.runtime.enter();
        start(options)
    }

    /// Steers the guard until a signal.
    pub(crate) fn run(self, guard: &mut Guard, waits: Waits) -> anyhow::Result<()> {
        let Self { runtime, mut stop, mut learn, mut reload } = self;
        runtime.block_on(steer(guard, (&mut stop, &mut learn, &mut reload), waits))
    }
}

/// What the main loop waits for, beside signals.
pub(crate) struct Waits {
    timer: TickTimer,
    wakeups: AsyncFd<RingBuf<MapData>>,
    link_events: AsyncFd<LinkEvents>,
    log: Option<AsyncFd<Logger>>,
}

impl Waits {
    /// Must be called within a runtime. The first tick is due at once.
    pub(super) fn open(guard: &mut Guard, trace: bool) -> anyhow::Result<Self> {
        let timer = TickTimer::new()?;
        timer.set(monotonic())?;
        Ok(Self {
            timer,
            wakeups: watched(guard.maps.wakeups()?)?,
            link_events: watched(LinkEvents::subscribe()?)?,
            log: trace.then(|| open_log(guard)).transpose()?,
        })
    }
}

async fn steer(
    guard: &mut Guard,
    (stop, learn, reload): (&mut Stop, &mut Signal, &mut Reload),
    waits: Waits,
) -> anyhow::Result<()> {
    let Waits { timer, mut wakeups, link_events, mut log } = waits;
    let mut last_tick = monotonic();
    let (mut looked, mut kept_house, mut settled) = (last_tick, last_tick, last_tick);
    // Something may have changed since the links were read.
    let mut changed = true;
    let interfaces = guard.interfaces.iter().map(|interface| interface.name.clone()).collect();
    guard.keep(What::Started { interfaces });
    for change in std::mem::take(&mut guard.unreported) {
        guard.report(What::Stage((&change).into()));
    }
    if guard.looker.holders.parts.is_some() {
        guard.report(What::Part(PartEvent::new(&guard.looker.holders)));
    }

    loop {
        tokio::select! {
            biased;
            _ = stop.requested() => break,
            _ = learn.recv() => {
                info!("reading the table again, as asked");
                known_flows::learn(guard);
                continue;
            }
            () = reload.requested() => {
                let begun = configuration::read_again(guard);
                guard.attempted("read the configuration", "what runs stays", &begun);
                continue;
            }
            expired = timer.expired() => expired?,
            woken = wakeups.readable_mut() => {
                let mut woken = woken?;
                while woken.get_inner_mut().next().is_some() {}
                woken.clear_ready();
                timer.set(last_tick + Pace::SHORTEST)?;
                continue;
            }
            event = link_events.readable() => {
                let mut event = event?;
                event.get_inner().drain();
                event.clear_ready();
                changed = true;
                continue;
            }
            () = print(&mut log) => continue,
        }
        last_tick = monotonic();
        let pace = tick(guard);
        timer.set(last_tick + pace.interval())?;
        let kept = known_flows::follow(guard);
        guard.attempted("keep the known-flows filter", "floods pay for lookups", &kept);
        let seen = look::follow(guard);
        guard.attempted("look at the table", "new sources stay strangers", &seen);
        let used = configuration::follow(guard);
        guard.attempted("use the configuration", "what runs stays", &used);
        let kept = keep_regulars::follow(guard);
        guard.attempted("keep the regulars", "a restart forgets the latest", &kept);
        if last_tick >= kept_house + HOUSEKEEPING_INTERVAL {
            kept_house = last_tick;
            changed |= keep_house(guard);
        }
        if last_tick >= settled + SETTLING_INTERVAL {
            settled = last_tick;
            guard.settle_events();
        }
        if changed && last_tick >= looked + LOOK_INTERVAL {
            looked = last_tick;
            let seen = watch::look(guard);
            changed = seen.is_err();
            guard.attempted("read the interfaces", "changes of them go unseen", &seen);
        }
    }
    guard.report(What::Stopped);
    let recorded = guard.incidents.save_last();
    guard.attempted("keep the incidents", "the latest is lost", &recorded);
    let listed = lists::keep_last(guard);
    guard.attempted("keep the lists", "the latest entries are lost at a reboot", &listed);
    let saved = guard.regulars.save(guard.looker.memory().standings.regulars());
    let restored = guard.adaptive.restore().context("cannot restore timeouts");
    for error in [saved, restored].into_iter().filter_map(Result::err) {
        warn!("{error:#}");
    }
    Ok(())
}

/// Returns whether an interface has lost its program, or other frames are tracked than before.
fn keep_house(guard: &mut Guard) -> bool {
    let done = follow_kernel(guard);
    guard.attempted("follow the kernel", "timeouts may be out of date", &done);
    let done = end_pause(guard);
    guard.attempted("end the pause", "nothing is dropped", &done);
    let done = overload::follow(guard);
    guard.attempted("deny sources above their part", "they are not denied", &done);
    let done = lists::follow(guard);
    guard.attempted("keep the lists", "entries stay too long, or are lost at a reboot", &done);
    for event in guard.feeds.events() {
        guard.report(event);
    }
    let done = guard.configuration.keep_unsaved();
    guard.attempted("keep the configuration", "a start with a damaged file finds none", &done);
    let done = notice_others(guard).and_then(|()| notice_unreadable(guard));
    guard.attempted("count entries and frames", "jumps and unreadable frames go unseen", &done);
    let recorded = incidents::follow(guard);
    guard.attempted("record incidents", "`ctguard incidents` lacks some", &recorded);
    hook::follow(guard);
    let fitted = fit_timeouts(guard);
    guard.attempted("fit timeouts to the fill", "entries live longer", &fitted);
    if let Err(error) = sd_notify::notify(&[NotifyState::Watchdog]) {
        let failed = Err(error.into());
        guard.attempted("answer the service manager", "it may restart the daemon", &failed);
    }
    // Before the interfaces: a link is pinned where the guard is.
    keep_pins::follow(guard);
    watch::has_new_sight(guard)
        || guard.waiting.is_due(monotonic())
        || guard
            .interfaces
            .iter()
            .any(|interface| !interface.attached || !is_attached(&guard.pins, interface.ifindex))
}

/// If ticks fail, the heartbeat grows old and the fallback rate applies.
fn tick(guard: &mut Guard) -> Pace {
    let guarded = guard.interfaces.iter().map(|interface| interface.ifindex);
    let relief = guard.looker.relief(guard.reclaimer.total());
    let ticked = guard.ticker.tick(&guard.maps, &guard.sources, &guard.table, relief, guarded);
    let (pace, attempt) = match ticked {
        Ok(Ticked { pace, changes, delete }) => {
            for change in &changes {
                guard.report(What::Stage(change.into()));
            }
            let reclaimed = reclaim::delete(guard, delete);
            guard.attempted("reclaim entries", "the table may stay full", &reclaimed);
            (pace, Ok(()))
        }
        Err(error) => (Pace::Calm, Err(error.into())),
    };
    guard.attempted("grant new flows", "the fallback rate holds", &attempt);
    pace
}

fn open_log(guard: &mut Guard) -> anyhow::Result<AsyncFd<Logger>> {
    let logger =
        EbpfLogger::init(guard.programs.object_mut()).context("cannot read the program's log")?;
    Ok(watched(logger)?)
}

/// Prints what the program logged; without a log, waits forever.
async fn print(log: &mut Option<AsyncFd<Logger>>) {
    let Some(log) = log else { return std::future::pending().await };
    let ready: io::Result<_> = log.readable_mut().await;
    if let Ok(mut ready) = ready {
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}
