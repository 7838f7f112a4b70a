//! Waits of a thread that reads a feed, which end when the feed is no longer wanted.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
};

/// Ends all waits of its [`Stop`] when it is dropped.
#[derive(Debug)]
pub(super) struct Running {
    _end: OwnedFd,
}

#[derive(Debug)]
pub(super) struct Stop(OwnedFd);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    Stopped,
    /// The descriptor can be read.
    Ready,
    TimedOut,
}

pub(super) fn pair() -> io::Result<(Running, Stop)> {
    let (stop, end) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((Running { _end: end }, Stop(stop)))
}

impl Stop {
    /// Waits for `source`, if there is one, no longer than `most`.
    pub(super) fn wait(&self, source: Option<BorrowedFd<'_>>, most: Duration) -> io::Result<Wait> {
        let mut all = vec![PollFd::new(&self.0, PollFlags::IN)];
        all.extend(source.map(|source| PollFd::from_borrowed_fd(source, PollFlags::IN)));
        let most = Timespec::try_from(most).map_err(io::Error::other)?;
        match poll(&mut all, Some(&most)) {
            Err(Errno::INTR) => return Ok(Wait::TimedOut),
            polled => polled?,
        };
        Ok(match &all[..] {
            [stop, ..] if !stop.revents().is_empty() => Wait::Stopped,
            [_, source] if !source.revents().is_empty() => Wait::Ready,
            _ => Wait::TimedOut,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_its_feed_or_its_time() {
        let (running, stop) = pair().unwrap();
        assert_eq!(stop.wait(None, Duration::ZERO).unwrap(), Wait::TimedOut);
        drop(running);
        assert_eq!(stop.wait(None, Duration::from_mins(1)).unwrap(), Wait::Stopped);
    }
}
