//! What is measured: a data path in a state, and the packet that meets it there.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ctguard_layout::{
    CLASS_SLOTS, Ceiling, Class,
    Class::{Tcp, Udp},
    Counter, Outcome, Stage,
    units::Ticks,
};

use super::{
    reference::{self, Bucket, Floor},
    table::{self, Live},
    timing::{Before, DROP, PASS, SEND, Timer, time},
};
use crate::{
    data_path::{DataPath, Setup},
    frames::{self, flags},
};

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// A kind of packet and what it may cost.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) floor: Floor,
    pub(super) time: Timer,
    pub(super) judged: Option<Judged>,
}

/// A cost that is told in bare buckets.
pub(super) struct Judged {
    /// The bare bucket on the same packet, and its floor.
    pub(super) bucket: (Timer, Floor),
    /// How many of them the packet may cost.
    pub(super) bar: f64,
    /// How many LRU buckets a change may make it cost: half as many again as today's on the machine
    /// where those cost least, and more.
    pub(super) gate: f64,
}

/// The SYN that floors are timed with.
pub(super) fn syn() -> Result<Vec<u8>> {
    frames::tcp((CLIENT, 1), (SERVER, 80), flags::SYN)
}

/// The data path that is measured.
#[derive(Clone, Copy)]
pub(super) struct Subject<'o> {
    /// Another build than that of these sources.
    pub(super) object: Option<&'o [u8]>,
    /// The table's entries are in the filter.
    pub(super) full: bool,
}

/// The reference that a gate is told in: it costs enough to be measured well in few rounds.
pub(super) const LRU: &str = "reference: LRU bucket";

/// What ctguard's cases stand beside.
pub(super) fn references() -> Result<Vec<Case>> {
    let syn = syn()?;
    let case = |name, floor, time| Case { name, floor, time, judged: None };
    Ok(vec![
        case("reference: parse and pass", Floor::Drop, reference::parse(&syn)?),
        case("reference: array bucket", Floor::Drop, Bucket::Array.one_source(&syn)?),
        case(LRU, Floor::Drop, Bucket::Lru.one_source(&syn)?),
        case("reference: per-CPU LRU bucket", Floor::Drop, Bucket::PerCpuLru.one_source(&syn)?),
        case(
            "reference: array, 2^28 sources",
            Floor::SpoofedDrop,
            Bucket::Array.all_sources(&syn)?,
        ),
        case("reference: LRU, 2^28 sources", Floor::SpoofedDrop, Bucket::Lru.all_sources(&syn)?),
        case(
            "reference: per-CPU LRU, 2^28 sources",
            Floor::SpoofedDrop,
            Bucket::PerCpuLru.all_sources(&syn)?,
        ),
    ])
}

/// Every case of ctguard.
pub(super) fn cases(subject: Subject<'_>, live: &Live) -> Result<Vec<Case>> {
    let syn = syn()?;
    let ack = frames::tcp((CLIENT, 1), (SERVER, 80), flags::ACK)?;
    let udp = frames::udp((CLIENT, 1), (SERVER, 9))?;
    let (client, server) = live.tcp;
    let segment = frames::tcp(client, server, flags::ACK)?;
    let segment_back = frames::tcp_data(server, client)?;
    let (client, server) = live.udp;
    let datagram = frames::udp(client, server)?;
    let datagram_back = frames::udp(server, client)?;
    let known = |leaving: &[u8], arriving: &[u8]| -> Result<Timer> {
        let path = subject.path(Setup::default())?;
        path.leave(leaving)?;
        path.judge(arriving)?;
        Ok(subject.repeated(path, arriving, Counter::Packets(Outcome::Known), PASS))
    };
    let spent = |stage, class, frame: &[u8]| one_source(subject, stage, class, frame);
    let refused = |class, frame: &[u8]| all_sources(subject, class, frame);
    let one = |name, (bar, gate), frame: &[u8], time| -> Result<Case> {
        let bucket = (Bucket::Array.one_source(frame)?, Floor::Drop);
        Ok(Case { name, floor: Floor::Drop, time, judged: Some(Judged { bucket, bar, gate }) })
    };
    let all = |name, floor, (bar, gate), frame: &[u8], time| -> Result<Case> {
        let bucket = (Bucket::Array.all_sources(frame)?, Floor::SpoofedDrop);
        Ok(Case { name, floor, time, judged: Some(Judged { bucket, bar, gate }) })
    };
    let (everywhere, answered) = (Floor::SpoofedDrop, Floor::SpoofedSend);
    Ok(vec![
        one("SYN refused, one source, calm", (2.0, 3.0), &syn, spent(Stage::Calm, Tcp, &syn)?)?,
        one("SYN refused, one source, fair", (2.0, 3.0), &syn, spent(Stage::Fair, Tcp, &syn)?)?,
        one("UDP refused, one source, calm", (2.0, 3.0), &udp, spent(Stage::Calm, Udp, &udp)?)?,
        one("UDP refused, one source, fair", (2.0, 3.0), &udp, spent(Stage::Fair, Udp, &udp)?)?,
        all("SYN refused, 2^28 sources", everywhere, (3.0, 5.0), &syn, refused(Tcp, &syn)?)?,
        all("UDP refused, 2^28 sources", everywhere, (3.0, 5.0), &udp, refused(Udp, &udp)?)?,
        all("ACK refused, 2^28 sources", everywhere, (3.0, 5.0), &ack, refused(Tcp, &ack)?)?,
        all("UDP challenged, 2^28 sources", everywhere, (3.0, 11.0), &udp, silent(subject, &udp)?)?,
        all(
            "SYN answered, 2^28 sources",
            answered,
            (4.0, 16.5),
            &syn,
            answered_syn(subject, &syn)?,
        )?,
        one("established TCP segment", (0.8, 1.1), &segment, known(&segment_back, &segment)?)?,
        one(
            "established UDP flow, cached",
            (0.8, 1.1),
            &datagram,
            known(&datagram_back, &datagram)?,
        )?,
        Case {
            name: "leaving, known flow",
            floor: Floor::Egress,
            time: leaving(subject, datagram_back)?,
            judged: None,
        },
    ])
}

