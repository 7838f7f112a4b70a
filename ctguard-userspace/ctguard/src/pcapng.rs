//! Writes packets as pcapng (draft-ietf-opsawg-pcapng), each with a comment and the program's verdict.

use std::io::{self, Write};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;

/// Tells readers the byte order, which is this machine's.
const ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const ETHERNET: u16 = 1;
const END_OF_OPTIONS: u16 = 0;
const COMMENT: u16 = 1;
/// `shb_userappl`.
const APPLICATION: u16 = 4;
/// `if_name`.
const NAME: u16 = 2;
/// `if_tsresol`, and its value for nanoseconds.
const RESOLUTION: u16 = 9;
const NANOSECONDS: u8 = 9;
/// `epb_flags`, and its value for a packet that arrived.
const FLAGS: u16 = 2;
const INBOUND: u32 = 1;
/// `epb_verdict`, and its type for a verdict of an XDP program.
const VERDICT: u16 = 7;
const OF_XDP: u8 = 2;

/// One packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'p> {
    /// The kernel's index of its interface.
    pub(crate) ifindex: u32,
    /// Nanoseconds since 1970.
    pub(crate) at: u64,
    /// Its length before it was cut.
    pub(crate) length: u32,
    pub(crate) bytes: &'p [u8],
    pub(crate) comment: &'p str,
    /// A number of `enum xdp_action`.
    pub(crate) verdict: u64,
}

/// A section of one file.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    out: W,
    snap_bytes: u32,
    /// Indices of the interfaces that were described, in the order of their numbers in the file.
    interfaces: Vec<u32>,
}

impl<W: Write> Writer<W> {
    /// Begins the file; no packet has more than `snap_bytes`.
    pub(crate) fn new(mut out: W, application: &str, snap_bytes: u32) -> io::Result<Self> {
        let mut body = Body::default();
        body.word(ORDER_MAGIC).half(1).half(0);
        // The section's length is not known.
        body.long(u64::MAX);
        body.option(APPLICATION, application.as_bytes()).end();
        body.write(&mut out, SECTION)?;
        Ok(Self { out, snap_bytes, interfaces: Vec::new() })
    }

