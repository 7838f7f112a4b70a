//! Sets connection tracking as `doctor` advises, and can revert it.
//!
//! `proposal` and `plan` decide and change nothing; `apply` records the old values, then sets the new
//! ones; `revert` goes by that record. `watch` reads the table afterwards, `journal` stores what it
//! saw, `verdict` judges whether the change helped.

mod applied;
mod apply;
mod error;
mod existing;
mod files;
mod journal;
mod place;
mod plan;
mod proposal;
mod reading;
mod record;
mod revert;
mod verdict;
mod watch;

pub(crate) use applied::Applied;
pub(crate) use apply::{ApplyError, apply};
pub(crate) use error::TuneError;
pub(crate) use existing::lower_existing_timeouts;
pub(crate) use files::OwnFile;
pub(crate) use journal::{JOURNAL, Journal};
pub(crate) use plan::{Change, Max};
pub(crate) use proposal::{Proposal, overridden, propose};
pub(crate) use reading::Reading;
pub(crate) use revert::{Reverted, revert};
pub(crate) use verdict::{Verdict, Watched};
pub(crate) use watch::{Interval, Watch, interval_of};
