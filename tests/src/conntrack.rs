//! Conntrack's entries over ctnetlink: heard of as they are confirmed, asked for, deleted.

use std::{collections::VecDeque, io, net::IpAddr, os::fd::OwnedFd, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla as _,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{
        ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple as Part,
    },
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
        netlink::{self, SocketAddrNetlink},
        recv, send, socket_with, sockopt,
    },
};

use crate::netns::Handle;

/// `NFNLGRP_CONNTRACK_NEW` as a bit of the address that a socket is bound to.
const NEW_ENTRIES: u32 = 1;
/// Events of a few thousand entries.
const RECEIVE_BYTES: usize = 1 << 24;
/// No message of the kernel's is longer (`NLMSG_GOODSIZE`).
const MESSAGE_BYTES: usize = 1 << 16;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// `CTA_PROTO_ICMP_ID` and the two that follow it, of `enum ctattr_l4proto`; then the same of
/// `ICMPv6`.
const ICMP_ATTRIBUTES: u16 = 4;
const ICMPV6_ATTRIBUTES: u16 = 7;

/// One direction of a flow, as `struct nf_conntrack_tuple` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address.
    pub from: IpAddr,
    /// Destination address.
    pub to: IpAddr,
    /// Transport protocol.
    pub protocol: u8,
    /// Source port; of ICMP the identifier; 0 where the protocol has none.
    pub from_port: u16,
    /// Destination port; of ICMP type and code; GRE's key.
    pub to_port: u16,
}

impl Tuple {
    /// The other way, but for ICMP, where only conntrack knows which type answers which.
    #[must_use]
    pub const fn reversed(self) -> Self {
        let (from_port, to_port) = match self.protocol {
            ICMP | ICMPV6 => (self.from_port, self.to_port),
            _ => (self.to_port, self.from_port),
        };
        Self { from: self.to, to: self.from, protocol: self.protocol, from_port, to_port }
    }
}

/// An entry that was confirmed.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The packet that made it, as it arrived.
    pub original: Tuple,
    /// What will arrive in answer, NAT counted in.
    pub reply: Tuple,
    key: Vec<ConntrackAttribute>,
}

/// Hears of each entry that a namespace's conntrack confirms, in their order.
#[derive(Debug)]
pub struct NewEntries {
    socket: OwnedFd,
    buffer: Vec<u8>,
    heard: VecDeque<Entry>,
}

impl NewEntries {
    /// Listens in the namespace.
    pub fn listen(namespace: &Handle) -> Result<Self> {
        let socket = namespace.run(|| open(NEW_ENTRIES))?;
        sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BYTES)?;
        Ok(Self { socket, buffer: vec![0; MESSAGE_BYTES], heard: VecDeque::new() })
    }

    /// The next entry; waits for one. Entries that the kernel could not tell of are an error.
    pub fn next(&mut self, patience: Duration) -> Result<Entry> {
        loop {
            if let Some(entry) = self.heard.pop_front() {
                return Ok(entry);
            }
            match recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    self.heard.extend(entries(self.buffer.get(..length).unwrap_or_default())?);
                }
                Err(rustix::io::Errno::AGAIN) => self.wait(patience)?,
                Err(error) => return Err(error).context("conntrack's events are lost"),
            }
        }
    }

    fn wait(&self, patience: Duration) -> Result<()> {
        let timeout = Timespec::try_from(patience).context("a patience that fits")?;
        let mut waiting = [PollFd::new(&self.socket, PollFlags::IN)];
        let ready = poll(&mut waiting, Some(&timeout))?;
        ensure!(ready > 0, "conntrack confirmed no entry within {patience:?}");
        Ok(())
    }
}

/// A namespace's table, to ask and to delete from.
#[derive(Debug)]
pub struct ConntrackTable {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl ConntrackTable {
    /// Opens the namespace's table.
    pub fn open(namespace: &Handle) -> Result<Self> {
        let socket = namespace.run(|| open(0))?;
        Ok(Self { socket, buffer: vec![0; MESSAGE_BYTES] })
    }

    /// Deletes the entry; false where it has ended.
    pub fn delete(&mut self, entry: &Entry) -> Result<bool> {
        let message = ConntrackMessage::Delete(entry.key.clone());
        Ok(self.ask(entry.original.from, message)?.is_some())
    }

    /// Lets the entry of this original tuple end so many seconds from now, unless a packet comes;
    /// false where it has ended.
    pub fn set_time_left(&mut self, tuple: &Tuple, seconds: u32) -> Result<bool> {
        let key = ConntrackAttribute::CtaTupleOrig(parts(tuple));
        let message = ConntrackMessage::New(vec![key, ConntrackAttribute::CtaTimeout(seconds)]);
        Ok(self.ask(tuple.from, message)?.is_some())
    }

    /// Whether an entry has this tuple in either direction.
    pub fn knows(&mut self, tuple: &Tuple) -> Result<bool> {
        let key = ConntrackAttribute::CtaTupleOrig(parts(tuple));
        Ok(self.ask(tuple.from, ConntrackMessage::Get(vec![key]))?.is_some())
    }

