//! Loads the embedded object. Maps that are pinned are used again, missing ones are made.

use std::{
    cell::OnceCell,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::MapError,
    pin::PinError,
    programs::{ProgramError, ProgramFd, SchedClassifier, Xdp},
    sys::SyscallError,
};
use ctguard_datapath::sources;
use ctguard_layout::{Detection, maps, programs};
use ctguard_units::{
    Sample,
    sizes::{ANSWERED_LINES, CHALLENGED_LINES, PREFIX_LINES, SERVICE_LINES, Sizes},
};
use log::warn;
use thiserror::Error;

use super::{
    DetectionChoice, Detector, FunctionsError, Pins, clock, kernel_functions::KernelFunctions,
    object::OBJECT, program_load, refusal::Refusal,
};

/// Size of the log's ring buffer if nobody reads it.
const UNREAD_LOG_BYTES: u32 = 4096;

#[derive(Debug, Error)]
pub enum LoadError {
    #[error("this kernel has no BPF system call")]
    NoBpf,
    #[error("not permitted to load BPF programs; be root, or have CAP_BPF and CAP_NET_ADMIN")]
    NotPermitted,
    #[error("cannot load the object")]
    Object(#[from] EbpfError),
    #[error("the object lacks program {0}")]
    Missing(&'static str),
    #[error("the object lacks map {0}")]
    MissingMap(String),
    #[error("the kernel refuses program {name} {refusal}")]
    Program { name: &'static str, refusal: Refusal },
    #[error(transparent)]
    Functions(#[from] FunctionsError),
    #[error("conntrack cannot be asked about flows: {0}; --new-flow-detection auto does without")]
    Conntrack(#[source] Box<LoadError>),
    #[error("cannot pin the programs")]
    Pin(#[source] io::Error),
}

impl LoadError {
    /// Why conntrack is not asked, if the program that asks it fails like this.
    fn detection(&self) -> Detection {
        match self {
            Self::Functions(error) => error.detection(),
            Self::Conntrack(error) => error.detection(),
            Self::NotPermitted => Detection::NotPermitted,
            Self::NoBpf
            | Self::Object(_)
            | Self::Missing(_)
            | Self::MissingMap(_)
            | Self::Program { .. }
            | Self::Pin(_) => Detection::Refused,
        }
    }
}

#[derive(Debug)]
pub struct Programs {
    /// All maps, and the clock and egress programs.
    object: Ebpf,
    ingress: OwnedFd,
    /// The same without `BPF_F_XDP_HAS_FRAGS`, loaded when a driver needs it.
    plain: OnceCell<OwnedFd>,
    detector: Detector,
    clock_read: Option<Sample>,
}

impl Programs {
    /// Loads every program; `trace` compiles the log in.
    pub fn load(
        pins: &Pins,
        sizes: Sizes,
        trace: bool,
        detection: DetectionChoice,
    ) -> Result<Self, LoadError> {
        let mut object = load_object(pins, sizes, trace)?;
        let clock: &mut Xdp = program(&mut object, programs::CLOCK)?;
        clock.load().map_err(|source| refused(programs::CLOCK, &source))?;
        let clock_read = clock::edge(clock).ok();
        let egress: &mut SchedClassifier = program(&mut object, programs::EGRESS)?;
        egress.load().map_err(|source| refused(programs::EGRESS, &source))?;
        let (ingress, detector) = load_ingress(&object, detection)?;
        Ok(Self { object, ingress, plain: OnceCell::new(), detector, clock_read })
    }

    /// A reading of the kernel's clock from before the large programs were loaded. That takes long
    /// enough for this reading and the next to calibrate the clock.
    pub fn clock_read(&self) -> Option<Sample> {
        self.clock_read
    }

    /// Pins all programs in place of those of an earlier start.
    pub fn pin(&self, pins: &Pins) -> Result<(), LoadError> {
        for name in [programs::CLOCK, programs::EGRESS] {
            let fd = fd_of(&self.object, name)?;
            pins.replace_program(name, fd).map_err(LoadError::Pin)?;
        }
        pins.replace_program(programs::INGRESS, self.ingress()).map_err(LoadError::Pin)
    }

    /// Pins again what somebody removed; the directory must be there.
    pub fn pin_again(&self, pins: &Pins) -> Result<(), LoadError> {
        for name in maps::PINNED {
            let path = pins.map(name);
            if !path.exists() {
                let map = self.object.map(name);
                let map = map.ok_or_else(|| LoadError::MissingMap(name.to_owned()))?;
                map.pin(path).map_err(|error| LoadError::Pin(unpinned(error)))?;
            }
        }
        self.pin(pins)
    }

    pub fn detector(&self) -> &Detector {
        &self.detector
    }

    /// The XDP program, which also takes frames in fragments.
    pub(super) fn ingress(&self) -> BorrowedFd<'_> {
        self.ingress.as_fd()
    }

    /// The XDP program for drivers that do not support fragments.
    pub(super) fn plain_ingress(&self) -> Result<BorrowedFd<'_>, LoadError> {
        if let Some(plain) = self.plain.get() {
            return Ok(plain.as_fd());
        }
        let functions = self.detector.functions();
        let plain = program_load::load_xdp(programs::INGRESS, &self.object, functions, false)?;
        Ok(self.plain.get_or_init(|| plain).as_fd())
    }

    pub(super) fn egress(&mut self) -> Result<&mut SchedClassifier, LoadError> {
        program(&mut self.object, programs::EGRESS)
    }

    /// For the reader of the log's ring buffer.
    pub fn object_mut(&mut self) -> &mut Ebpf {
        &mut self.object
    }
}

/// Loads the XDP program that asks conntrack, or else the one that asks the flow cache.
fn load_ingress(object: &Ebpf, choice: DetectionChoice) -> Result<(OwnedFd, Detector), LoadError> {
    let load = |functions: Option<&KernelFunctions>| {
        program_load::load_xdp(programs::INGRESS, object, functions, true)
    };
    let reason = if choice == DetectionChoice::FlowCache {
        Detection::Forced
    } else {
        let asking = KernelFunctions::find()
            .map_err(LoadError::from)
            .and_then(|functions| Ok((load(Some(&functions))?, Detector::Conntrack(functions))));
        match asking {
            Ok(asking) => return Ok(asking),
            Err(error) if choice == DetectionChoice::Conntrack => {
                return Err(LoadError::Conntrack(Box::new(error)));
            }
            Err(error) => {
                warn!("new flows are told by the flow cache: {error}");
                error.detection()
            }
        }
    };
    Ok((load(None)?, Detector::FlowCache(reason)))
}

fn load_object(pins: &Pins, sizes: Sizes, trace: bool) -> Result<Ebpf, LoadError> {
    let level = if trace { aya_log::Level::Trace as u8 } else { 0 };
    let mut loader = EbpfLoader::new();
    loader
        .map_max_entries(maps::BUCKETS_SOURCE, sizes.source_lines)
        .map_max_entries(maps::OFFERED_SOURCE, sizes.source_lines)
        .map_max_entries(maps::BUCKETS_PREFIX, PREFIX_LINES)
        .map_max_entries(maps::BUCKETS_SERVICE, SERVICE_LINES)
        .map_max_entries(maps::SOURCES, sources::ALL_LINES)
        .map_max_entries(maps::SOURCE_CELLS, sources::SLOTS)
        .map_max_entries(maps::RETRIES, sizes.retry_lines)
        .map_max_entries(maps::ANSWERED, ANSWERED_LINES)
        .map_max_entries(maps::CHALLENGED, CHALLENGED_LINES)
        .map_max_entries(maps::FLOW_CACHE, sizes.flow_lines)
        .map_max_entries(maps::KNOWN_FLOWS, sizes.known_words)
        .override_global(aya_log::LEVEL, &level, false);
    if !trace {
        loader.map_max_entries("AYA_LOGS", UNREAD_LOG_BYTES);
    }
    for name in maps::PINNED {
        loader.map_pin_path(name, pins.map(name));
    }
    loader.load(OBJECT).map_err(|error| match os_error(&error) {
        Some(libc::ENOSYS) => LoadError::NoBpf,
        Some(libc::EPERM | libc::EACCES) => LoadError::NotPermitted,
        _ => error.into(),
    })
}

fn program<'a, P>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, LoadError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    object
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(LoadError::Missing(name))
}

fn fd_of<'a>(object: &'a Ebpf, name: &'static str) -> Result<&'a ProgramFd, LoadError> {
    let program = object.program(name).ok_or(LoadError::Missing(name))?;
    program.fd().map_err(|error| refused(name, &error))
}

fn refused(name: &'static str, error: &ProgramError) -> LoadError {
    if let ProgramError::LoadError { io_error, .. } = error
        && io_error.raw_os_error() == Some(libc::EPERM)
    {
        return LoadError::NotPermitted;
    }
    LoadError::Program { name, refusal: error.into() }
}

fn unpinned(error: PinError) -> io::Error {
    match error {
        PinError::SyscallError(error) => error.io_error,
        error @ (PinError::InvalidPinPath { .. } | PinError::NoFd { .. }) => {
            io::Error::other(error)
        }
    }
}

fn os_error(error: &EbpfError) -> Option<i32> {
    let EbpfError::MapError(error) = error else { return None };
    if let MapError::CreateError { io_error, .. }
    | MapError::SyscallError(SyscallError { io_error, .. }) = error
    {
        return io_error.raw_os_error();
    }
    None
}
