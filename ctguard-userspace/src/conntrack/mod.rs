//! The guarded table itself, as the network namespace of this process shows it.

mod dump;
mod entry;
mod table;
mod timeouts;

pub(crate) use dump::{Completeness, DumpError, Summary, dump};
pub(crate) use entry::{Entry, Tuple};
pub(crate) use table::{Table, TableError};
pub(crate) use timeouts::Timeouts;
