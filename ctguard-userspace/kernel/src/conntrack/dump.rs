//! The whole table, read over ctnetlink from the network namespace of the calling thread.
//!
//! The kernel goes through the hash bucket by bucket and, where a message was full, goes on in the
//! same bucket at the entry that did not fit, or at the bucket's start if that one is gone
//! (`ctnetlink_dump_table`, `net/netfilter/nf_conntrack_netlink.c`): an entry may be told twice,
//! and one that lives throughout is told once at least. A resize of the hash
//! (`nf_conntrack_hash_resize`) moves entries into buckets that were passed already, and the
//! kernel tells nobody: `ctnetlink_dump_table` never calls `nl_dump_check_consistent`, which would
//! set `NLM_F_DUMP_INTR`. So the number of buckets is read again after each message. Never told
//! are the second entries of a lost race (`nf_ct_resolve_clash_harder`): they stand in the table
//! by their reply alone, for a second.

use std::{
    io,
    ops::ControlFlow,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use netlink_packet_core::{
    DefaultNla, DoneBuffer, ErrorBuffer, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE,
    NLMSG_ERROR, NLMSG_NOOP, NetlinkBuffer,
};
use rustix::{
    io::{Errno, retry_on_intr},
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect,
        netlink::{self, SocketAddrNetlink},
        recv, send, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};
use thiserror::Error;

use super::{
    entry::Entry,
    message::{HEADER_LENGTH, NFGENMSG_LENGTH, message},
    table::Setting,
    tcp_state::TcpState,
};

const BUCKETS: &str = "/proc/sys/net/netfilter/nf_conntrack_buckets";

/// How long the kernel may say nothing.
const SILENCE: Duration = Duration::from_secs(10);
/// How long a dump may take: as long as a generation of known flows lasts, for tens of millions of
/// entries.
const LONGEST: Duration = Duration::from_mins(1);
/// The kernel fills at most 32 KiB a time (`netlink_recvmsg`).
const BUFFER_LENGTH: usize = 1 << 16;

/// `NFNL_SUBSYS_CTNETLINK << 8` with `IPCTNL_MSG_CT_NEW` and `IPCTNL_MSG_CT_GET`.
const ENTRY: u16 = 0x100;
const GET: u16 = 0x101;

/// `CTA_STATUS` and `CTA_STATUS_MASK`, of `enum ctattr_type`.
const STATUS: u16 = 3;
const STATUS_MASK: u16 = 26;

/// Which entries are asked for, by their `IPS_*` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StatusFilter {
    /// Bits that count, one at least.
    pub(super) mask: u32,
    /// What they must be.
    pub(super) value: u32,
}

impl StatusFilter {
    const fn passes(self, entry: &Entry) -> bool {
        entry.status & self.mask == self.value
    }
}

/// What a dump told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Entries told, those told twice counted twice.
    pub entries: u64,
    /// Entries that could not be read, and were left out.
    pub unread: u64,
    pub completeness: Completeness,
}

/// Whether every entry that lived throughout was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    Complete,
    /// The hash changed its size meanwhile, an entry could not be read, or the reader had enough.
    Interrupted,
}

