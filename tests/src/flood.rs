//! Runs a flood: one CPU, in small bursts, out of one device.

mod chance;
mod fits;
mod generator;
mod later;

use std::{
    net::{Ipv4Addr, UdpSocket},
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Sender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::{net::netdevice::name_to_index, thread::set_current_timer_slack};

use crate::{
    addresses::Family,
    cpus::Cpus,
    mixing::Arrivals,
    netns::Handle,
    random,
    recipe::{self, Again, FloodKind, Rate, Route},
    router::{ISP, Network},
    syscall,
};

use chance::Chance;
use fits::Fits;
use generator::{FULL_SPEED_RUN, Generator};
use later::Later;

pub use generator::Sampler;

/// Between two bursts of a paced flood: of 500,000 packets a second each has 125, half of what
/// the router's queue holds.
const TICK: Duration = Duration::from_micros(250);
/// A flood that fell further behind than this does not catch up.
const LATE: Duration = Duration::from_millis(10);
/// A paced flood does not wait for the clients with which it may share a CPU; it takes a part of it.
const PRIORITY: i32 = 3;
/// Connections under way when a flood ends may end, too.
const LINGER: Duration = Duration::from_millis(50);

/// What a flood is.
#[derive(Clone, Copy, Debug)]
struct FloodPlan {
    kind: FloodKind,
    rate: Rate,
    route: Route,
    /// Of spoofed addresses, how many of the last bits vary instead of all 28.
    source_bits: Option<u32>,
}

/// What a flood did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flooded {
    /// Frames made and handed to the device.
    pub offered: u64,
    /// How long it took.
    pub lasted: Duration,
    /// Of sources that complete their connections: SYN-ACKs that each of them saw, which is how
    /// many of its SYNs got through. Empty in other floods.
    pub per_source: Vec<u64>,
    /// Connections that were closed by both sides.
    pub completed: u64,
    /// Challenges that were answered, each connection counted once.
    pub challenged: u64,
    /// Frames that were sent before.
    pub sent_again: u64,
    /// The seed of a flood whose parts start and stop at random.
    pub seed: Option<u64>,
}

/// A flood under way; dropped, it stops.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Flooded>>>,
}

impl Flood {
    /// Starts a flood out of `device` of the namespace; `others` arrive among its packets. Returns
    /// when its generator is loaded, which the kernel's verifier may take half a second for.
    fn start(
        plan: FloodPlan,
        from: (&Handle, &'static str),
        others: Option<Arc<Arrivals>>,
        cpus: Cpus,
    ) -> Result<Self> {
        let (namespace, device) = from;
        let run = Run::new(plan)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (loaded, ready) = mpsc::channel();
        let thread = namespace.spawn("lab-flood", move || {
            cpus.enter_flood()?;
            run.make(device, others.as_deref(), &loaded, &stopped)
        })?;
        let flood = Self { stop, thread: Some(thread) };
        match ready.recv() {
            Ok(()) => Ok(flood),
            Err(_) => flood.stop().and_then(|_| bail!("the flood ended before it began")),
        }
    }

    /// Whether it goes on.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Starts a flood of this kind through a router, towards a port of its address of the family.
    pub fn through(
        network: &Network,
        kind: FloodKind,
        rate: Rate,
        to: (Family, u16),
        cpus: Cpus,
    ) -> Result<Self> {
        Self::with_sources(network, (kind, None), rate, to, cpus)
    }

    /// The same of an IPv4 flood that has only 2^`bits` of the spoofed sources.
    pub fn of_sources(
        network: &Network,
        kind: FloodKind,
        bits: u32,
        rate: Rate,
        to: (Family, u16),
        cpus: Cpus,
    ) -> Result<Self> {
        Self::with_sources(network, (kind, Some(bits)), rate, to, cpus)
    }

    fn with_sources(
        network: &Network,
        (kind, source_bits): (FloodKind, Option<u32>),
        rate: Rate,
        to: (Family, u16),
        cpus: Cpus,
    ) -> Result<Self> {
        let way = network.flood_way(kind)?;
        let (family, port) = to;
        let route = Route { link: way.link, family, port };
        let others = (way.from.1 == ISP).then(|| Arc::clone(network.arrivals()));
        Self::start(FloodPlan { kind, rate, route, source_bits }, way.from, others, cpus)
    }

    /// Stops the flood and tells what it did.
    pub fn stop(mut self) -> Result<Flooded> {
        self.end().context("the flood was stopped before")?
    }

    fn end(&mut self) -> Option<Result<Flooded>> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take()?.join();
        Some(ended.unwrap_or_else(|_| Err(anyhow!("the flood's thread panicked"))))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.end();
    }
}

/// Frames of a flood, made by the generator's program and sent nowhere.
pub fn sample(kind: FloodKind, route: Route, frames: usize) -> Result<Vec<Vec<u8>>> {
    Sampler::load(kind, route)?.frames(frames)
}

/// A flood about to be made.
struct Run {
    plan: FloodPlan,
    made: recipe::Made,
    later: Option<Later>,
    closing: Option<Later>,
    fits: Option<Fits>,
    seed: Option<u64>,
}

