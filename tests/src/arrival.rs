//! Makes arrival independent of the router: each end of its links receives in a kernel thread of
//! its own (NAPI, `/sys/class/net/DEVICE/threaded`), the router's ends on the router's CPU.
//!
//! Left alone, a veth's receiver works in the sender's thread, so a slow router slows its own
//! flood down. A network card does not wait: what finds the queue full is lost.

use std::{collections::HashSet, fs, process::Command, time::Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::thread::Pid;

use crate::{
    cpus::Cpus,
    exec,
    netns::Handle,
    process,
    router::{ISP, LAN, Network, SERVERS, WAN},
    syscall,
};

/// Like the interrupts that they stand for, these threads go before every process. Of the router's
/// the one where no flood arrives goes first: else a flood would leave it no time.
const PRIORITY: i32 = 4;

/// The threads that receive for the router.
#[derive(Debug)]
pub struct Receivers(Vec<Pid>);

impl Receivers {
    /// Gives each end of the router's links its thread, and each thread its CPU.
    pub fn start(network: &Network, flooded: &str, cpus: Cpus) -> Result<Self> {
        let mut receivers = Self(Vec::new());
        for (namespace, device, in_router) in [
            (&network.router, WAN, true),
            (&network.router, LAN, true),
            (&network.internet, ISP, false),
            (&network.inside, SERVERS, false),
        ] {
            for thread in thread_of(namespace, device)? {
                cpus.place(thread, in_router)?;
                // Without real time (in some containers) processes get in the router's way.
                let first = i32::from(device != flooded);
                let _ = syscall::become_real_time(Some(thread), PRIORITY + first);
                receivers.0.extend(in_router.then_some(thread));
            }
        }
        Ok(receivers)
    }

    /// Starts measuring the CPU time of the router's packets.
    pub fn meter(&self) -> Result<Meter<'_>> {
        Ok(Meter { receivers: self, since: Instant::now(), used: self.used()? })
    }

    fn used(&self) -> Result<f64> {
        let used = self.0.iter().map(|thread| process::thread_time(thread.as_raw_pid()));
        used.map(|time| time.map(|time| time.as_secs_f64())).sum()
    }
}

/// The CPU time of the router's packets from some moment on.
#[derive(Debug)]
pub struct Meter<'r> {
    receivers: &'r Receivers,
    since: Instant,
    used: f64,
}

impl Meter<'_> {
    /// The share of a CPU since.
    pub fn ratio(&self) -> Result<f64> {
        let used = self.receivers.used()? - self.used;
        Ok(used / self.since.elapsed().as_secs_f64().max(f64::MIN_POSITIVE))
    }
}

/// Switches a device of this namespace to a receiving thread.
fn thread_of(namespace: &Handle, device: &str) -> Result<Vec<Pid>> {
    let before = threads(device)?;
    // Only GRO or a program gives a veth a NAPI instance; and what a device sends that segments TCP
    // goes past it (`veth_skb_is_eligible_for_gro`, drivers/net/veth.c).
    exec::run(namespace.command("ethtool").args(["-K", device, "gro", "on", "tso", "off"]))?;
    let switch = format!("echo 1 > /sys/class/net/{device}/threaded");
    // This gives the command a /sys of the namespace.
    exec::run(Command::new("ip").args(["netns", "exec", namespace.name(), "sh", "-c", &switch]))?;
    let made: Vec<Pid> = threads(device)?.difference(&before).copied().collect();
    ensure!(!made.is_empty(), "the kernel gives {device} no receiving thread (Linux 5.12 does)");
    Ok(made)
}

/// Threads of the kernel that receive for a device of this name.
fn threads(device: &str) -> Result<HashSet<Pid>> {
    let prefix = format!("napi/{device}-");
    let mut found = HashSet::new();
    for process in fs::read_dir("/proc").context("cannot list /proc")?.flatten() {
        let pid = process.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else { continue };
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        found.extend(name.starts_with(&prefix).then_some(pid));
    }
    Ok(found)
}
