//! A table that a test fills over ctnetlink, in a network namespace of its own.
#![expect(clippy::unwrap_used, reason = "a test may say what it expects by unwrapping it")]

use std::{net::IpAddr, os::fd::OwnedFd, process::Command};

use netlink_packet_core::{DefaultNla, NLM_F_REQUEST};
use rustix::{
    net::{SendFlags, send},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::{dump, message::message};
use crate::net::emitted;

/// Status bits as the kernel has them.
pub mod status {
    pub const UNREPLIED: u32 = 1 << 3;
    pub const REPLIED: u32 = UNREPLIED | 1 << 1;
    pub const ASSURED: u32 = REPLIED | 1 << 2;
}

/// `IPCTNL_MSG_CT_DELETE`; `IPCTNL_MSG_CT_NEW`, and the flags that make it create.
const DELETE: u16 = 0x102;
const NEW: u16 = 0x100;
const CREATE_EXCLUSIVELY: u16 = 0x600;
/// Messages of one call.
const BATCH: usize = 256;

/// An entry to be made.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub protocol: u8,
    pub original: End,
    pub reply: End,
    pub status: u32,
    pub seconds: u32,
    pub zone: u16,
}

/// Source and destination of one direction, with their ports.
pub type End = (IpAddr, u16, IpAddr, u16);

impl Wanted {
    /// A flow without NAT that lasts 100 s.
    pub fn new(protocol: u8, from: (&str, u16), to: (&str, u16), status: u32) -> Self {
        let (source, destination) = (from.0.parse().unwrap(), to.0.parse().unwrap());
        Self {
            protocol,
            original: (source, from.1, destination, to.1),
            reply: (destination, to.1, source, from.1),
            status,
            seconds: 100,
            zone: 0,
        }
    }
}

/// A namespace with a table, gone when dropped.
pub struct TestTable {
    name: String,
}

impl TestTable {
    /// Makes one, or says why `test` is skipped.
    pub fn make(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "{test} may not be skipped in CI");
            println!("skipped: {test}: needs root");
            return None;
        }
        let name = format!("ctg-{}-{}", std::process::id(), &test[..test.len().min(40)]);
        ip(&["netns", "add", &name]);
        Some(Self { name })
    }

    /// What `ip netns` calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `job` in the namespace.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.name)).unwrap();
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                use std::os::fd::AsFd as _;
                let network = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(namespace.as_fd(), network).unwrap();
                job()
            });
            inside.join().unwrap()
        })
    }
}

impl Drop for TestTable {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.name]);
    }
}

/// Makes entries in the table of this thread's namespace.
pub fn fill(entries: impl Iterator<Item = Wanted>) {
    let socket = dump::open().unwrap();
    let mut batch = Vec::new();
    for (entry, number) in entries.zip(1..) {
        batch.extend(creation(&entry));
        if number % BATCH == 0 {
            flush(&socket, &mut batch);
        }
    }
    flush(&socket, &mut batch);
}

/// Entries that the kernel counts in this thread's namespace.
pub fn count() -> u64 {
    let path = "/proc/sys/net/netfilter/nf_conntrack_count";
    std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

/// Empties it, as `conntrack -F` does.
pub fn empty() {
    let mut request = message(DELETE, NLM_F_REQUEST, 0, &[]);
    flush(&dump::open().unwrap(), &mut request);
}

fn flush(socket: &OwnedFd, batch: &mut Vec<u8>) {
    if !batch.is_empty() {
        send(socket, batch, SendFlags::empty()).unwrap();
        batch.clear();
    }
}

fn creation(entry: &Wanted) -> Vec<u8> {
    let family = if entry.original.0.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut attributes = vec![
        nested(1, &tuple(entry.protocol, entry.original)),
        nested(2, &tuple(entry.protocol, entry.reply)),
        attribute(3, &entry.status.to_be_bytes()),
        attribute(7, &entry.seconds.to_be_bytes()),
    ];
    if entry.zone != 0 {
        attributes.push(attribute(18, &entry.zone.to_be_bytes()));
    }
    let family = u8::try_from(family).unwrap();
    message(NEW, NLM_F_REQUEST | CREATE_EXCLUSIVELY, family, &attributes)
}

fn tuple(
    protocol: u8,
    (source, source_port, destination, destination_port): End,
) -> [DefaultNla; 2] {
    let first = if source.is_ipv4() { 1 } else { 3 };
    let addresses =
        [(first, source), (first + 1, destination)].map(|(kind, address)| match address {
            IpAddr::V4(address) => attribute(kind, &address.octets()),
            IpAddr::V6(address) => attribute(kind, &address.octets()),
        });
    let transport = [
        attribute(1, &[protocol]),
        attribute(2, &source_port.to_be_bytes()),
        attribute(3, &destination_port.to_be_bytes()),
    ];
    [nested(1, &addresses), nested(2, &transport)]
}

fn nested(kind: u16, inner: &[DefaultNla]) -> DefaultNla {
    attribute(kind | 1 << 15, &emitted(inner))
}

fn attribute(kind: u16, value: &[u8]) -> DefaultNla {
    DefaultNla::new(kind, value.to_vec())
}

fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}
