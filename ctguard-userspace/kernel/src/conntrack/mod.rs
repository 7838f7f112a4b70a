//! Reads and changes the connection table of this network namespace.

pub mod assured;
mod batch;
mod dump;
mod entry;
mod key;
pub mod lower_timeouts;
mod message;
pub mod reclaim;
pub mod status;
mod table;
mod tcp_state;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod timeouts;
pub mod timeouts_writer;

pub use dump::{Completeness, DumpError, Summary, dump, dump_some};
pub use entry::{Entry, Tuple};
pub use table::{Table, TableError};
pub use tcp_state::TcpState;
pub use timeouts::Timeouts;