    /// The answer, or `None` where no such entry is there.
    fn ask(&mut self, of: IpAddr, message: ConntrackMessage) -> Result<Option<()>> {
        let family =
            if of.is_ipv4() { NetfilterProtoFamily::IPv4 } else { NetfilterProtoFamily::IPv6 };
        send_request(&self.socket, NLM_F_ACK, family, message)?;
        loop {
            let (length, _) = recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::empty())?;
            for message in messages(self.buffer.get(..length).unwrap_or_default())? {
                let NetlinkPayload::Error(answer) = message.payload else { continue };
                return match answer.code {
                    None => Ok(Some(())),
                    // EINVAL: a tuple that no entry can have, an ICMP error's for one.
                    Some(code) if [-libc::ENOENT, -libc::EINVAL].contains(&code.get()) => Ok(None),
                    Some(_) => Err(io::Error::from(answer)).context("ctnetlink refuses"),
                };
            }
        }
    }
}

/// A ctnetlink socket of this thread's namespace, in these multicast groups.
pub(crate) fn open(groups: u32) -> Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::NETFILTER),
    )?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// Sends a request with these flags about entries of a family.
pub(crate) fn send_request(
    socket: &OwnedFd,
    flags: u16,
    family: NetfilterProtoFamily,
    message: ConntrackMessage,
) -> Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let body = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(body));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    send(socket, &bytes, SendFlags::empty())?;
    Ok(())
}

pub(crate) fn messages(mut datagram: &[u8]) -> Result<Vec<NetlinkMessage<NetfilterMessage>>> {
    let mut messages = Vec::new();
    while !datagram.is_empty() {
        let message = NetlinkMessage::<NetfilterMessage>::deserialize(datagram)
            .context("cannot read a message of ctnetlink")?;
        let length = (message.header.length as usize).next_multiple_of(4);
        datagram = datagram.get(length..).unwrap_or_default();
        messages.push(message);
    }
    Ok(messages)
}

fn entries(datagram: &[u8]) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for message in messages(datagram)? {
        let NetlinkPayload::InnerMessage(message) = message.payload else { continue };
        let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = message.inner
        else {
            bail!("an event that is no new entry: {message:?}");
        };
        entries.push(entry(&attributes)?);
    }
    Ok(entries)
}

fn entry(attributes: &[ConntrackAttribute]) -> Result<Entry> {
    let (mut original, mut reply, mut key) = (None, None, Vec::new());
    for attribute in attributes {
        if let ConntrackAttribute::CtaTupleOrig(parts) = attribute {
            original = tuple(parts);
            key = vec![attribute.clone()];
        } else if let ConntrackAttribute::CtaTupleReply(parts) = attribute {
            reply = tuple(parts);
        }
    }
    let (original, reply) = original.zip(reply).context("an entry without its two tuples")?;
    Ok(Entry { original, reply, key })
}

fn tuple(parts: &[Part]) -> Option<Tuple> {
    let (mut from, mut to, mut number) = (None, None, None);
    let (mut from_port, mut to_port) = (0, 0);
    for part in parts {
        if let Part::Ip(addresses) = part {
            for address in addresses {
                if let IPTuple::SourceAddress(address) = address {
                    from = Some(*address);
                } else if let IPTuple::DestinationAddress(address) = address {
                    to = Some(*address);
                }
            }
        } else if let Part::Proto(attributes) = part {
            for attribute in attributes {
                if let ProtoTuple::Protocol(protocol) = attribute {
                    number = Some(u8::from(*protocol));
                } else if let ProtoTuple::SourcePort(port) = attribute {
                    from_port = *port;
                } else if let ProtoTuple::DestinationPort(port) = attribute {
                    to_port = *port;
                } else if let ProtoTuple::Other(of_icmp) = attribute {
                    read_icmp(of_icmp, &mut from_port, &mut to_port);
                }
            }
        }
    }
    Some(Tuple { from: from?, to: to?, protocol: number?, from_port, to_port })
}

/// Identifier, type or code, whichever the attribute is.
fn read_icmp(attribute: &DefaultNla, identifier: &mut u16, type_and_code: &mut u16) {
    let mut value = [0; 2];
    if attribute.value_len() > value.len() {
        return;
    }
    attribute.emit_value(&mut value[..attribute.value_len()]);
    let first =
        if attribute.kind() < ICMPV6_ATTRIBUTES { ICMP_ATTRIBUTES } else { ICMPV6_ATTRIBUTES };
    match attribute.kind().wrapping_sub(first) {
        0 => *identifier = u16::from_be_bytes(value),
        1 => *type_and_code |= u16::from(value[0]) << 8,
        2 => *type_and_code |= u16::from(value[0]),
        _ => {}
    }
}

fn parts(tuple: &Tuple) -> Vec<Part> {
    let addresses = vec![IPTuple::SourceAddress(tuple.from), IPTuple::DestinationAddress(tuple.to)];
    let mut protocol = vec![ProtoTuple::Protocol(Protocol::from(tuple.protocol))];
    let icmp = match tuple.protocol {
        ICMP => Some(ICMP_ATTRIBUTES),
        ICMPV6 => Some(ICMPV6_ATTRIBUTES),
        _ => None,
    };
    if let Some(first) = icmp {
        let [kind, code] = tuple.to_port.to_be_bytes();
        protocol.extend(
            [
                DefaultNla::new(first, tuple.from_port.to_be_bytes().to_vec()),
                DefaultNla::new(first + 1, vec![kind]),
                DefaultNla::new(first + 2, vec![code]),
            ]
            .map(ProtoTuple::Other),
        );
    } else {
        protocol.push(ProtoTuple::SourcePort(tuple.from_port));
        protocol.push(ProtoTuple::DestinationPort(tuple.to_port));
    }
    vec![Part::Ip(addresses), Part::Proto(protocol)]
}
