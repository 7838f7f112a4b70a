//! The guarded table itself, as the network namespace of this process shows it.

pub mod assured;
mod batch;
mod dump;
mod entry;
mod key;
mod message;
pub mod reclaim;
pub mod shorten;
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
