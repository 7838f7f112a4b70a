//! Frames for test runs, by etherparse.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, bail};
use etherparse::{Ethernet2Header, IpHeaders, PacketBuilder, PacketBuilderStep};

/// TCP control bits.
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// The acknowledgment field counts.
    pub const ACK: u8 = 0x10;
}

/// A TCP segment between these addresses and ports.
pub fn tcp(from: (IpAddr, u16), to: (IpAddr, u16), flags: u8) -> Result<Vec<u8>> {
    let mut frame = Vec::new();
    ip(from.0, to.0)?.tcp(from.1, to.1, 1, 1024).write(&mut frame, &[])?;
    let flags_at = frame.len() - 20 + 13;
    frame[flags_at] = flags;
    Ok(frame)
}

/// A TCP segment with ACK that carries eight bytes.
pub fn tcp_data(from: (IpAddr, u16), to: (IpAddr, u16)) -> Result<Vec<u8>> {
    let mut frame = Vec::new();
    ip(from.0, to.0)?.tcp(from.1, to.1, 1, 1024).ack(1).write(&mut frame, &[0; 8])?;
    Ok(frame)
}

/// A UDP datagram of 8 bytes.
pub fn udp(from: (IpAddr, u16), to: (IpAddr, u16)) -> Result<Vec<u8>> {
    let mut frame = Vec::new();
    ip(from.0, to.0)?.udp(from.1, to.1).write(&mut frame, &[0; 8])?;
    Ok(frame)
}

/// An ICMP echo request or reply.
pub fn echo(from: Ipv4Addr, to: Ipv4Addr, identifier: u16, request: bool) -> Result<Vec<u8>> {
    let link = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(from.octets(), to.octets(), 64);
    let message = if request {
        link.icmpv4_echo_request(identifier, 1)
    } else {
        link.icmpv4_echo_reply(identifier, 1)
    };
    let mut frame = Vec::new();
    message.write(&mut frame, &[])?;
    Ok(frame)
}

fn ip(from: IpAddr, to: IpAddr) -> Result<PacketBuilderStep<IpHeaders>> {
    let link: PacketBuilderStep<Ethernet2Header> = PacketBuilder::ethernet2([2; 6], [4; 6]);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Ok(link.ipv4(from.octets(), to.octets(), 64)),
        (IpAddr::V6(from), IpAddr::V6(to)) => Ok(link.ipv6(from.octets(), to.octets(), 64)),
        families => bail!("no packet goes between {families:?}"),
    }
}
