//! Reads and changes the connection table of this network namespace.

mod batch;
mod delete;
mod dump;
mod entry;
mod idle;
mod key;
pub mod lower_timeouts;
mod message;
mod ports;
pub mod status;
mod table;
mod tcp_state;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod timeouts;
pub mod timeouts_writer;

pub use delete::{Deleted, Deleter, Deletion};
pub use dump::{Completeness, DumpError, Summary, dump, dump_deletable, dump_some};
pub use entry::{Entry, Tuple};
pub use idle::FullTimeouts;
pub use table::{Table, TableError};
pub use tcp_state::TcpState;
pub use timeouts::Timeouts;
