//! A recording of packets as a load (pcap and pcapng files).

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use pcap_parser::{
    Block, Linktype, PcapBlockOwned, PcapError, create_reader, traits::PcapReaderIterator,
};
use thiserror::Error;

use super::{frame::Frame, quantity::Span, scenario::Scenario, scenario::ScenarioError};

/// More than one packet of any network, so that each fits.
const BUFFER_BYTES: usize = 1 << 20;
const NANOSECONDS: u128 = 1_000_000_000;

/// How files of packets begin: pcap of both byte orders and resolutions, pcapng.
const MAGIC: [[u8; 4]; 5] = [
    [0xd4, 0xc3, 0xb2, 0xa1],
    [0xa1, 0xb2, 0xc3, 0xd4],
    [0x4d, 0x3c, 0xb2, 0xa1],
    [0xa1, 0xb2, 0x3c, 0x4d],
    [0x0a, 0x0d, 0x0d, 0x0a],
];

/// What follows the first packet of a recorded flow is not replayed but taken for usual: an answer,
/// a handshake, a second of data.
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

/// Why a recording cannot be replayed.
#[derive(Debug, Error)]
pub enum CaptureError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: {reason}", path.display())]
    Content { path: PathBuf, reason: String },
    #[error(
        "{}: link type {number} is not supported; Ethernet, raw IP and Linux cooked captures are",
        path.display()
    )]
    LinkType { path: PathBuf, number: i32 },
    #[error("{}: has no packets", path.display())]
    Empty { path: PathBuf },
}

/// A recording, read packet by packet.
pub(super) struct Capture {
    path: PathBuf,
    reader: Box<dyn PcapReaderIterator + Send>,
    interfaces: Vec<Interface>,
    /// When its first packet came.
    first: Option<Duration>,
    speed: f64,
}

/// How the packets of one interface were recorded.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link: Linktype,
    /// Units in a second.
    resolution: u64,
}

/// A packet's place in a reader's buffer.
enum Next {
    Packet(Duration),
    Nothing,
    End,
}

/// Whether a file holds packets, by its first bytes.
pub(crate) fn is_capture(path: &Path) -> Result<bool, CaptureError> {
    let mut magic = [0; 4];
    let read = File::open(path).and_then(|mut file| io::Read::read_exact(&mut file, &mut magic));
    match read {
        Ok(()) => Ok(MAGIC.contains(&magic)),
        // Too short for any packet.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(source) => Err(CaptureError::Read { path: path.to_owned(), source }),
    }
}

/// The scenario of a recording, which lasts as long as that.
pub(super) fn scenario(length: Duration) -> Result<Scenario, ScenarioError> {
    let scenario = Scenario::parse(USUAL, Path::new("the load of a recording"))?;
    Ok(Scenario { duration: Span(length), ..scenario })
}

impl Capture {
    /// Opens a recording, to be replayed so much faster than it was made.
    pub(super) fn open(path: &Path, speed: f64) -> Result<Self, CaptureError> {
        let file = File::open(path)
            .map_err(|source| CaptureError::Read { path: path.to_owned(), source })?;
        let reader = create_reader(BUFFER_BYTES, file).map_err(|error| broken(path, &error))?;
        let (path, interfaces) = (path.to_owned(), Vec::new());
        Ok(Self { path, reader, interfaces, first: None, speed })
    }

    /// From the first packet to just behind the last.
    pub(super) fn length(mut self) -> Result<Duration, CaptureError> {
        let (mut frame, mut last) = (Frame::empty(), None);
        while let Some(at) = self.next(&mut frame)? {
            last = last.max(Some(at));
        }
        let last = last.ok_or_else(|| CaptureError::Empty { path: self.path.clone() })?;
        Ok(last + Duration::from_millis(1))
    }

    /// The next packet, and when it came after the first.
    pub(super) fn next(&mut self, frame: &mut Frame) -> Result<Option<Duration>, CaptureError> {
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

    fn step(&mut self, frame: &mut Frame) -> Result<Next, CaptureError> {
        let exhausted = self.reader.reader_exhausted();
        let (bytes, next) = match self.reader.next() {
            Ok((bytes, block)) => (bytes, read(&block, &mut self.interfaces, frame)),
            Err(PcapError::Eof) => return Ok(Next::End),
            // The rest of a recording that was cut off.
            Err(PcapError::Incomplete(_)) if exhausted => return Ok(Next::End),
            Err(PcapError::Incomplete(_)) => {
                self.reader.refill().map_err(|error| broken(&self.path, &error))?;
                return Ok(Next::Nothing);
            }
            Err(error) => return Err(broken(&self.path, &error)),
        };
        self.reader.consume(bytes);
        next.map_err(|link| CaptureError::LinkType { path: self.path.clone(), number: link.0 })
    }
}

/// Reads one block; its packet, if it has one, into the frame.
fn read(
    block: &PcapBlockOwned<'_>,
    interfaces: &mut Vec<Interface>,
    frame: &mut Frame,
) -> Result<Next, Linktype> {
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let resolution =
                if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
            interfaces.push(Interface { link: header.network, resolution });
        }
        PcapBlockOwned::Legacy(packet) => {
            let Some(interface) = interfaces.first() else { return Ok(Next::Nothing) };
            keep(frame, interface.link, packet.data)?;
            let fraction = time(packet.ts_usec.into(), interface.resolution);
            return Ok(Next::Packet(Duration::from_secs(packet.ts_sec.into()) + fraction));
        }
        // Interfaces are numbered anew in each section.
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

fn broken<I: std::fmt::Debug>(path: &Path, error: &PcapError<I>) -> CaptureError {
    let reason = match error {
        PcapError::HeaderNotRecognized => "is neither a pcap nor a pcapng file".to_owned(),
        PcapError::BufferTooSmall => "has a block longer than 1 MiB".to_owned(),
        PcapError::ReadError => "cannot be read further".to_owned(),
        PcapError::Eof | PcapError::UnexpectedEof | PcapError::Incomplete(_) => {
            "is cut off".to_owned()
        }
        PcapError::NomError(..) | PcapError::OwnedNomError(..) => "has an invalid block".to_owned(),
    };
    CaptureError::Content { path: path.to_owned(), reason }
}
