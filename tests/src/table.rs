//! Watches the conntrack table of a namespace: how full, and what the kernel refused.

use std::{
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
use netlink_packet_core::{
    ErrorBuffer, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use serde::{Deserialize, Serialize};

use crate::{conntrack, netns::Handle, sysctl};

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

/// What the kernel's own counters say of a namespace (`/proc/net/stat/nf_conntrack`).
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
    namespace.run(|| request(DELETE, NLM_F_ACK).context("cannot flush the table"))
}

/// Lists the namespace's table, on which the kernel removes what has expired
/// (`ctnetlink_dump_table`, `net/netfilter/nf_conntrack_netlink.c`); else it may count for a minute.
pub fn remove_expired(namespace: &Handle) -> Result<()> {
    namespace.run(|| request(GET, NLM_F_DUMP).context("cannot list the table"))
}

/// `NFNL_SUBSYS_CTNETLINK << 8` with `IPCTNL_MSG_CT_GET` and `IPCTNL_MSG_CT_DELETE`.
const GET: u16 = 0x101;
const DELETE: u16 = 0x102;
/// `struct nlmsghdr` and `struct nfgenmsg`.
const HEADER_BYTES: usize = 16;
const REQUEST_BYTES: usize = HEADER_BYTES + 4;

/// Sends ctnetlink a request about the whole table and waits until it is done.
fn request(kind: u16, flags: u16) -> Result<()> {
    let socket = conntrack::open(0)?;
    let mut bytes = [0; REQUEST_BYTES];
    let mut header = NetlinkBuffer::new(&mut bytes[..]);
    header.set_length(u32::try_from(REQUEST_BYTES)?);
    header.set_message_type(kind);
    header.set_flags(NLM_F_REQUEST | flags);
    send(&socket, &bytes, SendFlags::empty())?;
    let mut buffer = vec![0_u8; 1 << 16];
    loop {
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        let mut messages = &buffer[..length];
        while !messages.is_empty() {
            let message = NetlinkBuffer::new_checked(messages)?;
            match message.message_type() {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let code = ErrorBuffer::new_checked(message.payload())?.code();
                    return code.map_or(Ok(()), |code| {
                        Err(std::io::Error::from_raw_os_error(code.get().abs()).into())
                    });
                }
                _ => {}
            }
            let end = usize::try_from(message.length())?.next_multiple_of(4);
            messages = messages.get(end..).unwrap_or_default();
        }
    }
}

/// The kernel's counters for the namespace, since it was made.
pub fn kernel_counters(namespace: &Handle) -> Result<KernelCounters> {
    namespace.run(|| {
        let path = "/proc/thread-self/net/stat/nf_conntrack";
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        parse_counters(&text).with_context(|| format!("cannot understand {path}"))
    })
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

/// Sums each column over the CPUs; the numbers are hexadecimal.
fn parse_counters(text: &str) -> Option<KernelCounters> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next()?.split_whitespace().collect();
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
    let column = |name: &str| {
        let at = names.iter().position(|found| *found == name)?;
        let values = rows.iter().map(|row| u64::from_str_radix(row.get(at)?, 16).ok());
        values.sum::<Option<u64>>()
    };
    let (drop, insert_failed) = (column("drop")?, column("insert_failed")?);
    // `nf_ct_resolve_clash` (net/netfilter/nf_conntrack_core.c) counts a lost race as `drop` and as
    // `insert_failed`; `__nf_conntrack_confirm` counts a chain that is too long as the latter
    // and as `chaintoolong`, whose column is called `chainlength`.
    let clash_lost = insert_failed.saturating_sub(column("chainlength")?).min(drop);
    Some(KernelCounters {
        drop: drop - clash_lost,
        clash_lost,
        early_drop: column("early_drop")?,
        insert_failed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_hexadecimal_and_summed_over_cpus() {
        let text = "entries  insert_failed drop early_drop chainlength\n\
                    00000001 00000001 0000000a 00000000 00000001\n\
                    00000001 00000000 00000010 00000002 00000000\n";
        let expected = KernelCounters { drop: 26, clash_lost: 0, early_drop: 2, insert_failed: 1 };
        assert_eq!(parse_counters(text), Some(expected));
    }

    #[test]
    fn a_lost_clash_is_no_full_table() {
        let text = "insert_failed drop early_drop chainlength\n\
                    00000005 00000007 00000000 00000001\n";
        let expected = KernelCounters { drop: 3, clash_lost: 4, early_drop: 0, insert_failed: 5 };
        assert_eq!(parse_counters(text), Some(expected));
    }

    #[test]
    fn a_missing_column_is_no_answer() {
        assert_eq!(parse_counters("entries drop\n00000001 00000000\n"), None);
    }
}
