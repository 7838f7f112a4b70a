//! The terminal of a daemon in the background.

/// Lets this process write to its terminal from the background. After `stty tostop` the kernel stops
/// each process that does, unless it ignores SIGTTOU.
pub fn write_from_background() {
    // SAFETY: no handler is set that could run.
    unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
}
