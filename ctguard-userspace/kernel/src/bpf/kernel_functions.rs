//! Finds conntrack's functions for BPF programs in the types of the running kernel (BTF).
//!
//! If conntrack is a module, they are among the module's types, which continue the kernel's. The
//! types are copied to memory and searched there: on Linux 6.18 (5.3 MiB) that takes 15 ms and
//! 6.5 MiB for a moment, while parsing them takes 100 ms and 40 MiB.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use btf_rs::{Backend, Btf, Type};
use ctguard_layout::{
    Detection,
    kernel_functions::{Location, Locations},
};
use rustix::fs::{MemfdFlags, memfd_create};
use thiserror::Error;

use super::syscall;

const TYPES: &str = "/sys/kernel/btf";
const KERNEL: &str = "vmlinux";
const MODULE: &str = "nf_conntrack";

const LOOKUP: &str = "bpf_xdp_ct_lookup";
const RELEASE: &str = "bpf_ct_release";
const OPTIONS: &str = "bpf_ct_opts";
/// Until Linux 6.9; since Linux 6.10, with conntrack zones.
const OPTIONS_BYTES: [usize; 2] = [12, 16];

/// Index of the module in the `fd_array` of a load.
const MODULE_FD_INDEX: i16 = 1;

#[derive(Debug, Error)]
pub enum FunctionsError {
    #[error(
        "cannot read the kernel's types in {} ({reason}); it needs CONFIG_DEBUG_INFO_BTF, and /sys \
         as the kernel mounts it",
        path.display()
    )]
    Types { path: PathBuf, reason: String },
    #[error(
        "the kernel's types tell of no {0}; Linux 5.18 and later have it, as a module with \
         CONFIG_DEBUG_INFO_BTF_MODULES"
    )]
    Missing(&'static str),
    #[error("the kernel's struct {OPTIONS} has {0} bytes; only 12 and 16 are understood")]
    Options(usize),
    #[error(
        "not permitted to refer to the module {MODULE}, which has them; be root, or have \
         CAP_SYS_ADMIN"
    )]
    NotPermitted,
    #[error("cannot refer to the module {MODULE}")]
    Module(#[source] io::Error),
}

/// What a load needs in order to call both functions.
#[derive(Debug)]
pub struct KernelFunctions {
    pub(super) locations: Locations,
    /// Size of `struct bpf_ct_opts`.
    pub(super) options_bytes: u32,
    module: Option<OwnedFd>,
}

impl FunctionsError {
    pub(super) const fn detection(&self) -> Detection {
        match self {
            Self::Types { .. } => Detection::TypesUnreadable,
            Self::Missing(_) | Self::Module(_) => Detection::FunctionsMissing,
            Self::Options(_) => Detection::OptionsUnknown,
            Self::NotPermitted => Detection::NotPermitted,
        }
    }
}

impl KernelFunctions {
    pub(super) fn find() -> Result<Self, FunctionsError> {
        let (locations, options_bytes) = find_in(Path::new(TYPES))?;
        let module = if locations.lookup.fd_index == 0 { None } else { Some(open_module()?) };
        Ok(Self { locations, options_bytes, module })
    }

    /// The module's BTF object, if the functions are a module's.
    pub(super) fn module(&self) -> Option<BorrowedFd<'_>> {
        self.module.as_ref().map(AsFd::as_fd)
    }
}

/// Whether a guard could ask conntrack on this machine.
pub fn check() -> Result<(), FunctionsError> {
    KernelFunctions::find().map(|_| ())
}

fn open_module() -> Result<OwnedFd, FunctionsError> {
    match syscall::module_btf(MODULE) {
        Ok(Some(module)) => Ok(module),
        Ok(None) => Err(FunctionsError::Missing(LOOKUP)),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            Err(FunctionsError::NotPermitted)
        }
        Err(error) => Err(FunctionsError::Module(error)),
    }
}

/// Locations of both functions, and the size of their options.
type Found = (Locations, u32);

fn find_in(directory: &Path) -> Result<Found, FunctionsError> {
    let path = directory.join(KERNEL);
    let kernel = open(&path).map_err(|error| unreadable(&path, &error))?;
    if let Some(found) = search(&kernel, &path, 0)? {
        return Ok(found);
    }
    let path = directory.join(MODULE);
    if !path.exists() {
        return Err(FunctionsError::Missing(LOOKUP));
    }
    let module = Btf::from_split_file(&path, &kernel).map_err(|error| unreadable(&path, &error))?;
    search(&module, &path, MODULE_FD_INDEX)?.ok_or(FunctionsError::Missing(LOOKUP))
}

/// Copies the types to memory, because files in sysfs can be mapped only since Linux 6.16.
fn open(path: &Path) -> Result<Btf, btf_rs::Error> {
    let mut memory =
        File::from(memfd_create(KERNEL, MemfdFlags::CLOEXEC).map_err(io::Error::from)?);
    // Not by splice(2), which not every kernel can do from sysfs.
    let source: &mut dyn Read = &mut File::open(path)?;
    io::copy(source, &mut memory)?;
    let copy = format!("/proc/self/fd/{}", memory.as_raw_fd());
    Btf::from_file_with_backend(copy, Backend::Mmap)
}

/// `None` if the types lack the lookup.
fn search(types: &Btf, path: &Path, fd_index: i16) -> Result<Option<Found>, FunctionsError> {
    let failed = |error| unreadable(path, &error);
    let Some(lookup) = function(types, LOOKUP).map_err(failed)? else { return Ok(None) };
    let release = function(types, RELEASE).map_err(failed)?;
    let release = release.ok_or(FunctionsError::Missing(RELEASE))?;
    let bytes = size(types, OPTIONS).map_err(failed)?;
    let bytes = bytes.ok_or(FunctionsError::Missing(OPTIONS))?;
    let known = u32::try_from(bytes).ok().filter(|_| OPTIONS_BYTES.contains(&bytes));
    let at = |btf_id| Location { btf_id, fd_index };
    let locations = Locations { lookup: at(lookup), release: at(release) };
    Ok(Some((locations, known.ok_or(FunctionsError::Options(bytes))?)))
}

fn function(types: &Btf, name: &str) -> Result<Option<i32>, btf_rs::Error> {
    for id in types.resolve_ids_by_name(name)? {
        if let Type::Func(_) = types.resolve_type_by_id(id)? {
            return Ok(i32::try_from(id).ok());
        }
    }
    Ok(None)
}

fn size(types: &Btf, name: &str) -> Result<Option<usize>, btf_rs::Error> {
    for id in types.resolve_ids_by_name(name)? {
        if let Type::Struct(found) = types.resolve_type_by_id(id)? {
            return Ok(Some(found.size()));
        }
    }
    Ok(None)
}

fn unreadable(path: &Path, error: &btf_rs::Error) -> FunctionsError {
    let reason =
        if let btf_rs::Error::IO(error) = error { error.to_string() } else { error.to_string() };
    FunctionsError::Types { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests;
