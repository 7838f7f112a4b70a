//! Finds the BTF object of a kernel module, for programs that call its functions.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use super::{InfoByFd, OBJ_GET_INFO_BY_FD, ObjectId, bpf, number, open_by_id};

const BTF_GET_FD_BY_ID: libc::c_int = 19;
const BTF_GET_NEXT_ID: libc::c_int = 23;

/// `MODULE_NAME_LEN` (`include/linux/module.h`) is less.
const NAME_BYTES: usize = 64;

/// `struct bpf_btf_info`.
#[repr(C)]
#[derive(Default)]
struct BtfInfo {
    btf: u64,
    btf_bytes: u32,
    id: u32,
    name: u64,
    name_bytes: u32,
    /// 1 for the kernel's and its modules', 0 for a program's own.
    of_kernel: u32,
}

/// The BTF object of a loaded module, if it has one. Needs `CAP_SYS_ADMIN`.
pub(in crate::bpf) fn module_btf(module: &str) -> io::Result<Option<OwnedFd>> {
    let mut id = 0;
    loop {
        id = match next_id(id) {
            Ok(id) => id,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        };
        let fd = match open_by_id(BTF_GET_FD_BY_ID, id) {
            Ok(fd) => fd,
            // The module was unloaded meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(error) => return Err(error),
        };
        if is_of_module(fd.as_fd(), module)? {
            return Ok(Some(fd));
        }
    }
}

fn next_id(after: u32) -> io::Result<u32> {
    let mut attributes = ObjectId { id: after, next: 0, open_flags: 0 };
    // SAFETY: BTF_GET_NEXT_ID reads and writes an `ObjectId`.
    unsafe { bpf(BTF_GET_NEXT_ID, &mut attributes) }?;
    Ok(attributes.next)
}

fn is_of_module(btf: BorrowedFd<'_>, module: &str) -> io::Result<bool> {
    let mut name = [0_u8; NAME_BYTES];
    let mut info = BtfInfo {
        name: name.as_mut_ptr() as u64,
        name_bytes: u32::try_from(NAME_BYTES).unwrap_or_default(),
        ..BtfInfo::default()
    };
    let mut attributes = InfoByFd {
        fd: number(btf),
        length: u32::try_from(size_of::<BtfInfo>()).unwrap_or_default(),
        info: (&raw mut info) as u64,
    };
    // SAFETY: OBJ_GET_INFO_BY_FD writes at most `length` bytes to `info` and `name_bytes` bytes to
    // `name`; both are that long, outlive the call and allow any bit pattern.
    match unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attributes) } {
        Ok(_) => {}
        // Another module, with a name that does not fit.
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => return Ok(false),
        Err(error) => return Err(error),
    }
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    Ok(info.of_kernel == 1 && name == module.as_bytes())
}
