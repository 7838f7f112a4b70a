//! Watches the conntrack table of a namespace: how full, and what the kernel refused.

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::fs::FileExt as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use ctguard_kernel::{conntrack, net::conntrack_counters};
use serde::{Deserialize, Serialize};

use crate::{netns::Handle, sysctl};

/// How often the count is read, so that no peak is missed.
const PERIOD: Duration = Duration::from_millis(5);
/// How far apart the points of the series are; each is the highest count since the last.
const STEP: Duration = Duration::from_millis(100);

/// The count at one time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FillPoint {
    /// Seconds since the run began.
    pub seconds: f64,
    /// Entries, the highest number since the last point.
    pub count: u64,
}

/// What the kernel's own counters say of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelCounters {
    /// New flows dropped because the table was full; the kernel's counter of the same name less
    /// `clash_lost`.
    pub drop: u64,
    /// Packets that lost their place to an entry of the same tuple, confirmed meanwhile. A flood
    /// makes them: the kernel takes the packets of one poll through prerouting together
    /// (`ip_list_rcv`), so two SYNs of one tuple among them are both new.
    #[serde(default)]
    pub clash_lost: u64,
    /// Entries evicted to make room.
    pub early_drop: u64,
    /// Entries that lost a race, or found no free port.
    pub insert_failed: u64,
}

/// A thread that samples the count until it is stopped.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    points: Arc<Mutex<Vec<FillPoint>>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Watch {
    /// Starts sampling the namespace's table; times count from `zero`.
    pub fn start(namespace: &Handle, zero: Instant) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let points = Arc::new(Mutex::new(Vec::new()));
        let (stopped, shared) = (Arc::clone(&stop), Arc::clone(&points));
        let thread = namespace.spawn("lab-table", move || sample(zero, &stopped, &shared))?;
        Ok(Self { stop, points, thread: Some(thread) })
    }

    /// Stops sampling and returns the series.
    pub fn stop(mut self) -> Result<Vec<FillPoint>> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the watch was stopped before")?;
        thread.join().map_err(|_| anyhow!("the table's watch panicked"))??;
        Ok(std::mem::take(&mut self.points.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Entries in the namespace's table.
pub fn count(namespace: &Handle) -> Result<u64> {
    namespace.run(|| read_count(&open_count()?))
}

/// Empties the namespace's table, as `conntrack -F` does.
pub fn flush(namespace: &Handle) -> Result<()> {
    namespace.run(|| {
        conntrack::testing::empty();
        Ok(())
    })
}

/// Lists the namespace's table, on which the kernel removes what has expired
/// (`ctnetlink_dump_table`, `net/netfilter/nf_conntrack_netlink.c`); else it may count for a minute.
pub fn remove_expired(namespace: &Handle) -> Result<()> {
    namespace.run(|| conntrack::dump(|_| ()).map(|_| ()).context("cannot list the table"))
}

/// The kernel's counters for the namespace, since it was made.
pub fn kernel_counters(namespace: &Handle) -> Result<KernelCounters> {
    let sums = namespace.run(|| conntrack_counters().context("cannot ask for the counters"))?;
    interpret(&sums).with_context(|| format!("a counter is missing: {sums:?}"))
}

fn sample(zero: Instant, stop: &AtomicBool, points: &Mutex<Vec<FillPoint>>) -> Result<()> {
    let file = open_count()?;
    let mut highest = 0;
    let mut next = zero;
    loop {
        let stopped = stop.load(Ordering::Relaxed);
        highest = highest.max(read_count(&file)?);
        let now = Instant::now();
        // The last point comes early: what was seen since the one before counts too.
        if now >= next || stopped {
            let seconds = now.saturating_duration_since(zero).as_secs_f64();
            let point = FillPoint { seconds, count: std::mem::take(&mut highest) };
            points.lock().unwrap_or_else(PoisonError::into_inner).push(point);
            next += STEP;
        }
        if stopped {
            return Ok(());
        }
        std::thread::sleep(PERIOD);
    }
}

fn open_count() -> Result<File> {
    let path = sysctl::path("net.netfilter.nf_conntrack_count");
    File::open(&path).with_context(|| format!("cannot open {}", path.display()))
}

fn read_count(file: &File) -> Result<u64> {
    let mut digits = [0; 24];
    let length = file.read_at(&mut digits, 0).context("cannot read the table's count")?;
    let text = std::str::from_utf8(&digits[..length]).unwrap_or_default();
    text.trim().parse().with_context(|| format!("the table's count is {text:?}"))
}

fn interpret(sums: &BTreeMap<String, u64>) -> Option<KernelCounters> {
    let of = |name| sums.get(name).copied();
    let (drop, insert_failed) = (of("drop")?, of("insert_failed")?);
    // `nf_ct_resolve_clash` (net/netfilter/nf_conntrack_core.c) counts a lost race as `drop` and as
    // `insert_failed`; `__nf_conntrack_confirm` counts a chain that is too long as the latter
    // and as `chaintoolong`, whose column is called `chainlength`.
    let clash_lost = insert_failed.saturating_sub(of("chainlength")?).min(drop);
    Some(KernelCounters {
        drop: drop - clash_lost,
        clash_lost,
        early_drop: of("early_drop")?,
        insert_failed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_clash_is_no_full_table() {
        let sums = [("insert_failed", 5), ("drop", 7), ("early_drop", 0), ("chainlength", 1)];
        let sums = sums.map(|(name, sum)| (name.to_owned(), sum)).into();
        let expected = KernelCounters { drop: 3, clash_lost: 4, early_drop: 0, insert_failed: 5 };
        assert_eq!(interpret(&sums), Some(expected));
    }

    #[test]
    fn a_missing_counter_is_no_answer() {
        assert_eq!(interpret(&BTreeMap::from([("drop".to_owned(), 0)])), None);
    }
}
