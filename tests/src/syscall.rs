//! The raw system calls of the lab.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
    os::unix::fs::OpenOptionsExt as _,
};

use rustix::{
    ioctl::{Opcode, Setter, opcode},
    thread::Pid,
};

/// `struct ifreq` as `TUNSETIFF` reads it (linux/if.h): a name, flags, padding.
#[repr(C)]
struct TunRequest {
    name: [u8; 16],
    flags: libc::c_short,
    padding: [u8; 22],
}

const _: () = assert!(size_of::<TunRequest>() == 40);

const TUNSETIFF: Opcode = opcode::write::<libc::c_int>(b'T', 202);

/// Makes the TUN device `name` in this thread's network namespace: one IP packet a read or write,
/// nothing in front of it. The device lives as long as the file.
pub fn open_tun(name: &str) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    let flags = libc::IFF_TUN | libc::IFF_NO_PI;
    let mut request = TunRequest {
        name: [0; 16],
        flags: flags.try_into().map_err(io::Error::other)?,
        padding: [0; 22],
    };
    if name.len() >= request.name.len() {
        return Err(io::Error::other("an interface name has at most 15 bytes"));
    }
    request.name.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    // SAFETY: TUNSETIFF reads (and writes back) one `struct ifreq`, whose layout and size
    // `TunRequest` has; the name ends with a zero, which the length check above ensures.
    unsafe { rustix::ioctl::ioctl(&file, Setter::<TUNSETIFF, TunRequest>::new(request)) }?;
    Ok(file)
}

/// A packet socket that sends whole frames out of the device of this index, and receives nothing.
pub fn open_packet_socket(index: u32) -> io::Result<File> {
    // SAFETY: no memory is passed; protocol 0 receives nothing.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made, and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: `sockaddr_ll` is plain integers, for which zeroes are a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: the kernel reads `length` bytes of `address`, which is so long.
    match unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) } {
        0 => Ok(File::from(socket)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives a thread, or this one, a real-time priority: it goes before every ordinary thread of its
/// CPU.
pub fn become_real_time(thread: Option<Pid>, priority: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    let thread = thread.map_or(0, Pid::as_raw_pid);
    // SAFETY: the call reads one `sched_param`, which outlives it; 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(thread, libc::SCHED_FIFO, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How many segments the kernel sent again on this TCP connection, its SYN included.
pub fn retransmissions(socket: impl AsFd) -> io::Result<u32> {
    // SAFETY: `tcp_info` is plain integers, for which zeroes are a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` bytes to `info`, and `length` is its size.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    match answer {
        0 => Ok(info.tcpi_total_retrans),
        _ => Err(io::Error::last_os_error()),
    }
}
