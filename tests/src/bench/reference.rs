//! What ctguard is compared with: programs that do nothing, and rate limits at their least.

use anyhow::{Context as _, Result, ensure};
use aya::{Ebpf, maps::Array};
use serde::Serialize;

use super::timing::{self, ALL_SOURCES, Before, DROP, PASS, SEND, Timer, time, xdp};
use crate::object;

/// What a case's cost is over: a program that does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Floor {
    /// Only drops.
    Drop,
    /// The same behind a program that changes the packet's source.
    SpoofedDrop,
    /// Only sends back, behind a program that writes the packet anew and changes its source.
    SpoofedSend,
    /// An empty egress program.
    Egress,
}

impl Floor {
    pub(super) const ALL: [Self; 4] =
        [Self::Drop, Self::SpoofedDrop, Self::SpoofedSend, Self::Egress];

    /// Its name in the report.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Drop => "floor: drops",
            Self::SpoofedDrop => "floor: drops, another source each time",
            Self::SpoofedSend => "floor: sends back, another source each time",
            Self::Egress => "floor: an empty egress program",
        }
    }

    /// A timer for it.
    pub(super) fn timer(self, syn: &[u8]) -> Result<Timer> {
        match self {
            Self::Drop => timing::alone(object::load()?, "lab_floor", syn),
            Self::SpoofedDrop => behind(
                (Before::Spoof, ALL_SOURCES),
                object::load()?,
                "lab_spoof_floor",
                syn,
                &[DROP],
            ),
            Self::SpoofedSend => behind(
                (Before::SpoofAnew, ALL_SOURCES),
                object::load()?,
                "lab_send_floor",
                syn,
                &[SEND],
            ),
            Self::Egress => timing::empty_egress(syn),
        }
    }
}

/// A rate limit for each source and nothing else, all of it spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bucket {
    /// In an array, the sources of one hash together: the bare bucket that bars are told in.
    Array,
    /// In a hash that forgets the least recently used.
    Lru,
    /// The same for each CPU.
    PerCpuLru,
}

impl Bucket {
    /// Its program in the lab's object.
    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::Array => "lab_array_bucket",
            Self::Lru => "lab_lru_bucket",
            Self::PerCpuLru => "lab_cpu_bucket",
        }
    }

    /// A timer for packets of one source.
    pub(super) fn one_source(self, frame: &[u8]) -> Result<Timer> {
        let (mut object, name, frame) = (spent()?, self.program(), frame.to_vec());
        object::program(&mut object, name)?;
        time(xdp(&object, name)?, &frame, 1)?;
        Ok(Box::new(move |repeat| {
            let (duration, verdict) = time(xdp(&object, name)?, &frame, repeat)?;
            ensure!(verdict == DROP, "{name} gave verdict {verdict}");
            Ok(duration)
        }))
    }

    /// A timer for packets of 2^28 sources. To one that remembers sources, nearly each is new.
    pub(super) fn all_sources(self, frame: &[u8]) -> Result<Timer> {
        self.sources(ALL_SOURCES, frame)
    }

    /// The same of 2^`bits` sources.
    pub(super) fn sources(self, bits: u32, frame: &[u8]) -> Result<Timer> {
        let expected: &[_] = match self {
            Self::Array => &[DROP],
            Self::Lru | Self::PerCpuLru => &[DROP, PASS],
        };
        let timer = behind((Before::Spoof, bits), spent()?, self.program(), frame, expected);
        timer.inspect(|timer| {
            // Until every cell is spent, some packets pass.
            let _ = timer(WARM_UP);
        })
    }
}

/// So many packets spend all 65,536 cells: one of a million cells would be left.
const WARM_UP: u32 = 1_600_000;

/// Parses and passes.
pub(super) fn parse(frame: &[u8]) -> Result<Timer> {
    timing::alone(object::load()?, "lab_parse", frame)
}

/// The lab's object, with buckets that allow one packet and then none.
fn spent() -> Result<Ebpf> {
    let mut object = object::load()?;
    let map = object.map_mut("lab_bucket_rate").context("no map lab_bucket_rate")?;
    Array::<_, [u64; 3]>::try_from(map)?.set(0, [1 << 50, 0, 0x5bd1_e995_7b93_02c7], 0)?;
    Ok(object)
}

fn behind(
    (before, bits): (Before, u32),
    mut object: Ebpf,
    name: &'static str,
    frame: &[u8],
    expected: &'static [u32],
) -> Result<Timer> {
    let fd = object::program(&mut object, name)?.fd()?.try_clone()?;
    let timer = before.timer_of(bits, &fd, frame, expected)?;
    // The program and its maps live as long as the timer.
    Ok(Box::new(move |repeat| {
        let _ = &object;
        timer(repeat)
    }))
}
