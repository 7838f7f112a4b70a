//! Why nothing is proposed, or a plan is not carried out, or only in part. What was done can be
//! reverted.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
};

use thiserror::Error;

use super::{plan::PlanError, record::FileError};
use crate::host::Unread;
use ctguard_kernel::{
    conntrack::{DumpError, lower_timeouts::LowerTimeoutsError},
    privileges::is_root,
};

#[derive(Debug, Error)]
pub enum TuneError {
    #[error("conntrack is not loaded; load it first: modprobe nf_conntrack")]
    NotLoaded,
    #[error(transparent)]
    Unread(#[from] Unread),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot set {key} to {value}; {}", if is_root() { "in a container, run this on the host" }
        else { "run as root, and if this is a container, on the host" })]
    Set { key: String, value: u64, source: io::Error },
    #[error("{0} exists and was not written by ctguard: move it away, or omit --persist")]
    Foreign(String),
    #[error("another `{0}` is running")]
    Busy(&'static str),
    #[error(
        "the last change was applied in another network namespace, net:[{0}]: run this command there, \
         for instance with nsenter --net"
    )]
    OtherNamespace(u64),
    #[error("there is no change to watch; use --apply first")]
    NothingApplied,
    #[error("--persist works only in the first network namespace")]
    NotPersistedHere,
    #[error("--existing does not work with --root: a copy of a machine has no entries")]
    Elsewhere,
    #[error(transparent)]
    LowerTimeouts(#[from] LowerTimeoutsError),
}

impl TuneError {
    /// Whether somebody with more rights could do it, as far as no [`io::Error`] says so.
    pub const fn is_not_permitted(&self) -> bool {
        match self {
            Self::Unread(unread) => unread.is_not_permitted,
            Self::LowerTimeouts(error) => {
                matches!(error, LowerTimeoutsError::Dump(DumpError::Refused))
            }
            Self::NotLoaded
            | Self::Plan(_)
            | Self::File(_)
            | Self::Set { .. }
            | Self::Foreign(_)
            | Self::Busy(_)
            | Self::OtherNamespace(_)
            | Self::NothingApplied
            | Self::NotPersistedHere
            | Self::Elsewhere => false,
        }
    }
}

/// `holder` is the command that may hold the lock.
pub(super) fn lock(file: &File, path: &Path, holder: &'static str) -> Result<(), TuneError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => TuneError::Busy(holder),
        TryLockError::Error(source) => FileError::when("lock", path)(source).into(),
    })
}
