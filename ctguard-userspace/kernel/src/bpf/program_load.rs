//! Loads the XDP program, with its calls of kernel functions or without.
//!
//! aya 0.14 passes no descriptors of modules' BTF to a load, so it cannot load a program that calls a
//! module's functions. `aya-obj` links the program against the maps that aya made, and our own system
//! call loads it. The clock and egress programs, which aya runs and attaches, are loaded by aya.

use std::{
    collections::HashSet,
    ffi::CString,
    io, mem,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
};

use aya::{Ebpf, EbpfError, maps::Map};
use aya_obj::{Object, generated::bpf_insn};

use super::{
    LoadError, direct_values,
    kernel_functions::KernelFunctions,
    object::{OBJECT, with_functions},
    refusal::Refusal,
    syscall::{self, XdpProgram},
};

const FIRST_LOG_BYTES: usize = 1 << 20;
const LAST_LOG_BYTES: usize = 1 << 26;
/// A signal interrupts the verifier (`do_check`), with EAGAIN.
const ATTEMPTS: usize = 6;

struct Linked {
    instructions: Vec<bpf_insn>,
    licence: CString,
}

/// Loads the XDP program `name` against the maps of `loaded`, for frames in fragments or not.
pub(super) fn load_xdp(
    name: &'static str,
    loaded: &Ebpf,
    functions: Option<&KernelFunctions>,
    fragments: bool,
) -> Result<OwnedFd, LoadError> {
    let linked = |reads_fragments| {
        let locations = functions.map(|functions| &functions.locations);
        let bytes = with_functions(OBJECT, locations, reads_fragments);
        link(&bytes, name, |map| Ok(fd_of(loaded, map)?.as_raw_fd()))
    };
    let (reading, plain) = (linked(true)?, linked(false)?);
    let module = functions.and_then(KernelFunctions::module);
    let program = |linked, fragments| linked_program(name, linked, fragments, module);
    let all = [program(&reading, true), program(&plain, true), program(&plain, false)];
    let wanted = if fragments { &all[..] } else { &all[2..] };
    load_supported(wanted, |program| load(program, &mut []))
        .map_err(|(error, program)| refused(name, &error, program))
}

/// Loads the XDP program `name` of another object, whose marked calls are rewritten, as [`load_xdp`] loads
/// that of the product.
#[cfg(feature = "testing")]
pub fn load_object(object: &[u8], name: &'static str, loaded: &Ebpf) -> Result<OwnedFd, LoadError> {
    let linked = link(object, name, |map| Ok(fd_of(loaded, map)?.as_raw_fd()))?;
    let program = linked_program(name, &linked, true, None);
    load(&program, &mut []).map_err(|error| refused(name, &error, &program))
}

fn refused(name: &'static str, error: &io::Error, program: &XdpProgram<'_>) -> LoadError {
    if error.raw_os_error() == Some(libc::EPERM) {
        LoadError::NotPermitted
    } else {
        LoadError::Program { name, refusal: Refusal::new(error, &log_of(program)) }
    }
}

/// Links the program `name`; `fd` finds the descriptor of each map.
fn link(
    object: &[u8],
    name: &'static str,
    fd: impl Fn(&str) -> Result<RawFd, LoadError>,
) -> Result<Linked, LoadError> {
    let mut object = Object::parse(object).map_err(EbpfError::from)?;
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let definitions = mem::take(&mut object.maps);
    let single = direct_values::MAPS.into_iter().map(&fd).collect::<Result<_, LoadError>>()?;
    let maps = definitions
        .iter()
        .map(|(name, map)| Ok((name.as_str(), fd(name)?, map)))
        .collect::<Result<Vec<_>, LoadError>>()?;
    object.relocate_maps(maps.into_iter(), &sections).map_err(EbpfError::from)?;
    object.relocate_calls(&sections).map_err(EbpfError::from)?;

    let program = object.programs.remove(name).ok_or(LoadError::Missing(name))?;
    let mut function =
        object.functions.remove(&program.function_key()).ok_or(LoadError::Missing(name))?;
    direct_values::replace_lookups(&mut function.instructions, &single);
    Ok(Linked { instructions: function.instructions, licence: program.license })
}

fn fd_of<'o>(loaded: &'o Ebpf, name: &str) -> Result<BorrowedFd<'o>, LoadError> {
    let missing = || LoadError::MissingMap(name.to_owned());
    #[expect(clippy::wildcard_enum_match_arm, reason = "the object has maps of these kinds alone")]
    match loaded.map(name).ok_or_else(missing)? {
        Map::Array(map)
        | Map::PerCpuArray(map)
        | Map::LpmTrie(map)
        | Map::RingBuf(map)
        | Map::PerfEventArray(map) => Ok(map.fd().as_fd()),
        _ => Err(missing()),
    }
}

fn linked_program<'l>(
    name: &'l str,
    Linked { instructions, licence }: &'l Linked,
    fragments: bool,
    module: Option<BorrowedFd<'l>>,
) -> XdpProgram<'l> {
    XdpProgram { name, instructions, licence, fragments, module }
}

/// Loads the first program that the kernel supports; on failure, returns the last with its error.
///
/// Linux before 5.18 knows neither the flag for fragments nor the helpers that read them (EINVAL); its
/// drivers make none. Without `CAP_PERFMON`, the kernel refuses to compare pointers into the copy of their
/// headers (EACCES).
fn load_supported<'p, 'l, T>(
    programs: &'p [XdpProgram<'l>],
    load: impl Fn(&XdpProgram<'l>) -> io::Result<T>,
) -> Result<T, (io::Error, &'p XdpProgram<'l>)> {
    let mut last = None;
    for program in programs {
        match load(program) {
            Ok(loaded) => return Ok(loaded),
            Err(error) => {
                let may_be_the_fragments =
                    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EACCES));
                last = Some((error, program));
                if !may_be_the_fragments {
                    break;
                }
            }
        }
    }
    Err(last.expect("there is a program"))
}

fn load(program: &XdpProgram<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    let mut result = syscall::load_xdp(program, log);
    for _ in 1..ATTEMPTS {
        match &result {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                result = syscall::load_xdp(program, log);
            }
            Ok(_) | Err(_) => break,
        }
    }
    result
}

/// What the verifier says about a program that it refuses. The kernel keeps the end of a log that is
/// longer than the last buffer.
fn log_of(program: &XdpProgram<'_>) -> String {
    let mut bytes = FIRST_LOG_BYTES;
    loop {
        let mut log = vec![0; bytes];
        let result = load(program, &mut log);
        let is_cut = result.is_err_and(|error| error.raw_os_error() == Some(libc::ENOSPC));
        if !is_cut || bytes >= LAST_LOG_BYTES {
            let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
            return String::from_utf8_lossy(&log[..end]).into_owned();
        }
        bytes *= 4;
    }
}

#[cfg(test)]
mod tests;
