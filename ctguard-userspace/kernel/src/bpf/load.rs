//! Loads the embedded object against the pinned maps, making those that are missing.

use std::{
    cell::OnceCell,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::MapError,
    programs::{ProgramError, ProgramFd, SchedClassifier, Xdp},
    sys::SyscallError,
};
use ctguard_datapath::sources;
use ctguard_layout::{Detection, maps, programs};
use log::warn;
use thiserror::Error;

use ctguard_units::Sample;

use ctguard_units::sizes::{
    ANSWERED_LINES, PREFIX_LINES, RESET_LINES, RETRY_LINES, SERVICE_LINES, Sizes,
};

use super::{
    DetectionChoice, Detector, FunctionsError, Pins, clock,
    kernel_functions::KernelFunctions,
    object::{OBJECT, with_functions, without_fragments},
    program_load,
    refusal::Refusal,
};

/// The ring buffer of the log, unless somebody reads it.
const UNREAD_LOG_BYTES: u32 = 4096;

/// Why the object is not in the kernel.
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
    #[error("cannot keep the programs")]
    Descriptor(#[source] io::Error),
    #[error("cannot pin the programs")]
    Pin(#[source] io::Error),
}

impl LoadError {
    /// What it means when the program that asks conntrack fails so.
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
            | Self::Descriptor(_)
            | Self::Pin(_) => Detection::Refused,
        }
    }
}

/// The loaded programs.
#[derive(Debug)]
pub struct Programs {
    /// Every map, and the programs without calls of kernel functions.
    object: Ebpf,
    ingress: OwnedFd,
    /// The same without `BPF_F_XDP_HAS_FRAGS`, loaded when a driver wants it so.
    plain: OnceCell<OwnedFd>,
    detector: Detector,
    pins: Pins,
    sizes: Sizes,
    trace: bool,
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
        let mut object = load_object(&with_functions(OBJECT, None), pins, sizes, trace)?;
        load_xdp(&mut object, programs::CLOCK)?;
        let clock: &mut Xdp = program(&mut object, programs::CLOCK)?;
        let clock_read = clock::edge(clock).ok();
        let egress: &mut SchedClassifier = program(&mut object, programs::EGRESS)?;
        egress.load().map_err(|source| refused(programs::EGRESS, &source))?;
        let (ingress, detector) = match ask_conntrack(&object, detection)? {
            Ok(asking) => asking,
            Err(why) => (load_xdp(&mut object, programs::INGRESS)?, Detector::FlowCache(why)),
        };
        let pins = pins.clone();
        let plain = OnceCell::new();
        Ok(Self { object, ingress, plain, detector, pins, sizes, trace, clock_read })
    }

    /// The kernel's clock before the verifier had the large programs, which takes it longer than a
    /// calibration needs.
    pub fn clock_read(&self) -> Option<Sample> {
        self.clock_read
    }

    /// Pins every program, replacing those of an earlier start.
    pub fn pin(&self) -> Result<(), LoadError> {
        for name in [programs::CLOCK, programs::EGRESS] {
            let fd = fd_of(&self.object, name)?;
            self.pins.replace_program(name, fd).map_err(LoadError::Pin)?;
        }
        self.pins.replace_program(programs::INGRESS, self.ingress()).map_err(LoadError::Pin)
    }

    /// How the XDP program tells new flows from known ones.
    pub fn detector(&self) -> &Detector {
        &self.detector
    }

    /// The XDP program, for frames in fragments too.
    pub(super) fn ingress(&self) -> BorrowedFd<'_> {
        self.ingress.as_fd()
    }

    /// The XDP program for drivers that have no fragments.
    pub(super) fn plain_ingress(&self) -> Result<BorrowedFd<'_>, LoadError> {
        if self.plain.get().is_none() {
            let loaded = match &self.detector {
                Detector::Conntrack(functions) => {
                    program_load::load_xdp(programs::INGRESS, &self.object, functions, false)?
                }
                Detector::FlowCache(_) => self.load_plain()?,
            };
            // Empty, as just seen.
            let _ = self.plain.set(loaded);
        }
        self.plain.get().map(AsFd::as_fd).ok_or(LoadError::Missing(programs::INGRESS))
    }

    fn load_plain(&self) -> Result<OwnedFd, LoadError> {
        let renamed = without_fragments(&with_functions(OBJECT, None))
            .ok_or(LoadError::Missing(programs::INGRESS))?;
        let mut object = load_object(&renamed, &self.pins, self.sizes, self.trace)?;
        load_xdp(&mut object, programs::INGRESS)
    }

    /// The traffic-control program.
    pub(super) fn egress(&mut self) -> Result<&mut SchedClassifier, LoadError> {
        program(&mut self.object, programs::EGRESS)
    }

    /// What reads the log's ring buffer.
    pub fn object_mut(&mut self) -> &mut Ebpf {
        &mut self.object
    }
}

