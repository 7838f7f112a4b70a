//! Random packets from few hosts and ports, so that flows meet again; some of them broken.

use ctguard_tests::random;

use crate::packets::{self, ICMP, ICMPV6, TCP, UDP, ethernet, in_pppoe, ipv4, ipv6, tagged};

const GRE: u8 = 47;
const SCTP: u8 = 132;
const ESP: u8 = 50;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// A source of packets that repeats itself for the same seed.
pub(crate) struct Random(random::Random);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(random::Random::new(seed))
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        self.0.below(end)
    }

    /// A frame that arrives, whole or not.
    pub(crate) fn arriving(&mut self) -> Vec<u8> {
        let frame = match self.below(40) {
            0 => ethernet(0x0806, &[0; 28]),
            1..=24 => self.ipv4(false),
            _ => self.ipv6(false),
        };
        let mut frame = self.dressed(frame);
        match self.below(12) {
            0 => {
                let length = 14 + self.below(u32::try_from(frame.len()).unwrap_or(0) - 13);
                frame.truncate(length as usize);
            }
            1 => {
                for _ in 0..=self.below(4) {
                    let at = self.below(u32::try_from(frame.len()).unwrap_or(0));
                    frame[at as usize] = self.byte();
                }
            }
            _ => {}
        }
        frame
    }

    /// A whole frame that leaves.
    pub(crate) fn leaving(&mut self) -> Vec<u8> {
        if self.below(2) == 0 { self.ipv4(true) } else { self.ipv6(true) }
    }

    fn ipv4(&mut self, leaves: bool) -> Vec<u8> {
        let remote = format!("192.0.2.{}", 1 + self.below(8));
        let local = match self.below(20) {
            0 => "224.0.0.5",
            1 => "255.255.255.255",
            _ => packets::LOCAL,
        };
        let protocol = self.one_of(&[TCP, TCP, TCP, UDP, UDP, ICMP, GRE, SCTP, ESP]);
        let fragment = match self.below(16) {
            0 => 0x2000,
            1 => 1,
            2 => 0x2000 | 3,
            3 => 185,
            _ => 0,
        };
        let payload = self.transport(protocol, leaves);
        if leaves {
            ipv4(packets::LOCAL, &remote, protocol, 0, &payload)
        } else {
            ipv4(&remote, local, protocol, fragment, &payload)
        }
    }

    fn ipv6(&mut self, leaves: bool) -> Vec<u8> {
        let remote = format!("2001:db8:0:{}::{}", 1 + self.below(8), 1 + self.below(2));
        let protocol = self.one_of(&[TCP, TCP, UDP, UDP, ICMPV6, SCTP]);
        let payload = self.transport(protocol, leaves);
        if leaves {
            return ipv6(packets::LOCAL6, &remote, protocol, &payload);
        }
        let headers = if self.below(3) == 0 { self.below(11) } else { 0 };
        let kinds: Vec<u8> = (0..headers).map(|_| self.extension()).collect();
        let first = kinds.first().copied().unwrap_or(protocol);
        let mut chain = Vec::new();
        for (position, kind) in kinds.iter().enumerate() {
            let next = kinds.get(position + 1).copied().unwrap_or(protocol);
            chain.extend(self.header(*kind, next));
        }
        chain.extend(payload);
        let local = if self.below(20) == 0 { "ff02::1" } else { packets::LOCAL6 };
        ipv6(&remote, local, first, &chain)
    }

    fn extension(&mut self) -> u8 {
        self.one_of(&[HOP_BY_HOP, ROUTING, AUTHENTICATION, DESTINATION_OPTIONS, FRAGMENT])
    }

    fn header(&mut self, kind: u8, next: u8) -> Vec<u8> {
        match kind {
            FRAGMENT => {
                let offset = self.one_of(&[0, 0, 0, 1, 9]);
                let more = self.one_of(&[0, 1]);
                vec![next, 0, 0, offset << 3 | more, 0, 0, 0, 7]
            }
            AUTHENTICATION => vec![next, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            _ => {
                let longer = self.one_of(&[0, 0, 0, 1]);
                let mut header = vec![next, longer, 1, 4, 0, 0, 0, 0];
                header.resize(8 + 8 * usize::from(longer), 0);
                header
            }
        }
    }

    /// A transport header between one of few remote ports and one of few local ones.
    fn transport(&mut self, protocol: u8, leaves: bool) -> Vec<u8> {
        let mut ports = [[4, self.byte() & 3], [0, 80 + (self.byte() & 1)]];
        if leaves {
            ports.reverse();
        }
        let mut header = ports.concat();
        match protocol {
            TCP => {
                let flags = self.one_of(&[0x02, 0x02, 0x10, 0x10, 0x12, 0x11, 0x04, 0x14, 0, 0x18]);
                let words = self.one_of(&[5, 5, 5, 5, 5, 5, 6, 4]);
                header.extend([0, 0, 0, 1, 0, 0, 0, 1, words << 4, flags, 4, 0, 0, 0, 0, 0]);
                header.resize(24, 0);
            }
            UDP => {
                if self.below(10) == 0 {
                    header = [[0, 68], [0, 67]].concat();
                }
                let length = self.one_of(&[8, 8, 8, 8, 8, 8, 8, 7]);
                header.extend([0, length, 0, 0]);
            }
            ICMP => {
                let kind = self.one_of(&[8, 8, 0, 3, 11, 13, 17]);
                header = vec![kind, 0, 0, 0, 0, self.byte() & 7, 0, 1];
            }
            ICMPV6 => {
                let kind = self.one_of(&[128, 128, 129, 1, 135, 136, 143]);
                header = vec![kind, 0, 0, 0, 0, self.byte() & 7, 0, 1];
            }
            GRE => header = vec![0x30, self.byte() & 1, 0x88, 0x0b, 0, 0, 0, self.byte() & 3],
            _ => header.extend([0; 8]),
        }
        header
    }

    fn dressed(&mut self, frame: Vec<u8>) -> Vec<u8> {
        let is_ip = frame[12..14] == [0x08, 0] || frame[12..14] == [0x86, 0xdd];
        let frame = if is_ip && self.below(10) == 0 { in_pppoe(&frame) } else { frame };
        let tags = self.one_of(&[0, 0, 0, 0, 0, 0, 1, 2, 3]);
        let types: Vec<u16> =
            (0..tags).map(|_| if self.below(2) == 0 { 0x8100 } else { 0x88a8 }).collect();
        tagged(&frame, &types)
    }

    fn byte(&mut self) -> u8 {
        self.0.byte()
    }

    fn one_of(&mut self, choices: &[u8]) -> u8 {
        self.0.one_of(choices)
    }
}
