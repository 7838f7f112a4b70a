//! Wakes the daemon for a tick. A timerfd, because a timer of the runtime wakes it several times
//! before it expires.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use super::watched::watched;

/// Expires at a time of the clock that [`ctguard_kernel::bpf::monotonic`] reads.
#[derive(Debug)]
pub(super) struct TickTimer(AsyncFd<OwnedFd>);

impl TickTimer {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        watched(timer).map(Self)
    }

    /// Expires at `at` instead; at once if that is past.
    pub(super) fn set(&self, at: Duration) -> io::Result<()> {
        let it_value = Timespec {
            tv_sec: at.as_secs().try_into().unwrap_or(i64::MAX),
            // Zero would disarm it.
            tv_nsec: at.subsec_nanos().max(1).into(),
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
        Ok(())
    }

    pub(super) async fn expired(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut expirations = [0; 8];
            let read =
                ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut expirations)?));
            if let Ok(read) = read {
                return read.map(|_| ());
            }
        }
    }
}
