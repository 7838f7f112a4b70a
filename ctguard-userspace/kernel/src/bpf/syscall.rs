//! Raw `bpf(2)` for what aya 0.14 lacks or does in a way that ctguard cannot use: links and their
//! pins, the kernel's BTF objects, programs that call kernel functions.
//!
//! If the kernel refuses an XDP link with EINVAL, aya attaches by netlink instead, and nobody notices
//! when such an attachment ends. Here it is an error. One of the four modules of this crate with
//! unsafe code (the others are `maps::memory`, `net::driver` and `terminal`).

mod batch;
mod btf;
mod program;

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

pub(crate) use batch::BatchMap;
pub(super) use btf::module_btf;
pub(super) use program::{XdpProgram, load_xdp};

// Commands and attach types of `enum bpf_cmd` and `enum bpf_attach_type` (include/uapi/linux/bpf.h).
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
const ATTACH_XDP: u32 = 37;
const ATTACH_TCX_EGRESS: u32 = 47;
/// `BPF_F_BEFORE`: without a program to be relative to, before all others.
const BEFORE: u32 = 1 << 3;

/// `XDP_FLAGS_SKB_MODE`: the network stack runs the program.
pub(super) const XDP_GENERIC: u32 = 1 << 1;
/// `XDP_FLAGS_DRV_MODE`: the driver runs the program.
pub(super) const XDP_NATIVE: u32 = 1 << 2;

// `union bpf_attr` of the commands.

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    padding: u32,
    expected_revision: u64,
}

#[repr(C)]
struct LinkUpdate {
    link: u32,
    new_program: u32,
    flags: u32,
    old_program: u32,
}

#[repr(C)]
struct ObjectPath {
    path: u64,
    fd: u32,
    file_flags: u32,
}

#[repr(C)]
struct ObjectId {
    id: u32,
    next: u32,
    open_flags: u32,
}

#[repr(C)]
struct InfoByFd {
    fd: u32,
    length: u32,
    info: u64,
}

/// The start of `struct bpf_link_info`; `ifindex` is that of XDP and TCX links.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkInfo {
    kind: u32,
    id: u32,
    pub program: u32,
    padding: u32,
    /// 0 once the interface is gone.
    pub ifindex: u32,
    rest: [u32; 3],
}

/// `flags` is the mode, [`XDP_GENERIC`] or [`XDP_NATIVE`].
pub(super) fn attach_xdp(program: BorrowedFd<'_>, ifindex: u32, flags: u32) -> io::Result<OwnedFd> {
    create_link(program, ifindex, ATTACH_XDP, flags)
}

/// Attaches a traffic-control program before the other egress programs (Linux 6.6).
pub(super) fn attach_tcx_egress(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    create_link(program, ifindex, ATTACH_TCX_EGRESS, BEFORE)
}

fn create_link(
    program: BorrowedFd<'_>,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let program = number(program);
    let mut attributes =
        LinkCreate { program, ifindex, attach_type, flags, ..LinkCreate::default() };
    // SAFETY: LINK_CREATE reads a `LinkCreate`, stores nothing and returns a new descriptor.
    unsafe { bpf_open(LINK_CREATE, &mut attributes) }
}

/// Replaces the program of a link without a gap.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes =
        LinkUpdate { link: number(link), new_program: number(program), flags: 0, old_program: 0 };
    // SAFETY: LINK_UPDATE reads a `LinkUpdate` and stores nothing.
    unsafe { bpf(LINK_UPDATE, &mut attributes) }.map(|_| ())
}

/// Pins a program, map or link at `path` on a bpffs.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes =
        ObjectPath { path: path.as_ptr() as u64, fd: number(object), file_flags: 0 };
    // SAFETY: OBJ_PIN reads an `ObjectPath`, whose string lives until the end of this function.
    unsafe { bpf(OBJ_PIN, &mut attributes) }.map(|_| ())
}

/// Opens what is pinned at `path`.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = ObjectPath { path: path.as_ptr() as u64, fd: 0, file_flags: 0 };
    // SAFETY: OBJ_GET reads an `ObjectPath`, whose string lives until the end of this function, and
    // returns a new descriptor.
    unsafe { bpf_open(OBJ_GET, &mut attributes) }
}

pub(crate) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    open_by_id(PROG_GET_FD_BY_ID, id)
}

fn open_by_id(command: libc::c_int, id: u32) -> io::Result<OwnedFd> {
    let mut attributes = ObjectId { id, next: 0, open_flags: 0 };
    // SAFETY: the commands that open by id read an `ObjectId`, store nothing and return a new
    // descriptor.
    unsafe { bpf_open(command, &mut attributes) }
}

pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let mut attributes = InfoByFd {
        fd: number(link),
        length: u32::try_from(size_of::<LinkInfo>()).unwrap_or_default(),
        info: (&raw mut info) as u64,
    };
    // SAFETY: OBJ_GET_INFO_BY_FD writes at most `length` bytes to `info`, which is that long,
    // lives until the end of this function and allows any bit pattern.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(info)
}

/// `SO_NETNS_COOKIE`, which rustix lacks: a number of the socket's network namespace that is never given
/// to another (Linux 5.14).
pub(crate) fn namespace_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let (mut cookie, socket) = (0_u64, socket.as_raw_fd());
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).map_err(io::Error::other)?;
    let (value, length) = ((&raw mut cookie).cast(), &raw mut length);
    // SAFETY: the kernel writes at most `length` bytes to `cookie`, which is that long.
    match unsafe {
        libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, value, length)
    } {
        0 => Ok(cookie),
        _ => Err(io::Error::last_os_error()),
    }
}

/// # Safety
/// As [`bpf`]; `command` returns a new descriptor.
unsafe fn bpf_open<T>(command: libc::c_int, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attributes) }?;
    // SAFETY: on success the kernel made this descriptor for us, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// # Safety
/// `attributes` is what `command` expects, and every pointer in it is valid for the call.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: `attributes` is a live value of the size given; the rest is the caller's promise.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}
