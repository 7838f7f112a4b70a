//! Programs timed by `BPF_PROG_TEST_RUN`, alone or behind one that gives the packet another source.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, TestRunOptions,
    maps::{Array, ProgramArray},
    programs::{ProgramFd, SchedClassifier, TestRun as _, Xdp},
};

use crate::object;

/// `XDP_DROP`.
pub(super) const DROP: u32 = 1;
/// `XDP_PASS`.
pub(super) const PASS: u32 = 2;
/// `XDP_TX`.
pub(super) const SEND: u32 = 3;

/// Runs a program some times on a packet and tells nanoseconds a run.
pub(super) type Timer = Box<dyn Fn(u32) -> Result<Duration>>;

/// What runs before the program that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Another source each time.
    Spoof,
    /// The same in a frame that is written anew, for programs that change it.
    SpoofAnew,
}

impl Before {
    /// Times `program` behind this, which ends with one of these verdicts, on packets of 2^28
    /// sources. The program must live as long as the timer.
    pub(super) fn timer(
        self,
        program: &ProgramFd,
        frame: &[u8],
        expected: &'static [u32],
    ) -> Result<Timer> {
        self.timer_of(ALL_SOURCES, program, frame, expected)
    }

    /// The same on packets of 2^`bits` sources.
    pub(super) fn timer_of(
        self,
        bits: u32,
        program: &ProgramFd,
        frame: &[u8],
        expected: &'static [u32],
    ) -> Result<Timer> {
        let name = match self {
            Self::Spoof => "lab_spoof",
            Self::SpoofAnew => "lab_spoof_anew",
        };
        let mut object = object::load()?;
        object::program(&mut object, name)?;
        let random = object.map_mut("lab_random").context("no map lab_random")?;
        let state = [crate::random::seed()? | 1, (1 << bits) - 1];
        Array::<_, [u64; 2]>::try_from(random)?.set(0, state, 0)?;
        let measured = object.map_mut("lab_measured").context("no map lab_measured")?;
        ProgramArray::try_from(measured)?.set(0, program, 0).context("cannot aim the tail call")?;
        if self == Self::SpoofAnew {
            let template: [u8; TEMPLATE] = frame.try_into().context("no SYN without options")?;
            let map = object.map_mut("lab_frame").context("no map lab_frame")?;
            Array::<_, [u8; TEMPLATE]>::try_from(map)?.set(0, template, 0)?;
        }
        let frame = frame.to_vec();
        Ok(Box::new(move |repeat| {
            let (duration, verdict) = time(xdp(&object, name)?, &frame, repeat)?;
            ensure!(expected.contains(&verdict), "the last packet got verdict {verdict}");
            Ok(duration)
        }))
    }
}

/// The exponent of the number of sources.
pub(super) const ALL_SOURCES: u32 = 28;
/// Bytes of a frame that is written anew.
const TEMPLATE: usize = 54;

/// Times the program `name` of the lab's object on one frame.
pub(super) fn alone(mut object: Ebpf, name: &'static str, frame: &[u8]) -> Result<Timer> {
    object::program(&mut object, name)?;
    let frame = frame.to_vec();
    Ok(Box::new(move |repeat| time(xdp(&object, name)?, &frame, repeat).map(|run| run.0)))
}

/// Nanoseconds a run, and the verdict of the last.
pub(super) fn time(program: &Xdp, frame: &[u8], repeat: u32) -> Result<(Duration, u32)> {
    let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
    let run = program.test_run(options)?;
    Ok((run.duration, run.return_value))
}

/// The egress program that does nothing.
pub(super) fn empty_egress(frame: &[u8]) -> Result<Timer> {
    const NAME: &str = "lab_egress_floor";
    let mut object = object::load()?;
    object::classifier(&mut object, NAME)?;
    let frame = frame.to_vec();
    Ok(Box::new(move |repeat| {
        let program: &SchedClassifier =
            object.program(NAME).with_context(|| format!("no {NAME}"))?.try_into()?;
        let options = TestRunOptions { data_in: Some(&frame), repeat, ..TestRunOptions::default() };
        Ok(program.test_run(options)?.duration)
    }))
}

/// A loaded program of the lab's object.
pub(super) fn xdp<'o>(object: &'o Ebpf, name: &str) -> Result<&'o Xdp> {
    Ok(object.program(name).with_context(|| format!("no program {name}"))?.try_into()?)
}
