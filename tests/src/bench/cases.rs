//! What is measured: a data path in a state, and the packet that meets it there.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, TestRunOptions,
    maps::{Array, ProgramArray},
    programs::{ProgramFd, SchedClassifier, TestRun as _, Xdp},
};
use ctguard_layout::{CLASS_SLOTS, Ceiling, Counter, Outcome, Policy, units::Ticks};

use super::table::{self, Live};
use crate::{
    data_path::{DataPath, Setup},
    frames::{self, flags},
    object,
};

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// `XDP_DROP`.
const DROP: u32 = 1;
/// `XDP_PASS`.
const PASS: u32 = 2;
/// `XDP_TX`.
const SEND: u32 = 3;

/// What a case is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Floor {
    /// A program that only drops.
    Drop,
    /// The same behind a program that changes the packet's source.
    SpoofedDrop,
    /// An empty egress program.
    Egress,
}

impl Floor {
    pub(super) const ALL: [Self; 3] = [Self::Drop, Self::SpoofedDrop, Self::Egress];

    /// Its name in the report.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Drop => "floor: a program that only drops",
            Self::SpoofedDrop => "floor: the same, another source each time",
            Self::Egress => "floor: an empty egress program",
        }
    }
}

/// Runs a program some times on a packet and tells nanoseconds a run.
type Timer = Box<dyn Fn(u32) -> Result<Duration>>;

/// A kind of packet and what it may cost.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) bar_ns: Option<u32>,
    pub(super) floor: Floor,
    pub(super) time: Timer,
}

/// The floors, in the order of [`Floor::ALL`].
pub(super) fn floors() -> Result<[Timer; 3]> {
    let syn = frames::tcp((CLIENT, 1), (SERVER, 80), flags::SYN)?;
    let mut object = object::load()?;
    object::program(&mut object, "lab_floor")?;
    let plain: Timer = {
        let frame = syn.clone();
        Box::new(move |repeat| time(xdp(&object, "lab_floor")?, &frame, repeat).map(|run| run.0))
    };
    let mut dropping = object::load()?;
    let fd = object::program(&mut dropping, "lab_spoof_floor")?.fd()?.try_clone()?;
    let spoofed = spoofed(&fd, syn.clone(), DROP)?;
    let mut empty = object::load()?;
    egress(&mut empty)?.load().context("cannot load lab_egress_floor")?;
    let egress: Timer = Box::new(move |repeat| {
        let program = empty.program("lab_egress_floor").context("no lab_egress_floor")?;
        let program: &SchedClassifier = program.try_into()?;
        let options = TestRunOptions { data_in: Some(&syn), repeat, ..TestRunOptions::default() };
        Ok(program.test_run(options)?.duration)
    });
    Ok([plain, spoofed, egress])
}

/// The data path that is measured.
#[derive(Clone, Copy)]
pub(super) struct Subject<'o> {
    /// Another build than that of these sources.
    pub(super) object: Option<&'o [u8]>,
    /// The table's entries are in the filter.
    pub(super) full: bool,
}

/// Every case.
pub(super) fn cases(subject: Subject<'_>, live: &Live) -> Result<Vec<Case>> {
    let syn = frames::tcp((CLIENT, 1), (SERVER, 80), flags::SYN)?;
    let ack = frames::tcp((CLIENT, 1), (SERVER, 80), flags::ACK)?;
    let udp = frames::udp((CLIENT, 1), (SERVER, 9))?;
    let (client, server) = live.tcp;
    let segment = frames::tcp(client, server, flags::ACK)?;
    let segment_back = frames::tcp_data(server, client)?;
    let (client, server) = live.udp;
    let datagram = frames::udp(client, server)?;
    let datagram_back = frames::udp(server, client)?;
    let known = |leaving: &[u8], arriving: &[u8]| {
        let path = subject.path(Setup::default())?;
        path.leave(leaving)?;
        let counter = Counter::Packets(Outcome::Known);
        // Another build may count elsewhere.
        arriving_at(path, arriving.to_vec(), subject.object.is_none().then_some(counter))
    };
    let leaving = {
        let path = subject.path(Setup::default())?;
        path.leave(&datagram_back)?;
        let frame = datagram_back.clone();
        Box::new(move |repeat| path.time_leaving(&frame, repeat))
    };
    Ok(vec![
        case("SYN, one source, refused", Some(30), exhausted(subject, syn.clone())?),
        case("established TCP segment", Some(12), known(&segment_back, &segment)?),
        case("established UDP flow, cached", Some(20), known(&datagram_back, &datagram)?),
        case("UDP, one source, refused", Some(45), exhausted(subject, udp.clone())?),
        Case {
            floor: Floor::SpoofedDrop,
            ..case("SYN, 2^28 sources, refused", None, from_everywhere(subject, syn.clone())?)
        },
        Case {
            floor: Floor::SpoofedDrop,
            ..case("UDP, 2^28 sources, refused", Some(90), from_everywhere(subject, udp)?)
        },
        Case {
            floor: Floor::SpoofedDrop,
            ..case("ACK, 2^28 sources, refused", Some(90), from_everywhere(subject, ack)?)
        },
        Case {
            floor: Floor::SpoofedDrop,
            ..case("SYN, 2^28 sources, challenged in a dry run", None, unanswered(subject, &syn)?)
        },
        case("SYN challenged, without the guard", None, challenged(syn)?),
        Case { floor: Floor::Egress, ..case("leaving, known flow", Some(15), leaving) },
    ])
}

