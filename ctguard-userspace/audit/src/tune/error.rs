use thiserror::Error;

use super::{apply::ApplyError, plan::PlanError};
use crate::host::Unread;
use ctguard_kernel::conntrack::lower_timeouts::LowerTimeoutsError;

#[derive(Debug, Error)]
pub enum TuneError {
    #[error("conntrack is not loaded; load it first: modprobe nf_conntrack")]
    NotLoaded,
    #[error(transparent)]
    Unread(#[from] Unread),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("there is no change to watch; use --apply first")]
    NothingApplied,
    #[error("--persist works only in the first network namespace")]
    NotPersistedHere,

    #[error("--existing does not work with --root: a copy of a machine has no entries")]
    Elsewhere,
    #[error(transparent)]
    LowerTimeouts(#[from] LowerTimeoutsError),
}
