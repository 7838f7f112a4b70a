//! The scheduling of the thread that steers the guard.

use std::io;

use rustix::process::setpriority_process;

/// The lowest of the real-time priorities, which goes before everybody that has none.
static LOWEST: libc::c_int = 1;

/// The next best thing.
const NICE: i32 = -10;

/// Lets this thread run before all others that have no real-time priority. A flood's softirqs and
/// servers keep the processors busy, and verifying the program took ten times as long among them.
/// Threads that this one starts are not urgent.
///
/// Without the permission (`CAP_SYS_NICE`, or `RLIMIT_RTPRIO` and `RLIMIT_NICE`) all stays as it is,
/// and the start and grants take longer.
pub fn be_urgent() {
    if be_real_time().is_err() {
        let _ = setpriority_process(None, NICE);
    }
}

fn be_real_time() -> io::Result<()> {
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // musl's own function only answers ENOSYS. The kernel's `struct sched_param` is one `int`.
    // SAFETY: the kernel only reads the priority, a constant.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const LOWEST) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a thread of its own, which must not be urgent for longer.
    #[test]
    fn a_thread_of_an_urgent_one_is_not_urgent() {
        let policies = std::thread::spawn(|| {
            be_urgent();
            let own = policy();
            (own, std::thread::spawn(policy).join().unwrap())
        });
        let (own, of_child) = policies.join().unwrap();
        if rustix::process::geteuid().is_root() {
            assert_eq!(own, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK);
        }
        assert_eq!(of_child, libc::SCHED_OTHER);
    }

    fn policy() -> i32 {
        // SAFETY: no memory is passed.
        unsafe { libc::sched_getscheduler(0) }
    }
}