impl Run {
    fn new(plan: FloodPlan) -> Result<Self> {
        let seed = plan.kind.is_fitful().then(random::seed).transpose()?;
        let mut made = recipe::recipe(plan.kind, plan.route)?;
        if let Some(bits) = plan.source_bits {
            let fewer = 1_u32.checked_shl(bits).map_or(u32::MAX, |sources| sources - 1).to_be();
            made.recipe.strands.iter_mut().for_each(|strand| strand.spoofed &= fewer);
        }
        Ok(Self {
            plan,
            made,
            later: plan.kind.again().map(|again| match again {
                Again::All(after) | Again::Challenged(after) => Later::new(after),
            }),
            closing: plan.kind.closed_after().map(Later::new),
            fits: seed.map(Fits::new),
            seed,
        })
    }

    /// Must run inside the device's namespace.
    fn make(
        mut self,
        device: &str,
        others: Option<&Arrivals>,
        loaded: &Sender<()>,
        stop: &AtomicBool,
    ) -> Result<Flooded> {
        let answers = self.plan.kind.sources().answer();
        // The kernel rounds sleeps up to 50 µs else.
        set_current_timer_slack(NonZeroU64::new(1)).context("cannot sleep precisely")?;
        if self.plan.rate != Rate::Full {
            let _ = syscall::become_real_time(None, PRIORITY);
        }
        let mut generator = Generator::load(&self.made, device)?;
        if answers {
            generator.answer_on(device)?;
        }
        // Who started it waits for this, unless it panicked.
        let _ = loaded.send(());
        let started = Instant::now();
        let mut mixing = others.map(Arrivals::mix);
        let mut chance = Chance::new(device, started);
        let mut pace = Pace::new(self.new_rate(), started);
        let mut first_time = 0;
        while !stop.load(Ordering::Relaxed) {
            let mut frames = pace.next_burst();
            let now = Instant::now();
            if let Some(fits) = &mut self.fits {
                match fits.parts(now - started) {
                    Some(parts) => {
                        let strands = parts.map(|part| self.made.recipe.strands[part]);
                        generator.take_strands(&strands)?;
                    }
                    None => frames = 0,
                }
            }
            if self.plan.kind.rests(now - started) {
                frames = 0;
            }
            first_time += u64::from(frames);
            if let Some(closing) = &mut self.closing {
                let due = closing.due(now, first_time);
                if due > 0 {
                    generator.close(closing.passed())?;
                }
                frames += due;
            }
            if let Some(later) = &mut self.later {
                let seen = if answers { generator.challenged()? } else { first_time };
                let again = later.due(now, seen);
                if again > 0 {
                    generator.send_again(later.passed())?;
                }
                frames += again;
            }
            if let Some(mixing) = &mut mixing {
                // What comes first finds the queue's free places; its chance is that of all.
                mixing.deliver(chance.lost_of_million(now, &generator)?);
            }
            generator.burst(frames)?;
        }
        let lasted = started.elapsed();
        let sent_again = self.later.as_ref().map_or(0, Later::passed);
        let offered = generator.offered()?;
        let mut flooded =
            Flooded { offered, lasted, sent_again, seed: self.seed, ..Flooded::default() };
        if answers {
            std::thread::sleep(LINGER);
            flooded.per_source = generator.accepted(self.made.recipe.strands[0].crowd)?;
            flooded.completed = generator.completed()?;
            flooded.challenged = generator.challenged()?;
        }
        Ok(flooded)
    }

    /// The rate of packets that were not sent before.
    fn new_rate(&self) -> Rate {
        match (self.plan.rate, self.plan.kind.again()) {
            (Rate::PerSecond(rate), Some(Again::All(_))) => Rate::PerSecond(rate / 2),
            (rate, Some(Again::All(_) | Again::Challenged(_)) | None) => rate,
        }
    }
}

/// When bursts are due, and how many frames they have.
struct Pace {
    rate: Rate,
    next: Instant,
    credit: f64,
}

impl Pace {
    fn new(rate: Rate, started: Instant) -> Self {
        Self { rate, next: started, credit: 0.0 }
    }

    /// Waits for the next burst and tells its frames.
    fn next_burst(&mut self) -> u32 {
        let Rate::PerSecond(rate) = self.rate else { return FULL_SPEED_RUN };
        let now = Instant::now();
        // Not even what fell behind comes all at once: no wire does.
        let wait = self.next.saturating_duration_since(now);
        std::thread::sleep(wait.max(TICK / 2));
        if now - self.next > LATE {
            // A generator that stalled does not flood all the harder afterwards.
            self.next = now;
        }
        self.next += TICK;
        self.credit += f64::from(rate) * TICK.as_secs_f64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a burst is a small positive number"
        )]
        let burst = self.credit as u32;
        self.credit -= f64::from(burst);
        burst
    }
}

/// The index of a device of this thread's namespace.
pub(crate) fn interface_index(device: &str) -> Result<u32> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot make a socket")?;
    name_to_index(socket, device).with_context(|| format!("cannot find the device {device}"))
}
