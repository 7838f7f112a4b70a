//! `BPF_PROG_LOAD` of an XDP program, with the BTF objects that its calls refer to.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya_obj::generated::bpf_insn;

use super::{ATTACH_XDP, bpf_open};

const PROG_LOAD: libc::c_int = 5;
/// `BPF_PROG_TYPE_XDP`.
const TYPE_XDP: u32 = 6;
/// `BPF_F_XDP_HAS_FRAGS`.
const HAS_FRAGMENTS: u32 = 1 << 5;
/// `BPF_LOG_LEVEL1` (`include/linux/bpf_verifier.h`).
const LOG_FAILURE: u32 = 1;

pub(in crate::bpf) struct XdpProgram<'a> {
    /// The kernel keeps 15 bytes.
    pub(in crate::bpf) name: &'a str,
    pub(in crate::bpf) instructions: &'a [bpf_insn],
    pub(in crate::bpf) licence: &'a CStr,
    pub(in crate::bpf) fragments: bool,
    /// The BTF object that a call with offset 1 refers to.
    pub(in crate::bpf) module: Option<BorrowedFd<'a>>,
}

/// `union bpf_attr` of `BPF_PROG_LOAD`, up to `fd_array` (Linux 5.14).
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
    btf: u32,
    function_info_record: u32,
    function_info: u64,
    function_info_count: u32,
    line_info_record: u32,
    line_info: u64,
    line_info_count: u32,
    attach_btf_id: u32,
    attach_program: u32,
    relocation_count: u32,
    fd_array: u64,
}

const _: () = assert!(size_of::<ProgLoad>() == 128);

/// The verifier writes into `log` unless that is empty.
pub(in crate::bpf) fn load_xdp(program: &XdpProgram<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    // The kernel reads only the entries that instructions refer to; index 0 means the kernel itself.
    let fds = program.module.map(|module| [0, module.as_raw_fd()]);
    let mut name = [0; 16];
    for (to, from) in name.iter_mut().take(15).zip(program.name.bytes()) {
        *to = from;
    }
    let logs = !log.is_empty();
    let mut attributes = ProgLoad {
        kind: TYPE_XDP,
        instruction_count: count(program.instructions.len())?,
        instructions: program.instructions.as_ptr() as u64,
        licence: program.licence.as_ptr() as u64,
        log_level: if logs { LOG_FAILURE } else { 0 },
        log_bytes: count(log.len())?,
        log: if logs { log.as_mut_ptr() as u64 } else { 0 },
        flags: if program.fragments { HAS_FRAGMENTS } else { 0 },
        name,
        expected_attach_type: ATTACH_XDP,
        fd_array: fds.as_ref().map_or(0, |fds| fds.as_ptr() as u64),
        ..ProgLoad::default()
    };
    // SAFETY: PROG_LOAD reads a `ProgLoad`, the instructions, the licence and the descriptors, and
    // writes at most `log_bytes` to the log; all of them outlive the call. It returns a new
    // descriptor.
    unsafe { bpf_open(PROG_LOAD, &mut attributes) }
}

fn count(length: usize) -> io::Result<u32> {
    u32::try_from(length).map_err(io::Error::other)
}
