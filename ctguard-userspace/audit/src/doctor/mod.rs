//! A read-only audit of a machine's connection tracking: what is wrong, why it matters, and the
//! command that fixes it.
//!
//! `audit` has the order. Each other file is a group of checks of the list in `docs/doctor.md`; it
//! reads through [`Host`](crate::host::Host) and judges. `size`, `timeout_rules` and `role` hold what
//! doctor judges by and `tune` sets. Nothing here loads conntrack, and the table is listed only by a
//! dump that is bounded in entries and time.

mod attach;
mod audit;
mod capacity;
#[cfg(test)]
mod cases;
mod causes;
mod census;
#[cfg(test)]
mod damaged;
mod elsewhere;
mod expectations;
mod finding;
mod flow_rules;
mod guard;
mod heavy_hitters;
mod history;
mod loading;
mod mends;
mod neighbours;
mod owners;
mod pace;
#[cfg(test)]
mod packages;
mod peers;
mod persistence;
mod planned;
mod presence;
mod provider;
mod role;
mod services;
mod size;
#[cfg(test)]
mod sound;
#[cfg(test)]
pub mod testing;
mod text;
mod timeout_rules;
mod timeouts;
mod traffic;
mod uses;

pub use attach::Asked;
pub(crate) use attach::outlook;
pub use audit::{Audit, Besides, Summary, audit};
pub(crate) use expectations::wanted as wanted_expectations;
pub use finding::{Finding, Severity, Skipped};
pub use flow_rules::longest_timeouts;
pub use guard::Health;
pub(crate) use guard::serves_dns;
pub use owners::{Owner, owners};
pub use role::Role;
pub use size::{
    BUCKET_BYTES, LEAST_OF_ROUTER, NEARLY_FULL, entries_bytes, has_gibibyte, is_too_wide,
    with_margin,
};
pub use text::per_cent;
pub use timeout_rules::{TIMEOUTS, TimeoutRule};
