//! Sets connection tracking as `doctor` advises, and can revert it.
//!
//! `proposal` and `plan` decide and change nothing; `apply` records the old values, then sets the new
//! ones; `revert` goes by that record. `watch` reads the table afterwards, `journal` stores what it
//! saw, `verdict` judges whether the change helped.

mod applied;
mod apply;
mod error;
mod files;
mod journal;
mod place;
mod plan;
mod proposal;
mod record;
mod revert;
mod service;
mod verdict;
mod watch;

pub use applied::Applied;
pub use apply::{apply, lower_existing_timeouts};
pub use error::TuneError;
pub use files::OwnFile;
pub use journal::{JOURNAL, Journal};
pub(crate) use plan::PART_OF_AVAILABLE;
pub use plan::{Change, Max};
pub(crate) use proposal::wanted;
pub use proposal::{Proposal, overridden, propose};
pub use revert::{Reverted, revert};
pub use service::{ServiceTimeout, own_services, service_rules};
pub use verdict::{Verdict, Watched};
pub use watch::{Interval, Reading, Watch, interval_of};