fn case(name: &'static str, bar_ns: Option<u32>, time: Timer) -> Case {
    Case { name, bar_ns, floor: Floor::Drop, time }
}

impl Subject<'_> {
    /// A data path that asks conntrack, its filter as the daemon leaves it.
    fn path(self, setup: Setup) -> Result<DataPath> {
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
}

/// The packet of a source that has spent its burst, and earns nothing while it is timed.
fn exhausted(subject: Subject<'_>, frame: Vec<u8>) -> Result<Timer> {
    let mut path = subject.path(Setup::default())?;
    let once = Ceiling { interval: Ticks(1 << 50), tolerance: Ticks(0) };
    path.set_interface(|interface| {
        interface.ceilings = [once; CLASS_SLOTS];
        // A SYN would be challenged instead of refused.
        interface.answers_nothing = 1;
    })?;
    // The source's burst goes to another tuple of the same source, so that the packet's own is
    // no repetition.
    let mut other = frame.clone();
    let port = other.get_mut(34).context("a frame has a port")?;
    *port ^= 1;
    path.judge(&other)?;
    Ok(Box::new(move |repeat| {
        let (duration, verdict) = time(path.ingress()?, &frame, repeat)?;
        ensure!(verdict == DROP, "the last packet got verdict {verdict}");
        Ok(duration)
    }))
}

/// A packet of another source each time, refused by a grant that is spent.
fn from_everywhere(subject: Subject<'_>, frame: Vec<u8>) -> Result<Timer> {
    let path = subject.path(Setup { grant: 0, ..Setup::default() })?;
    let spoofed = spoofed(path.ingress()?.fd()?, frame, DROP)?;
    // The program lives as long as its path.
    Ok(Box::new(move |repeat| {
        let _ = &path;
        spoofed(repeat)
    }))
}

/// A SYN of another source each time that would be answered: its frame stays as it is.
fn unanswered(subject: Subject<'_>, frame: &[u8]) -> Result<Timer> {
    let mut path = subject.path(Setup { grant: 0, ..Setup::default() })?;
    path.set_policy(|policy| policy.switches = Policy::DRY_RUN)?;
    let spoofed = spoofed(path.ingress()?.fd()?, frame.to_vec(), PASS)?;
    Ok(Box::new(move |repeat| {
        let _ = &path;
        spoofed(repeat)
    }))
}

/// A SYN that is answered each time.
fn challenged(frame: Vec<u8>) -> Result<Timer> {
    let mut object = object::load()?;
    object::program(&mut object, "lab_rechallenge")?;
    Ok(Box::new(move |repeat| {
        let (duration, verdict) = time(xdp(&object, "lab_rechallenge")?, &frame, repeat)?;
        ensure!(verdict == SEND, "the last packet got verdict {verdict}");
        Ok(duration)
    }))
}

/// A packet that passes each time, counted there if `expected` says where.
fn arriving_at(path: DataPath, frame: Vec<u8>, expected: Option<Counter>) -> Result<Timer> {
    path.judge(&frame)?;
    let count = move |path: &DataPath| expected.map_or(Ok(0), |counter| path.counter(counter));
    Ok(Box::new(move |repeat| {
        let before = count(&path)?;
        let (duration, verdict) = time(path.ingress()?, &frame, repeat)?;
        ensure!(verdict == PASS, "the last packet got verdict {verdict}");
        let counted = count(&path)? - before;
        ensure!(
            expected.is_none() || counted == u64::from(repeat),
            "{counted} of {repeat} were {expected:?}"
        );
        Ok(duration)
    }))
}

/// Runs `program` behind the one that changes the source.
fn spoofed(program: &ProgramFd, frame: Vec<u8>, expected: u32) -> Result<Timer> {
    let mut object = object::load()?;
    object::program(&mut object, "lab_spoof")?;
    let random = object.map_mut("lab_random").context("no map lab_random")?;
    Array::<_, u64>::try_from(random)?.set(0, 0x9e37_79b9_7f4a_7c15, 0)?;
    let measured = object.map_mut("lab_measured").context("no map lab_measured")?;
    ProgramArray::try_from(measured)?.set(0, program, 0).context("cannot aim the tail call")?;
    Ok(Box::new(move |repeat| {
        let (duration, verdict) = time(xdp(&object, "lab_spoof")?, &frame, repeat)?;
        ensure!(verdict == expected, "the last packet got verdict {verdict}");
        Ok(duration)
    }))
}

/// Nanoseconds a run, and the verdict of the last.
fn time(program: &Xdp, frame: &[u8], repeat: u32) -> Result<(Duration, u32)> {
    let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
    let run = program.test_run(options)?;
    Ok((run.duration, run.return_value))
}

fn xdp<'o>(object: &'o Ebpf, name: &str) -> Result<&'o Xdp> {
    Ok(object.program(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

fn egress(object: &mut Ebpf) -> Result<&mut SchedClassifier> {
    let program = object.program_mut("lab_egress_floor").context("no lab_egress_floor")?;
    Ok(program.try_into()?)
}
