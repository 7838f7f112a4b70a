//! A capture (pcap or pcapng) as a load.

use std::{
    fs::File,
    io,
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
    let read = File::open(path).and_then(|mut file| io::Read::read_exact(&mut file, &mut magic));
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
        let reader = create_reader(BUFFER_BYTES, file).map_err(|error| broken(path, &error))?;
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
        Ok(last + Duration::from_millis(1))
    }

    /// The next packet, and when it came after the first.
    pub(super) fn next(&mut self, frame: &mut Frame) -> Result<Option<Duration>, SimulationError> {
        loop {
            match self.step(frame)? {
                Next::Packet(at) => {
                    let first = *self.first.get_or_insert(at);
                    return Ok(Some(at.saturating_sub(first).div_f64(self.speed)));
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
