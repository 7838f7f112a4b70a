//! The guarded table itself, as the network namespace of this process shows it.

mod table;
mod timeouts;

pub(crate) use table::{Table, TableError};
pub(crate) use timeouts::Timeouts;