impl Subject<'_> {
    /// A data path that asks conntrack, its filter as the daemon leaves it.
    pub(super) fn path(self, setup: Setup) -> Result<DataPath> {
        let setup = Setup { asks_conntrack: true, ..setup };
        let mut path = match self.object {
            Some(object) => DataPath::load_object(object, setup)?,
            None => DataPath::load(setup)?,
        };
        let mut written = None;
        path.set_environment(|environment| {
            environment.daemon.known_complete = 1;
            written = Some(*environment);
        })?;
        if self.full {
            table::note_entries(&path, &written.context("an environment")?);
        }
        Ok(path)
    }

    /// One packet again and again, each time with this outcome.
    fn repeated(self, path: DataPath, frame: &[u8], counter: Counter, verdict: u32) -> Timer {
        let frame = frame.to_vec();
        let timed = move |path: &DataPath, repeat| {
            let (duration, got) = time(path.ingress(), &frame, repeat)?;
            ensure!(got == verdict, "the last packet got verdict {got}");
            Ok(duration)
        };
        self.counted(path, counter, 1.0, timed)
    }

    /// Packets of all sources, nearly all with this outcome.
    fn spoofed(
        self,
        path: DataPath,
        frame: &[u8],
        before: Before,
        (counter, verdicts): (Counter, &'static [u32]),
    ) -> Result<Timer> {
        let timer = before.timer(path.ingress().fd()?, frame, verdicts)?;
        Ok(self.counted(path, counter, 0.9, move |_, repeat| timer(repeat)))
    }

    /// Fails unless so large a part of the packets have this outcome.
    fn counted(
        self,
        path: DataPath,
        counter: Counter,
        part: f64,
        timed: impl Fn(&DataPath, u32) -> Result<Duration> + 'static,
    ) -> Timer {
        // Another build may count elsewhere.
        let is_ours = self.object.is_none();
        let read = move |path: &DataPath| {
            if is_ours { path.counter(counter) } else { Ok(0) }
        };
        Box::new(move |repeat| {
            let before = read(&path)?;
            let duration = timed(&path, repeat)?;
            let found = read(&path)? - before;
            #[expect(clippy::cast_precision_loss, reason = "a run has fewer than 2^32 packets")]
            let enough = found as f64 >= part * f64::from(repeat);
            ensure!(!is_ours || enough, "{found} of {repeat} packets were {counter:?}");
            Ok(duration)
        })
    }
}

/// The packet of a source that has spent its burst, and earns nothing while it is timed.
fn one_source(subject: Subject<'_>, stage: Stage, class: Class, frame: &[u8]) -> Result<Timer> {
    let mut path = subject.path(Setup::default())?;
    let once = Ceiling { interval: Ticks(1 << 50), tolerance: Ticks(0) };
    path.set_stage(stage)?;
    path.set_interface(|interface| {
        interface.ceilings = [once; CLASS_SLOTS];
        // A SYN would be challenged instead of refused.
        interface.answers_nothing = 1;
    })?;
    // The source's burst goes to another tuple of the same source, so that the packet's own is
    // no repetition.
    let mut other = frame.to_vec();
    let port = other.get_mut(34).context("a frame has a port")?;
    *port ^= 1;
    path.judge(&other)?;
    Ok(subject.repeated(path, frame, Counter::Flows(Outcome::RefusedSource, class), DROP))
}

/// A packet of another source each time, refused by a grant that is spent.
fn all_sources(subject: Subject<'_>, class: Class, frame: &[u8]) -> Result<Timer> {
    let mut path = subject.path(Setup { grant: 0, ..Setup::default() })?;
    path.set_interface(|interface| interface.answers_nothing = 1)?;
    let counter = Counter::Flows(Outcome::RefusedGrant, class);
    subject.spoofed(path, frame, Before::Spoof, (counter, &[DROP]))
}

/// A datagram of another source each time, that has to come again. Few do, by chance.
fn silent(subject: Subject<'_>, frame: &[u8]) -> Result<Timer> {
    let mut path = subject.path(Setup::default())?;
    path.set_stage(Stage::Challenge)?;
    let counter = Counter::Flows(Outcome::ChallengedBySilence, Class::Udp);
    subject.spoofed(path, frame, Before::Spoof, (counter, &[DROP, PASS]))
}

/// A SYN of another source each time, that is answered.
fn answered_syn(subject: Subject<'_>, frame: &[u8]) -> Result<Timer> {
    let mut path = subject.path(Setup::default())?;
    path.set_stage(Stage::Challenge)?;
    let counter = Counter::Flows(Outcome::ChallengedByAck, Class::Tcp);
    subject.spoofed(path, frame, Before::SpoofAnew, (counter, &[DROP, PASS, SEND]))
}

/// The packet of a known flow that leaves.
fn leaving(subject: Subject<'_>, frame: Vec<u8>) -> Result<Timer> {
    let path = subject.path(Setup::default())?;
    path.leave(&frame)?;
    Ok(Box::new(move |repeat| path.time_leaving(&frame, repeat)))
}
