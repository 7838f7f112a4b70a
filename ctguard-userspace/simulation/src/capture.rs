//! A capture (pcap or pcapng) as a load.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use pcap_parser::{
    Block, Linktype, PcapBlockOwned, PcapError, create_reader, traits::PcapReaderIterator,
};

use super::{SimulationError, frame::Frame, quantity::Span, scenario::Scenario};

/// More than any packet.
const BUFFER_BYTES: usize = 1 << 20;
const NANOSECONDS: u128 = 1_000_000_000;

/// Longer than three of its round trips.
const ANSWERED_WITHIN: Duration = Duration::from_millis(200);

/// One that seems to be longer has a packet with a wrong time: a clock that was set meanwhile.
const LONGEST: Duration = Duration::from_hours(31 * 24);

/// How captures begin: pcap with microseconds and nanoseconds, pcapng.
const MAGIC: [u32; 3] = [0xa1b2_c3d4, 0xa1b2_3c4d, 0x0a0d_0d0a];

/// Only the first packet of a recorded flow is replayed. The rest is assumed: an answer, a handshake,
/// a second of data.
const USUAL: &str = "\
duration = '1s'
[[group]]
name = 'tcp'
class = 'tcp'
rate = '1/s'
lasts = '1s'
[[group]]
name = 'udp'
class = 'udp'
rate = '1/s'
[[group]]
name = 'other'
class = 'other'
rate = '1/s'
";

/// A capture, read packet by packet.
pub(super) struct Capture {
    path: PathBuf,
    reader: Box<dyn PcapReaderIterator + Send>,
    interfaces: Vec<Interface>,
    /// Time of the first packet.
    first: Option<Duration>,
    speed: f64,
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link: Linktype,
    /// Timestamp units per second.
    resolution: u64,
}

/// What one block held.
enum Next {
    Packet(Duration),
    Nothing,
    End,
}

/// Whether the file is a capture, by its first bytes.
pub(crate) fn is_capture(path: &Path) -> Result<bool, SimulationError> {
    let mut magic = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    let orders = [u32::from_le_bytes(magic), u32::from_be_bytes(magic)];
    match read {
        Ok(()) => Ok(orders.iter().any(|magic| MAGIC.contains(magic))),
        // Too short for any packet.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(source) => Err(SimulationError::Read { path: path.to_owned(), source }),
    }
}

/// The scenario of a capture of this length.
pub(super) fn scenario(length: Duration) -> Result<Scenario, SimulationError> {
    let scenario = Scenario::parse(USUAL, Path::new("the load of a recording"))?;
    // The last flows are still answered.
    Ok(Scenario { duration: Span(length + ANSWERED_WITHIN), ..scenario })
}

impl Capture {
    /// Opens a capture, to be replayed `speed` times as fast.
    pub(super) fn open(path: &Path, speed: f64) -> Result<Self, SimulationError> {
        let file = File::open(path)
            .map_err(|source| SimulationError::Read { path: path.to_owned(), source })?;
        Self::of(path, file, BUFFER_BYTES, speed)
    }

    fn of(
        path: &Path,
        bytes: impl Read + Send + 'static,
        buffer_bytes: usize,
        speed: f64,
    ) -> Result<Self, SimulationError> {
        let reader = create_reader(buffer_bytes, bytes).map_err(|error| broken(path, &error))?;
        let (path, interfaces) = (path.to_owned(), Vec::new());
        Ok(Self { path, reader, interfaces, first: None, speed })
    }

    /// From the first packet to just behind the last.
    pub(super) fn length(mut self) -> Result<Duration, SimulationError> {
        let (mut frame, mut last) = (Frame::empty(), None);
        while let Some(at) = self.next(&mut frame)? {
            last = last.max(Some(at));
        }
        let last = last.ok_or_else(|| invalid(&self.path, "has no packets".to_owned()))?;
        if last > LONGEST {
            let days = last.as_secs().div_ceil(86_400);
            return Err(invalid(
                &self.path,
                format!(
                    "takes {days} days to replay, and 31 is the most; is a packet's time wrong? \
                     (`editcap -A` and `-B` cut a capture)"
                ),
            ));
        }
        Ok(last + Duration::from_millis(1))
    }

    /// The next packet, and when it came after the first.
    pub(super) fn next(&mut self, frame: &mut Frame) -> Result<Option<Duration>, SimulationError> {
        loop {
            match self.step(frame)? {
                Next::Packet(at) => {
                    let first = *self.first.get_or_insert(at);
                    let seconds = at.saturating_sub(first).as_secs_f64() / self.speed;
                    return Ok(Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)));
                }
                Next::Nothing => {}
                Next::End => return Ok(None),
            }
        }
    }

    fn step(&mut self, frame: &mut Frame) -> Result<Next, SimulationError> {
        let exhausted = self.reader.reader_exhausted();
        let (bytes, next) = match self.reader.next() {
            Ok((bytes, block)) => (bytes, read(&block, &mut self.interfaces, frame)),
            Err(PcapError::Eof) => return Ok(Next::End),
            // The last packet was cut off.
            Err(PcapError::Incomplete(_)) if exhausted => return Ok(Next::End),
            Err(PcapError::Incomplete(_)) => {
                self.reader.refill().map_err(|error| broken(&self.path, &error))?;
                return Ok(Next::Nothing);
            }
            Err(error) => return Err(broken(&self.path, &error)),
        };
        self.reader.consume(bytes);
        next.map_err(|Linktype(number)| {
            let supported = "Ethernet, raw IP and Linux cooked captures are";
            invalid(&self.path, format!("link type {number} is not supported; {supported}"))
        })
    }
}

