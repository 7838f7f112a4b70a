//! Runs the flood generator: one CPU, by bursts of a millisecond, out of one device.
//!
//! A run of more than one frame enters its program into the kernel's XDP dispatcher and takes it
//! out again, which waits for all CPUs: 30 ms a run. A program that is attached to some device is
//! in the dispatcher already, so the generator's is attached to a link that carries nothing.

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, TestRun as _, TestRunAttrs, TestRunOptions,
    maps::{Array, PerCpuArray},
    programs::{ProgramError, Xdp, XdpMode},
};
use rustix::net::netdevice::name_to_index;

use crate::{
    cpus::Cpus,
    netns::Handle,
    object,
    recipe::{self, FloodKind, Made, Rate, Route, layout::Recipe},
    router::IDLE,
};

/// A burst of a paced flood.
const TICK: Duration = Duration::from_millis(1);
/// Frames sent before the receiver polls: a NAPI poll takes as many, and a veth's queue holds 256.
const BATCH: u32 = 64;
/// Frames of one run at full speed; between runs the generator looks whether it shall stop.
const FULL_SPEED_RUN: u32 = 64 * BATCH;

/// What a flood is.
#[derive(Clone, Copy, Debug)]
pub struct FloodPlan {
    /// Kind of packets and sources.
    pub kind: FloodKind,
    /// Packets a second.
    pub rate: Rate,
    /// Where they go.
    pub route: Route,
}

/// What a flood did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flooded {
    /// Frames made and handed to the device.
    pub offered: u64,
    /// How long it took.
    pub lasted: Duration,
}

/// A flood under way; dropped, it stops.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Flooded>>>,
}

impl Flood {
    /// Starts a flood out of `device` of the namespace.
    pub fn start(plan: FloodPlan, from: (&Handle, &'static str), cpus: Cpus) -> Result<Self> {
        let (namespace, device) = from;
        let made = recipe::recipe(plan.kind, plan.route)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = namespace.spawn("lab-flood", move || {
            cpus.enter_flood()?;
            Generator::load(&made, plan.rate, device)?.run(&stopped)
        })?;
        Ok(Self { stop, thread: Some(thread) })
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
    let made = recipe::recipe(kind, route)?;
    let mut object = load_recipe(&made.recipe)?;
    let program = object::program(&mut object, "lab_flood")?;
    let input = vec![0; made.frame_length];
    let sampled = (0..frames).map(|_| {
        let mut frame = vec![0; input.len()];
        let options = TestRunOptions {
            data_in: Some(&input),
            data_out: Some(&mut frame),
            ..TestRunOptions::default()
        };
        program.test_run(options).context("the kernel does not run the generator")?;
        Ok(frame)
    });
    sampled.collect()
}

fn load_recipe(recipe: &Recipe) -> Result<Ebpf> {
    let mut object = object::load()?;
    let map = object.map_mut("lab_recipe").context("no map lab_recipe")?;
    Array::<_, Recipe>::try_from(map)?.set(0, *recipe, 0)?;
    Ok(object)
}

/// The generator, loaded, aimed at a device.
struct Generator {
    object: Ebpf,
    rate: Rate,
    input: Vec<u8>,
    context: [u8; 24],
}

impl Generator {
    /// Must run inside the device's namespace: the kernel looks the device up there.
    fn load(made: &Made, rate: Rate, device: &str) -> Result<Self> {
        let mut object = load_recipe(&made.recipe)?;
        object::program(&mut object, "lab_flood")?
            .attach(IDLE, XdpMode::Driver)
            .with_context(|| format!("cannot attach the generator to {IDLE}"))?;
        let input = vec![0; made.frame_length];
        let context = xdp_md(input.len(), interface_index(device)?)?;
        Ok(Self { object, rate, input, context })
    }

    fn run(self, stop: &AtomicBool) -> Result<Flooded> {
        let started = Instant::now();
        match self.rate {
            Rate::Full => {
                while !stop.load(Ordering::Relaxed) {
                    self.burst(FULL_SPEED_RUN)?;
                }
            }
            Rate::PerSecond(rate) => self.run_paced(rate, started, stop)?,
        }
        Ok(Flooded { lasted: started.elapsed(), offered: self.offered()? })
    }

    fn run_paced(&self, rate: u32, started: Instant, stop: &AtomicBool) -> Result<()> {
        let mut next = started;
        let mut credit = 0.0;
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if next > now {
                std::thread::sleep(next - now);
            } else if now - next > 10 * TICK {
                // A receiver that cannot keep up is not flooded all the harder afterwards.
                next = now;
            }
            next += TICK;
            credit += f64::from(rate) * TICK.as_secs_f64();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a burst is a small positive number"
            )]
            let burst = credit as u32;
            credit -= f64::from(burst);
            if burst > 0 {
                self.burst(burst)?;
            }
        }
        Ok(())
    }

    fn burst(&self, frames: u32) -> Result<()> {
        let program = self.object.program("lab_flood").context("no program lab_flood")?;
        let program: &Xdp = program.try_into()?;
        let options = TestRunOptions {
            data_in: Some(&self.input),
            ctx_in: Some(&self.context),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        };
        match program.test_run(options) {
            Ok(_) => Ok(()),
            // A signal ends the run; whoever handles it stops the flood.
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::Interrupted =>
            {
                Ok(())
            }
            Err(error) => Err(error).context("the kernel does not run the flood"),
        }
    }

    fn offered(&self) -> Result<u64> {
        let map = self.object.map("lab_offered").context("no map lab_offered")?;
        let per_cpu = PerCpuArray::<_, u64>::try_from(map)?.get(&0, 0)?;
        Ok(per_cpu.iter().sum())
    }
}

/// The index of a device of this thread's namespace.
pub(crate) fn interface_index(device: &str) -> Result<u32> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot make a socket")?;
    name_to_index(socket, device).with_context(|| format!("cannot find the device {device}"))
}

/// `struct xdp_md` for a frame of `length` bytes that came from the device `index`.
fn xdp_md(length: usize, index: u32) -> Result<[u8; 24]> {
    let data_end = u32::try_from(length).context("a frame is too long")?;
    let (data, data_meta, rx_queue_index, egress_ifindex) = (0, 0, 0, 0);
    let fields: [u32; 6] = [data, data_end, data_meta, index, rx_queue_index, egress_ifindex];
    let mut bytes = [0; 24];
    for (to, field) in bytes.chunks_exact_mut(4).zip(fields) {
        to.copy_from_slice(&field.to_ne_bytes());
    }
    Ok(bytes)
}