    /// Writes a packet. If it is the first of its interface, `name` is asked for the interface's name.
    pub(crate) fn write(
        &mut self,
        packet: Packet<'_>,
        name: impl FnOnce() -> String,
    ) -> io::Result<()> {
        let number = self.interfaces.iter().position(|&ifindex| ifindex == packet.ifindex);
        let number = match number {
            Some(number) => number,
            None => self.describe(packet.ifindex, &name())?,
        };
        let [high, low] = [packet.at >> 32, packet.at & u64::from(u32::MAX)];
        let mut body = Body::default();
        body.word(length(number)?).word(length(high)?).word(length(low)?);
        body.word(length(packet.bytes.len())?).word(packet.length).bytes(packet.bytes);
        body.option(COMMENT, packet.comment.as_bytes());
        body.option(FLAGS, &INBOUND.to_ne_bytes());
        let verdict = packet.verdict.to_ne_bytes();
        body.option(VERDICT, &[&[OF_XDP], &verdict[..]].concat()).end();
        body.write(&mut self.out, PACKET)
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Describes an interface; returns its number in the file.
    fn describe(&mut self, ifindex: u32, name: &str) -> io::Result<usize> {
        let mut body = Body::default();
        body.half(ETHERNET).half(0).word(self.snap_bytes);
        body.option(NAME, name.as_bytes()).option(RESOLUTION, &[NANOSECONDS]).end();
        body.write(&mut self.out, INTERFACE)?;
        self.interfaces.push(ifindex);
        Ok(self.interfaces.len() - 1)
    }
}

/// What is between a block's head and its tail.
#[derive(Debug, Default)]
struct Body(Vec<u8>);

impl Body {
    fn half(&mut self, value: u16) -> &mut Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn word(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn long(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    /// Bytes, padded to a multiple of four.
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// An option; a longer value than one can have is cut.
    fn option(&mut self, code: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.half(code).half(length).bytes(&value[..length.into()])
    }

    fn end(&mut self) -> &mut Self {
        self.half(END_OF_OPTIONS).half(0)
    }

    /// Writes the block: its type and length, this, and its length again.
    fn write(&self, out: &mut impl Write, kind: u32) -> io::Result<()> {
        let all = length(self.0.len() + 12)?.to_ne_bytes();
        out.write_all(&kind.to_ne_bytes())?;
        out.write_all(&all)?;
        out.write_all(&self.0)?;
        out.write_all(&all)
    }
}

fn length(value: impl TryInto<u32>) -> io::Result<u32> {
    value.try_into().map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use pcap_parser::{
        Block, OptionCode, PcapBlockOwned, PcapError, PcapNGReader,
        traits::{PcapNGPacketBlock as _, PcapReaderIterator as _},
    };

    use super::*;

    /// 2026-11-29 12:00:00.000000001 UTC.
    const AT: u64 = 1_795_953_600_000_000_001;

    fn packet<'p>(ifindex: u32, bytes: &'p [u8], comment: &'p str) -> Packet<'p> {
        Packet { ifindex, at: AT, length: 1500, bytes, comment, verdict: 1 }
    }

    /// Interface, bytes, comment.
    type Read = (u32, Vec<u8>, String);

    /// Names of the described interfaces, and the packets.
    fn read(file: &[u8]) -> (Vec<String>, Vec<Read>) {
        let (mut names, mut packets) = (Vec::new(), Vec::new());
        let mut reader = PcapNGReader::new(1 << 16, file).unwrap();
        loop {
            let (consumed, block) = match reader.next() {
                Ok(read) => read,
                Err(PcapError::Eof) => return (names, packets),
                Err(PcapError::Incomplete(_)) => {
                    reader.refill().unwrap();
                    continue;
                }
                Err(error) => panic!("{error:?}"),
            };
            if let PcapBlockOwned::NG(Block::InterfaceDescription(described)) = &block {
                assert_eq!((described.snaplen, described.if_tsresol), (256, NANOSECONDS));
                names.push(described.if_name().unwrap().unwrap().to_owned());
            }
            if let PcapBlockOwned::NG(Block::EnhancedPacket(packet)) = &block {
                assert_eq!(u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low), AT);
                assert_eq!(packet.origlen, 1500);
                let mut options = packet.options.iter();
                let comment = options.find(|option| option.code == OptionCode::Comment);
                let comment = comment.unwrap().as_str().unwrap().to_owned();
                packets.push((packet.if_id, packet.packet_data().to_vec(), comment));
            }
            reader.consume(consumed);
        }
    }

    #[test]
    fn packets_are_read_back_with_their_interfaces_and_comments() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, "ctguard", 256).unwrap();
        for (ifindex, bytes, comment) in [
            (7, &b"one"[..], "refused: deny"),
            (3, b"four", "refused: source"),
            (7, b"", "refused: grant"),
        ] {
            let name = || format!("wan{ifindex}");
            writer.write(packet(ifindex, bytes, comment), name).unwrap();
        }
        let (names, packets) = read(&file);
        assert_eq!(names, ["wan7", "wan3"]);
        let packet = |interface, bytes: &[u8], comment: &str| {
            (interface, bytes.to_vec(), comment.to_owned())
        };
        assert_eq!(
            packets,
            [
                packet(0, b"one", "refused: deny"),
                packet(1, b"four", "refused: source"),
                packet(0, b"", "refused: grant"),
            ]
        );
    }

    #[test]
    fn an_empty_capture_is_a_file_too() {
        let mut file = Vec::new();
        Writer::new(&mut file, "ctguard", 256).unwrap();
        assert_eq!(read(&file), (Vec::new(), Vec::new()));
    }
}
