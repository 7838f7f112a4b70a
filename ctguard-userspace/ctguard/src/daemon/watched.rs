//! Descriptors that a main loop waits for.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// Waits for `owner` to be readable.
pub(crate) fn watched<T: AsFd + AsRawFd>(owner: T) -> io::Result<AsyncFd<T>> {
    #[expect(deprecated, reason = "its owner keeps the descriptor open as long as it is watched")]
    AsyncFd::with_interest(owner, Interest::READABLE)
}
