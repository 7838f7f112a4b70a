//! The guarded table itself, as the network namespace of this process shows it.

#[expect(dead_code, reason = "the known-flows filter is filled from it")]
mod dump;
mod entry;
mod table;
mod timeouts;

pub(crate) use table::{Table, TableError};
pub(crate) use timeouts::Timeouts;
