//! Reads a machine's files below a root, this machine's or a copy of another's, and judges nothing.
//! `machine` finds files, `reader` opens them safely.

mod boot;
mod conf;
mod kernel_log;
mod listeners;
mod machine;
mod memory;
mod modprobe;
mod namespaces;
mod reader;
mod statistics;
mod table;
#[cfg(test)]
pub mod testing;

pub use boot::{Boot, Init, Named};
pub use conf::{Assignment, Readers, SysctlFiles, number, present_name};
pub use kernel_log::LogCounts;
pub use listeners::{LISTENERS, Listener, parse_address};
pub use machine::{Host, LEGACY_TABLES, Unread, sysctl_path};
pub use memory::{EntrySize, Memory};
pub use modprobe::{HeldBack, Install, Parameter};
pub use namespaces::{OtherTable, OtherTables, may_be_there, most_entries, numbers};
pub use reader::Place;
pub use statistics::{
    BACKLOG_FULL, Losses, Lost, NETSTAT, SOFTNET, SQUEEZED, STATISTICS, Statistics,
};
pub use table::{
    BUCKETS, COUNT, EXPECT_MAX, HASHSIZE, MAX, TableNumbers, has_value, is_size_ours,
    sets_buckets_by_sysctl, setting_path,
};
