//! What a process costs: CPU time and memory, from its own files under `/proc`.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// What ctguard's daemon costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DaemonCost {
    /// Share of a core before any traffic; null where nobody measured.
    pub idle_cpu_ratio: Option<f64>,
    /// Share of a core in the flood.
    pub flood_cpu_ratio: Option<f64>,
    /// Resident bytes at the flood's end, without the mapped maps.
    pub resident_bytes: Option<u64>,
    /// Those of them that no file holds (`RssAnon`).
    pub anonymous_bytes: Option<u64>,
}

/// The CPU time of a process at one moment.
#[derive(Clone, Copy, Debug)]
pub struct CpuMeter {
    pid: u32,
    since: Instant,
    used: Duration,
}

impl CpuMeter {
    /// Starts measuring.
    pub fn start(pid: u32) -> Result<Self> {
        Ok(Self { pid, since: Instant::now(), used: cpu_time(pid)? })
    }

    /// The share of a core that the process used since.
    pub fn ratio(&self) -> Result<f64> {
        let used = cpu_time(self.pid)?.saturating_sub(self.used);
        Ok(used.as_secs_f64() / self.since.elapsed().as_secs_f64().max(f64::MIN_POSITIVE))
    }

    /// Notes what the process cost since, as a flood's.
    pub fn note_flood(&self, cost: &mut DaemonCost) -> Result<()> {
        let (resident, anonymous) = memory(self.pid)?;
        cost.flood_cpu_ratio = Some(self.ratio()?);
        cost.resident_bytes = Some(resident);
        cost.anonymous_bytes = Some(anonymous);
        Ok(())
    }
}

/// Time on a CPU, in user and kernel mode, of all threads: `utime` and `stime` of
/// `/proc/PID/stat` are the same in steps of 10 ms, too coarse for 0.2 % of a core.
fn cpu_time(pid: u32) -> Result<Duration> {
    let directory = format!("/proc/{pid}/task");
    let mut sum = Duration::ZERO;
    for thread in fs::read_dir(&directory).with_context(|| format!("cannot list {directory}"))? {
        // A thread may end meanwhile.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        sum += first_of(&text)?;
    }
    Ok(sum)
}

/// The same of one thread, which may be the kernel's.
pub(crate) fn thread_time(thread: i32) -> Result<Duration> {
    let path = format!("/proc/{thread}/schedstat");
    first_of(&fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?)
}

fn first_of(schedstat: &str) -> Result<Duration> {
    let nanoseconds = schedstat.split_whitespace().next().and_then(|word| word.parse().ok());
    Ok(Duration::from_nanos(nanoseconds.context("cannot understand schedstat")?))
}

/// Resident bytes: those of all mappings but eBPF maps, and those that no file holds.
fn memory(pid: u32) -> Result<(u64, u64)> {
    let path = format!("/proc/{pid}/smaps");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(resident(&text))
}

/// Sums `Rss` and `Anonymous` of the mappings in `/proc/PID/smaps` that are no eBPF maps.
fn resident(smaps: &str) -> (u64, u64) {
    let (mut resident, mut anonymous, mut is_map) = (0, 0, false);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        let mut kilobytes = || words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        match first {
            "Rss:" if !is_map => resident += 1024 * kilobytes(),
            "Anonymous:" if !is_map => anonymous += 1024 * kilobytes(),
            // A mapping's own line starts with its addresses, its fields with a name.
            _ if !first.ends_with(':') => is_map = line.contains("anon_inode:bpf-map"),
            _ => {}
        }
    }
    (resident, anonymous)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_maps_are_not_memory_of_the_daemon() {
        let smaps = "55d0-55d4 r-xp 0 fe:00 1 /usr/bin/ctguard\nRss:  16 kB\nAnonymous: 4 kB\n\
                     7f00-7f20 rw-s 0 00:0f 7 anon_inode:bpf-map\nRss: 2048 kB\nAnonymous: 0 kB\n\
                     7f30-7f40 rw-p 0 00:00 0 \nRss:  8 kB\nAnonymous: 8 kB\nVmFlags: rd wr\n";
        assert_eq!(resident(smaps), (24 * 1024, 12 * 1024));
    }

    #[test]
    fn a_busy_process_uses_a_core() {
        let meter = CpuMeter::start(std::process::id()).expect("this process has files");
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(200) {
            std::hint::black_box(());
        }
        let ratio = meter.ratio().expect("this process has files");
        assert!(ratio > 0.2, "{ratio} of a core");
    }
}