/// Reads one block, and its packet, if it has one, into the frame.
fn read(
    block: &PcapBlockOwned<'_>,
    interfaces: &mut Vec<Interface>,
    frame: &mut Frame,
) -> Result<Next, Linktype> {
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let nanoseconds = header.is_nanosecond_precision();
            let resolution = if nanoseconds { 1_000_000_000 } else { 1_000_000 };
            interfaces.push(Interface { link: header.network, resolution });
        }
        PcapBlockOwned::Legacy(packet) => {
            let Some(interface) = interfaces.first() else { return Ok(Next::Nothing) };
            keep(frame, interface.link, packet.data)?;
            let fraction = time(packet.ts_usec.into(), interface.resolution);
            return Ok(Next::Packet(Duration::from_secs(packet.ts_sec.into()) + fraction));
        }
        // Each section numbers its interfaces from 0.
        PcapBlockOwned::NG(Block::SectionHeader(_)) => interfaces.clear(),
        PcapBlockOwned::NG(Block::InterfaceDescription(described)) => {
            let resolution = described.ts_resolution().unwrap_or(1_000_000);
            interfaces.push(Interface { link: described.linktype, resolution });
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            let interface = usize::try_from(packet.if_id).ok().and_then(|id| interfaces.get(id));
            let Some(interface) = interface else { return Ok(Next::Nothing) };
            let captured = usize::try_from(packet.caplen).unwrap_or(usize::MAX);
            keep(frame, interface.link, packet.data.get(..captured).unwrap_or(packet.data))?;
            let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
            return Ok(Next::Packet(time(units, interface.resolution)));
        }
        PcapBlockOwned::NG(_) => {}
    }
    Ok(Next::Nothing)
}

fn keep(frame: &mut Frame, link: Linktype, bytes: &[u8]) -> Result<(), Linktype> {
    let header_bytes = match link {
        Linktype::ETHERNET => {
            frame.record(bytes);
            return Ok(());
        }
        Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 => 0,
        Linktype::LINUX_SLL => 16,
        Linktype::LINUX_SLL2 => 20,
        other => return Err(other),
    };
    frame.record_packet(bytes.get(header_bytes..).unwrap_or_default());
    Ok(())
}

fn time(units: u64, resolution: u64) -> Duration {
    let nanoseconds = u128::from(units) * NANOSECONDS / u128::from(resolution.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

fn broken<I: std::fmt::Debug>(path: &Path, error: &PcapError<I>) -> SimulationError {
    let reason = match error {
        PcapError::HeaderNotRecognized => "is neither a pcap nor a pcapng file",
        PcapError::BufferTooSmall => "has a block longer than 1 MiB",
        PcapError::ReadError => "cannot be read further",
        PcapError::Eof | PcapError::UnexpectedEof | PcapError::Incomplete(_) => "is cut off",
        PcapError::NomError(..) | PcapError::OwnedNomError(..) => "has an invalid block",
    };
    invalid(path, reason.to_owned())
}

fn invalid(path: &Path, reason: String) -> SimulationError {
    SimulationError::Content { place: path.display().to_string(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pcap file with packets of these bytes, at these seconds.
    fn pcap(packets: &[(u32, &[u8])]) -> Vec<u8> {
        let header: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1];
        let mut bytes = header.map(u32::to_le_bytes).concat();
        for (seconds, packet) in packets {
            let length = u32::try_from(packet.len()).unwrap();
            bytes.extend([*seconds, 0, length, length].map(u32::to_le_bytes).concat());
            bytes.extend(*packet);
        }
        bytes
    }

    /// A section, an interface and a packet of four bytes.
    fn pcapng() -> Vec<u8> {
        let section: [u32; 7] = [0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28];
        let interface: [u32; 5] = [1, 20, 1, 65_535, 20];
        let packet: [u32; 9] = [6, 36, 0, 7, 8, 4, 4, 0, 36];
        let words = [&section[..], &interface, &packet].concat();
        words.into_iter().flat_map(u32::to_le_bytes).collect()
    }

    fn length(bytes: &[u8], speed: f64) -> Result<Duration, String> {
        let bytes = io::Cursor::new(bytes.to_vec());
        let capture = Capture::of(Path::new("x.pcap"), bytes, 1 << 12, speed);
        capture.and_then(Capture::length).map_err(|error| error.to_string())
    }

    #[test]
    fn a_capture_lasts_from_its_first_packet_to_its_last() {
        let bytes = pcap(&[(100, &[0; 60]), (107, &[0; 60]), (103, &[0; 60])]);
        assert_eq!(length(&bytes, 1.0), Ok(Duration::from_millis(7_001)));
        assert_eq!(length(&bytes, 7.0), Ok(Duration::from_millis(1_001)));
        assert_eq!(length(&pcapng(), 1.0), Ok(Duration::from_millis(1)));
    }

    /// Fails when a clock that was set, or a speed close to none, makes a simulation of centuries.
    #[test]
    fn a_capture_of_years_is_refused() {
        let bytes = pcap(&[(0, &[0; 60]), (1_800_000_000, &[0; 60])]);
        let expected = "x.pcap: takes 20834 days to replay, and 31 is the most; ";
        assert!(length(&bytes, 1.0).unwrap_err().starts_with(expected));
        assert!(length(&bytes, 1000.0).is_ok());
        assert!(length(&pcap(&[(0, &[0; 60]), (1, &[0; 60])]), 1e-300).is_err());
    }

    #[test]
    fn a_damaged_capture_is_refused_or_read_as_another_one() {
        let bytes = pcap(&[(100, &[0; 60]), (107, &[0x45; 60])]);
        let captures: [&[u8]; 2] = [&bytes, &pcapng()];
        ctguard_damage::for_each_damage!(20_000, |damaged| {
            let _ = length(&damaged.of(&captures), 1.0);
        });
    }
}