/// The XDP program that asks conntrack, or why the flow cache does without.
fn ask_conntrack(
    object: &Ebpf,
    choice: DetectionChoice,
) -> Result<Result<(OwnedFd, Detector), Detection>, LoadError> {
    if choice == DetectionChoice::FlowCache {
        return Ok(Err(Detection::Forced));
    }
    let asking = KernelFunctions::find().map_err(LoadError::from).and_then(|functions| {
        let loaded = program_load::load_xdp(programs::INGRESS, object, &functions, true)?;
        Ok((loaded, Detector::Conntrack(functions)))
    });
    match asking {
        Ok(asking) => Ok(Ok(asking)),
        Err(error) if choice == DetectionChoice::Conntrack => {
            Err(LoadError::Conntrack(Box::new(error)))
        }
        Err(error) => {
            warn!("new flows are told by the flow cache: {error}");
            Ok(Err(error.detection()))
        }
    }
}

fn load_object(bytes: &[u8], pins: &Pins, sizes: Sizes, trace: bool) -> Result<Ebpf, LoadError> {
    let level = if trace { aya_log::Level::Trace as u8 } else { 0 };
    let mut loader = EbpfLoader::new();
    loader
        .map_max_entries(maps::BUCKETS_SOURCE, sizes.source_lines)
        .map_max_entries(maps::OFFERED_SOURCE, sizes.source_lines)
        .map_max_entries(maps::BUCKETS_PREFIX, PREFIX_LINES)
        .map_max_entries(maps::BUCKETS_SERVICE, SERVICE_LINES)
        .map_max_entries(maps::SOURCES, sources::LINES)
        .map_max_entries(maps::SOURCE_CELLS, sources::SLOTS)
        .map_max_entries(maps::RETRIES, RETRY_LINES)
        .map_max_entries(maps::ANSWERED, ANSWERED_LINES)
        .map_max_entries(maps::RESETS, RESET_LINES)
        .map_max_entries(maps::FLOW_CACHE, sizes.flow_lines)
        .map_max_entries(maps::KNOWN_FLOWS, sizes.known_words)
        .override_global(aya_log::LEVEL, &level, false);
    if !trace {
        loader.map_max_entries("AYA_LOGS", UNREAD_LOG_BYTES);
    }
    for name in maps::PINNED {
        loader.map_pin_path(name, pins.map(name));
    }
    loader.load(bytes).map_err(|error| match os_error(&error) {
        Some(libc::ENOSYS) => LoadError::NoBpf,
        Some(libc::EPERM | libc::EACCES) => LoadError::NotPermitted,
        _ => error.into(),
    })
}

fn load_xdp(object: &mut Ebpf, name: &'static str) -> Result<OwnedFd, LoadError> {
    let loaded: &mut Xdp = program(object, name)?;
    loaded.load().map_err(|source| refused(name, &source))?;
    fd_of(object, name)?.as_fd().try_clone_to_owned().map_err(LoadError::Descriptor)
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

fn os_error(error: &EbpfError) -> Option<i32> {
    let EbpfError::MapError(error) = error else { return None };
    if let MapError::CreateError { io_error, .. }
    | MapError::SyscallError(SyscallError { io_error, .. }) = error
    {
        return io_error.raw_os_error();
    }
    None
}
