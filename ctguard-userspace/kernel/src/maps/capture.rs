//! The kernel's side of `ctguard capture`: the order that the data path obeys, and the buffers that
//! its copies come through.
//!
//! Nothing stays on after a capture that was killed: the kernel takes its buffers out of the map when
//! it closes its descriptor (`perf_event_fd_array_release`), and the order ends by itself.

use std::{io, mem::offset_of};

use aya::{
    maps::{
        Map, MapData, MapError, PerCpuArray, PerfEventArray,
        perf::{PerfBufferError, PerfEvent, PerfEventArrayBuffer},
    },
    util::online_cpus,
};
use ctguard_layout::{CaptureOrder, CaptureState, Captured, Environment, maps};
use thiserror::Error;

use super::{
    OpenError,
    memory::{InPlace, Value},
    open::{in_memory, open},
};
use crate::bpf::Pins;

/// What users may lock without `CAP_IPC_LOCK` for each CPU (`perf_event_mlock_kb`): 128 pages of data,
/// and one more.
const BUFFER_PAGES: usize = 128;
const ORDER: usize = offset_of!(Environment, capture);

#[derive(Debug, Error)]
pub enum CaptureError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("not permitted to open a perf buffer; be root (or have CAP_PERFMON)")]
    NotPermitted,
    #[error("cannot open the perf buffer of CPU {cpu}")]
    Buffer { cpu: u32, source: PerfBufferError },
    #[error("cannot read {file}")]
    Processors { file: &'static str, source: io::Error },
}

pub struct Capture {
    environment: InPlace<Environment>,
    states: PerCpuArray<MapData, Value<CaptureState>>,
    buffers: Vec<PerfEventArrayBuffer<MapData>>,
    pins: Pins,
    map: u32,
    before: Tally,
}

/// Packets of all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// That the order asked for.
    pub seen: u64,
    /// That the data path copied, or would have if a buffer had not been full.
    pub sent: u64,
}

impl Capture {
    /// Opens the buffers; nothing is copied yet. One at a time, which the caller's lock sees to.
    pub fn open(pins: &Pins) -> Result<Self, CaptureError> {
        let failed = |name| move |source| OpenError::Map { name, source };
        let captured = open(pins, maps::CAPTURED)?;
        let map = id_of(&captured)?;
        let mut captured = PerfEventArray::try_from(Map::PerfEventArray(captured))
            .map_err(failed(maps::CAPTURED))?;
        let states = Map::PerCpuArray(open(pins, maps::CAPTURE_STATE)?);
        let states = PerCpuArray::try_from(states).map_err(failed(maps::CAPTURE_STATE))?;
        let cpus =
            online_cpus().map_err(|(file, source)| CaptureError::Processors { file, source })?;
        let buffers = cpus.into_iter().map(|cpu| {
            captured.open(cpu, Some(BUFFER_PAGES)).map_err(|source| buffer_error(cpu, source))
        });
        let buffers = buffers.collect::<Result<_, _>>()?;
        let environment = in_memory(pins, maps::ENVIRONMENT, InPlace::map)?;
        let before = Tally::default();
        let mut capture = Self { environment, states, buffers, pins: pins.clone(), map, before };
        // What a killed capture ordered is over, but its filter must not meet a new time.
        capture.order(&CaptureOrder::default());
        capture.before = capture.counts()?;
        Ok(capture)
    }

    /// Tells the data path what to copy, and until when.
    pub fn order(&self, order: &CaptureOrder) {
        let environment = Environment { capture: *order, ..self.environment.get(0) };
        // The time is the first word.
        self.environment.set(0, ORDER + size_of::<u64>()..size_of::<Environment>(), &environment);
        self.environment.set(0, ORDER..ORDER + size_of::<u64>(), &environment);
    }

    /// Hands over each copy that has come.
    pub fn read(&mut self, mut each: impl FnMut(Captured, &[u8])) {
        for buffer in &mut self.buffers {
            buffer.for_each(|event| {
                let PerfEvent::Sample { head, tail } = event else { return };
                let joined;
                let copy = if tail.is_empty() {
                    head
                } else {
                    joined = [head, tail].concat();
                    &joined
                };
                if let Some((captured, bytes)) = Captured::split(copy) {
                    each(captured, bytes);
                }
            });
        }
    }

    /// Packets since it was opened.
    pub fn tally(&self) -> Result<Tally, OpenError> {
        let now = self.counts()?;
        Ok(Tally {
            seen: now.seen.wrapping_sub(self.before.seen),
            sent: now.sent.wrapping_sub(self.before.sent),
        })
    }

    /// Whether the guard is still there, and is the one that it was.
    pub fn is_of_this_guard(&self) -> bool {
        open(&self.pins, maps::CAPTURED)
            .is_ok_and(|captured| id_of(&captured).is_ok_and(|id| id == self.map))
    }

    fn counts(&self) -> Result<Tally, OpenError> {
        let name = maps::CAPTURE_STATE;
        let states = self.states.get(&0, 0).map_err(|source| OpenError::Map { name, source })?;
        Ok(states.iter().fold(Tally::default(), |sum, Value(state)| Tally {
            seen: sum.seen.wrapping_add(state.seen),
            sent: sum.sent.wrapping_add(state.sent),
        }))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.order(&CaptureOrder::default());
    }
}

fn id_of(captured: &MapData) -> Result<u32, OpenError> {
    let info = captured.info();
    info.map(|info| info.id())
        .map_err(|source: MapError| OpenError::Map { name: maps::CAPTURED, source })
}

fn buffer_error(cpu: u32, source: PerfBufferError) -> CaptureError {
    match &source {
        PerfBufferError::OpenError { io_error } | PerfBufferError::MMapError { io_error }
            if io_error.kind() == io::ErrorKind::PermissionDenied =>
        {
            CaptureError::NotPermitted
        }
        PerfBufferError::InvalidPageCount { .. }
        | PerfBufferError::OpenError { .. }
        | PerfBufferError::MMapError { .. }
        | PerfBufferError::PerfEventEnableError { .. }
        | PerfBufferError::IOError(_) => CaptureError::Buffer { cpu, source },
    }
}
