//! Kills a program right before one of its system calls, as a crash between two steps would.

use std::{
    fs::File,
    io,
    os::unix::{fs::FileExt as _, process::CommandExt as _},
    process::{Child, Command},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::product::PATIENCE;

/// A system call that changes what is pinned in a directory or attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name in the manual.
    pub name: &'static str,
    /// The path that it is about; empty if it has none.
    pub path: String,
}

// Commands of `bpf(2)` (include/uapi/linux/bpf.h).
const OBJ_PIN: u64 = 6;
const LINK_CREATE: u64 = 28;
const LINK_UPDATE: u64 = 29;

/// Starts `command`, and kills it before the first of its steps that `is_it`; fails if it ends before.
pub fn kill_before(mut command: Command, mut is_it: impl FnMut(&Step) -> bool) -> Result<Step> {
    // SAFETY: between fork and exec it makes one system call, and allocates nothing.
    unsafe { command.pre_exec(|| trace(libc::PTRACE_TRACEME, 0, 0)) };
    let mut child = command.spawn().context("cannot start it")?;
    let pid = i32::try_from(child.id())?;
    let found = follow(pid, &mut is_it);
    end(&mut child)?;
    found
}

fn follow(pid: i32, is_it: &mut impl FnMut(&Step) -> bool) -> Result<Step> {
    let memory =
        |at: u64, bytes: &mut [u8]| File::open(format!("/proc/{pid}/mem"))?.read_at(bytes, at);
    let (mut is_first, began) = (true, Instant::now());
    loop {
        let mut status = 0;
        // SAFETY: the call writes one integer, which lives until it returns.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
        ensure!(waited == pid, "cannot wait for it: {}", io::Error::last_os_error());
        ensure!(began.elapsed() < PATIENCE, "it did not make that step in time");
        if !libc::WIFSTOPPED(status) {
            bail!("it ended before ({status:#x})");
        }
        if is_first {
            is_first = false;
            let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
            trace(libc::PTRACE_SETOPTIONS, pid, options)?;
        }
        let signal = libc::WSTOPSIG(status);
        let is_call = signal == libc::SIGTRAP | 0x80;
        if is_call
            && let Some((number, arguments)) = entered(pid)?
            && let Some(step) = step(number, arguments, memory)?
            && is_it(&step)
        {
            return Ok(step);
        }
        let deliver = if is_call || signal == libc::SIGTRAP { 0 } else { signal };
        trace(libc::PTRACE_SYSCALL, pid, deliver)?;
    }
}

/// The number and the arguments of the call that begins; none where one ends.
fn entered(pid: i32) -> Result<Option<(libc::c_long, [u64; 6])>> {
    let mut info = std::mem::MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    let size = size_of::<libc::ptrace_syscall_info>();
    // SAFETY: the kernel writes at most `size` bytes to `info`, which is that long.
    let got = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size, info.as_mut_ptr()) };
    ensure!(got > 0, "cannot read its call: {}", io::Error::last_os_error());
    // SAFETY: integers, for which zeroes are a value too.
    let info = unsafe { info.assume_init() };
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return Ok(None);
    }
    // SAFETY: `op` says which of the union's fields the kernel wrote.
    let entry = unsafe { info.u.entry };
    Ok(Some((libc::c_long::try_from(entry.nr)?, entry.args)))
}

fn step(
    number: libc::c_long,
    [first, second, third, ..]: [u64; 6],
    memory: impl Fn(u64, &mut [u8]) -> io::Result<usize>,
) -> Result<Option<Step>> {
    let (name, path) = match number {
        #[cfg(target_arch = "x86_64")]
        libc::SYS_mkdir => ("mkdir", first),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rename => ("rename", first),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_unlink => ("unlink", first),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rmdir => ("rmdir", first),
        libc::SYS_mkdirat => ("mkdir", second),
        libc::SYS_renameat | libc::SYS_renameat2 => ("rename", second),
        libc::SYS_unlinkat if third == 0 => ("unlink", second),
        libc::SYS_unlinkat => ("rmdir", second),
        libc::SYS_bpf => match first {
            OBJ_PIN => {
                let mut at = [0; 8];
                memory(second, &mut at)?;
                ("pin", u64::from_ne_bytes(at))
            }
            LINK_CREATE => ("attach", 0),
            LINK_UPDATE => ("update", 0),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let mut bytes = [0; 256];
    let read = if path == 0 { 0 } else { memory(path, &mut bytes)? };
    let text = bytes[..read].split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(Some(Step { name, path: String::from_utf8_lossy(text).into_owned() }))
}

fn trace(request: libc::c_uint, pid: i32, data: i32) -> io::Result<()> {
    let data = libc::c_long::from(data);
    // SAFETY: none of the requests made with this function touches this process's memory.
    match unsafe { libc::ptrace(request, pid, 0_usize, data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn end(child: &mut Child) -> Result<()> {
    // It may be gone.
    let _ = child.kill();
    child.wait().context("cannot wait for its end")?;
    Ok(())
}
