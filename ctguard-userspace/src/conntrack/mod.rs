//! The guarded table itself, as the network namespace of this process shows it.

pub(crate) mod assured;
mod batch;
mod dump;
mod entry;
mod key;
mod message;
pub(crate) mod reclaim;
pub(crate) mod shorten;
pub(crate) mod status;
mod table;
mod tcp_state;
#[cfg(test)]
pub(crate) mod testing;
mod timeouts;
pub(crate) mod timeouts_writer;

pub(crate) use dump::{Completeness, DumpError, Summary, dump, dump_some};
pub(crate) use entry::{Entry, Tuple};
pub(crate) use table::{Table, TableError};
pub(crate) use tcp_state::TcpState;
pub(crate) use timeouts::Timeouts;
