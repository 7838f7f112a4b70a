//! Dumps the whole table over ctnetlink, in the network namespace of the calling thread.
//!
//! The kernel walks the hash bucket by bucket. When a message is full, it continues in the same
//! bucket at the entry that did not fit, or at the bucket's start if that entry is gone
//! (`ctnetlink_dump_table`, `net/netfilter/nf_conntrack_netlink.c`). So an entry that exists
//! throughout is listed at least once, and any entry may be listed twice. A resize of the hash
//! (`nf_conntrack_hash_resize`) may move entries into buckets that are done. The kernel does not
//! report it, because `ctnetlink_dump_table` never calls `nl_dump_check_consistent`, which would set
//! `NLM_F_DUMP_INTR`. So the number of buckets is read again after each message. Second entries of a
//! lost race (`nf_ct_resolve_clash_harder`), which live for a second, are never listed.

use std::{
    io,
    ops::ControlFlow,
    path::Path,
    time::{Duration, Instant},
};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use rustix::net::{RecvFlags, netlink::NETFILTER};
use thiserror::Error;

use super::{delete::Deletion, entry::Entry, message::message, table::Setting};
use crate::{
    net::netlink::{Answer, BUFFER_LENGTH, NFGENMSG_LENGTH, Socket},
    privileges::remedy,
};

/// Number of buckets of the hash, which all network namespaces share.
const BUCKETS: &str = "/proc/sys/net/netfilter/nf_conntrack_buckets";

/// How long a dump may take: as long as a generation of known flows lasts. It is enough for tens of
/// millions of entries.
const LONGEST: Duration = Duration::from_mins(1);
/// `NFNL_SUBSYS_CTNETLINK << 8` with `IPCTNL_MSG_CT_NEW` and `IPCTNL_MSG_CT_GET`.
pub(super) const ENTRY: u16 = 0x100;
pub(super) const GET: u16 = 0x101;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Entries listed; those listed twice count twice.
    pub entries: u64,
    /// Entries that could not be decoded and were left out.
    pub unread: u64,
    pub completeness: Completeness,
}

/// Whether every entry that existed throughout was listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    Complete,
    /// The hash was resized meanwhile, the kernel reported an interruption, an entry could not be
    /// decoded, or the reader stopped early.
    Interrupted,
}

#[derive(Debug, Error)]
pub enum DumpError {
    #[error(
        "this kernel tracks no connections ({BUCKETS} is missing); load the module: \
         modprobe nf_conntrack"
    )]
    Untracked,
    #[error(
        "this kernel cannot list the connections that it tracks; load the module: \
         modprobe nf_conntrack_netlink"
    )]
    Absent,
    #[error("the kernel refuses to list connections; {}", remedy("CAP_NET_ADMIN"))]
    Refused,
    #[error("the list of connections had no end after {} s", LONGEST.as_secs())]
    Endless,
    #[error("cannot {action}")]
    Io { action: &'static str, source: io::Error },
}

/// Passes every entry of both families to `each`, some of them twice.
///
/// Blocks, about two seconds for a million entries.
pub fn dump(mut each: impl FnMut(&Entry)) -> Result<Summary, DumpError> {
    read_table(&mut |entry, _| {
        each(entry);
        ControlFlow::Continue(())
    })
}

/// Passes entries to `each` until it breaks off.
///
/// The hash has no order, so the first entries are a fair sample of all.
pub fn dump_some(mut each: impl FnMut(&Entry) -> ControlFlow<()>) -> Result<Summary, DumpError> {
    read_table(&mut |entry, _| each(entry))
}

/// Passes every entry to `each`, with what it takes to delete it.
pub fn dump_deletable(
    mut each: impl FnMut(&Entry, &dyn Fn() -> Option<Deletion>),
) -> Result<Summary, DumpError> {
    read_table(&mut |entry, attributes| {
        each(entry, &|| Deletion::of(entry, attributes));
        ControlFlow::Continue(())
    })
}

/// Takes an entry and its attributes as the kernel wrote them.
pub(super) type Reader<'r> = &'r mut dyn FnMut(&Entry, &[u8]) -> ControlFlow<()>;

pub(super) fn read_table(each: Reader<'_>) -> Result<Summary, DumpError> {
    // First, because a request over netlink makes the kernel load conntrack.
    let buckets = match Setting::open(Path::new(BUCKETS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(DumpError::Untracked),
        opened => opened.map_err(buckets_error)?,
    };
    let before = buckets.read().map_err(buckets_error)?;
    let socket = open().map_err(io_error)?;
    socket.send(&request_bytes()).map_err(io_error)?;
    let mut summary = Summary { entries: 0, unread: 0, completeness: Completeness::Complete };
    let mut buffer = vec![0; BUFFER_LENGTH];
    let started = Instant::now();
    loop {
        let datagram = socket.receive(&mut buffer, RecvFlags::empty()).map_err(io_error)?;
        let last = summary.read(datagram, each)?;
        if buckets.read().map_err(buckets_error)? != before {
            summary.completeness = Completeness::Interrupted;
        }
        if last {
            return Ok(summary);
        }
        if started.elapsed() > LONGEST {
            return Err(DumpError::Endless);
        }
    }
}

impl Summary {
    /// Whether the dump ends with this datagram.
    fn read(&mut self, datagram: &[u8], each: Reader<'_>) -> Result<bool, DumpError> {
        let mut answer = Answer::default();
        let read = answer.read(datagram, |kind, payload| self.add(kind, payload, each));
        if answer.is_interrupted {
            self.completeness = Completeness::Interrupted;
        }
        read.map(|()| answer.has_ended).map_err(io_error)
    }

    fn add(&mut self, kind: u16, payload: &[u8], each: Reader<'_>) -> ControlFlow<()> {
        let attributes = payload.get(NFGENMSG_LENGTH..).unwrap_or_default();
        let Some(entry) = Entry::decode(attributes).filter(|_| kind == ENTRY) else {
            self.unread += 1;
            self.completeness = Completeness::Interrupted;
            return ControlFlow::Continue(());
        };
        self.entries += 1;
        let flow = each(&entry, attributes);
        if flow.is_break() {
            self.completeness = Completeness::Interrupted;
        }
        flow
    }
}

fn io_error(source: io::Error) -> DumpError {
    match source.raw_os_error() {
        Some(libc::EPERM) => DumpError::Refused,
        // `nfnetlink_rcv_msg` has no such subsystem, or there is no nfnetlink. A dump has no argument
        // for which ctnetlink itself would answer so.
        Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT) => DumpError::Absent,
        _ => DumpError::Io { action: "list connections", source },
    }
}

pub(super) fn open() -> io::Result<Socket> {
    Socket::open(Some(NETFILTER))
}

fn request_bytes() -> Vec<u8> {
    message(GET, NLM_F_REQUEST | NLM_F_DUMP, 0, &[])
}

fn buckets_error(source: io::Error) -> DumpError {
    DumpError::Io { action: "read the size of the connection table's hash", source }
}

#[cfg(test)]
mod tests;