/// Why the table cannot be dumped.
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
    #[error("the kernel refuses to list connections; run as root, or with CAP_NET_ADMIN")]
    Refused,
    #[error("the kernel went silent while it listed connections, for {} s", SILENCE.as_secs())]
    Silent,
    #[error("the list of connections had no end after {} s", LONGEST.as_secs())]
    Endless,
    #[error("the list of connections is garbled: {0}")]
    Garbled(&'static str),
    #[error("cannot {action}")]
    Io { action: &'static str, source: io::Error },
}

/// Tells every entry of the table, of both families; some may be told twice.
///
/// Blocks, about two seconds for a million entries.
pub fn dump(mut each: impl FnMut(&Entry)) -> Result<Summary, DumpError> {
    read_table(None, &mut |entry, _| {
        each(entry);
        ControlFlow::Continue(())
    })
}

/// Tells entries, each with the state of its connection if it is of TCP, until the reader breaks off.
///
/// The hash has no order, so the first entries of many are a fair sample of them.
pub fn dump_some(
    mut each: impl FnMut(&Entry, Option<TcpState>) -> ControlFlow<()>,
) -> Result<Summary, DumpError> {
    dump_with_attributes(|entry, attributes| each(entry, TcpState::decode(attributes)))
}

/// The same with each entry's attributes as the kernel wrote them.
pub(super) fn dump_with_attributes(
    mut each: impl FnMut(&Entry, &[u8]) -> ControlFlow<()>,
) -> Result<Summary, DumpError> {
    read_table(None, &mut each)
}

/// Tells the entries that pass the filter, each with its attributes as the kernel wrote them, until
/// the reader breaks off.
///
/// Linux that knows no filter by status takes it for nothing and lists all (`nla_parse` passes over
/// attributes beyond its own), so what it sends is filtered again.
pub(super) fn dump_filtered(
    filter: StatusFilter,
    mut each: impl FnMut(&Entry, &[u8]) -> ControlFlow<()>,
) -> Result<Summary, DumpError> {
    read_table(Some(filter), &mut |entry, attributes| {
        if filter.passes(entry) { each(entry, attributes) } else { ControlFlow::Continue(()) }
    })
}

/// Hears of an entry and its attributes, and says whether to go on.
type Reader<'r> = &'r mut dyn FnMut(&Entry, &[u8]) -> ControlFlow<()>;

fn read_table(filter: Option<StatusFilter>, each: Reader<'_>) -> Result<Summary, DumpError> {
    // First, because a request over netlink would have the kernel load a tracker that is missing.
    let buckets = Buckets::open()?;
    let before = buckets.read()?;
    let socket =
        request(filter).map_err(|source| io_error("ask the kernel for connections", source))?;
    let mut summary = Summary { entries: 0, unread: 0, completeness: Completeness::Complete };
    let mut buffer = vec![0; BUFFER_LENGTH];
    let started = Instant::now();
    loop {
        let last = summary.read(receive(&socket, &mut buffer)?, each)?;
        if buckets.read()? != before {
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
    /// Reads what one call received; whether that was the end.
    fn read(&mut self, mut messages: &[u8], each: Reader<'_>) -> Result<bool, DumpError> {
        while !messages.is_empty() {
            let message = NetlinkBuffer::new_checked(messages)
                .map_err(|_| DumpError::Garbled("a message is cut short"))?;
            if message.flags() & NLM_F_DUMP_INTR != 0 {
                self.completeness = Completeness::Interrupted;
            }
            match message.message_type() {
                ENTRY => {
                    if self.tell(message.payload(), each).is_break() {
                        self.completeness = Completeness::Interrupted;
                        return Ok(true);
                    }
                }
                NLMSG_DONE => return end(message.payload()).map(|()| true),
                NLMSG_ERROR => return Err(refusal(message.payload())),
                NLMSG_NOOP => {}
                _ => return Err(DumpError::Garbled("a message is of no known kind")),
            }
            let length = HEADER_LENGTH + message.payload_length();
            messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(false)
    }

    fn tell(&mut self, payload: &[u8], each: Reader<'_>) -> ControlFlow<()> {
        let attributes = payload.get(NFGENMSG_LENGTH..).unwrap_or_default();
        if let Some(entry) = Entry::decode(attributes) {
            self.entries += 1;
            return each(&entry, attributes);
        }
        self.unread += 1;
        self.completeness = Completeness::Interrupted;
        ControlFlow::Continue(())
    }
}

/// `NLMSG_DONE` has the dump's own error, if any.
fn end(payload: &[u8]) -> Result<(), DumpError> {
    match DoneBuffer::new_checked(payload).map_or(0, |done| done.code()) {
        0.. => Ok(()),
        code => Err(errno_error(code)),
    }
}

fn refusal(payload: &[u8]) -> DumpError {
    match ErrorBuffer::new_checked(payload).ok().and_then(|error| error.code()) {
        Some(code) => errno_error(code.get()),
        None => DumpError::Garbled("an acknowledgement where entries belong"),
    }
}

/// Of a code as netlink writes it, negative.
fn errno_error(code: i32) -> DumpError {
    match code.wrapping_neg() {
        libc::EPERM => DumpError::Refused,
        // `nfnetlink_rcv_msg` knows no such subsystem; a dump that only ctnetlink could refuse so
        // has no argument.
        libc::EINVAL | libc::EOPNOTSUPP => DumpError::Absent,
        errno => io_error("list connections", io::Error::from_raw_os_error(errno)),
    }
}

fn io_error(action: &'static str, source: io::Error) -> DumpError {
    match source.raw_os_error() {
        // No nfnetlink at all.
        Some(libc::EPROTONOSUPPORT) => DumpError::Absent,
        _ => DumpError::Io { action, source },
    }
}

/// A socket over which the kernel will list the table.
fn request(filter: Option<StatusFilter>) -> io::Result<OwnedFd> {
    let socket = open()?;
    set_socket_timeout(&socket, Timeout::Recv, Some(SILENCE))?;
    send(&socket, &request_bytes(filter), SendFlags::empty())?;
    Ok(socket)
}

/// A ctnetlink socket that hears nobody but the kernel.
pub(super) fn open() -> io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::NETFILTER),
    )?;
    connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

/// Of both families.
fn request_bytes(filter: Option<StatusFilter>) -> Vec<u8> {
    // Numbers of ctnetlink's are in network order.
    let attribute = |kind: u16, status: u32| DefaultNla::new(kind, status.to_be_bytes().to_vec());
    let attributes = filter.map(|StatusFilter { mask, value }| {
        [attribute(STATUS, value), attribute(STATUS_MASK, mask)]
    });
    let attributes = attributes.as_ref().map_or(&[][..], |both| both);
    message(GET, NLM_F_REQUEST | NLM_F_DUMP, 0, attributes)
}

fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> Result<&'a [u8], DumpError> {
    match retry_on_intr(|| recv(socket, &mut *buffer, RecvFlags::TRUNC)) {
        Ok((_, 0)) => Err(DumpError::Garbled("it ends without its last message")),
        Ok((_, length)) => {
            buffer.get(..length).ok_or(DumpError::Garbled("a message is longer than the kernel's"))
        }
        Err(Errno::AGAIN) => Err(DumpError::Silent),
        Err(errno) => Err(io_error("receive connections from the kernel", errno.into())),
    }
}

/// The size of the hash, which all network namespaces share.
struct Buckets(Setting);

impl Buckets {
    fn open() -> Result<Self, DumpError> {
        match Setting::open(Path::new(BUCKETS)) {
            Ok(setting) => Ok(Self(setting)),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Err(DumpError::Untracked),
            Err(source) => Err(Self::error(source)),
        }
    }

    fn read(&self) -> Result<u64, DumpError> {
        self.0.read().map_err(Self::error)
    }

    fn error(source: io::Error) -> DumpError {
        DumpError::Io { action: "read the size of the connection table's hash", source }
    }
}

#[cfg(test)]
mod tests;
