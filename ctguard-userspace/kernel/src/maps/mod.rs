//! Typed handles over the pinned maps: what daemon, command line and data path share.

mod counters;
mod interfaces;
mod lists;
mod memory;
mod open;
mod writer;

pub use counters::Totals;
pub use interfaces::{Interfaces, NoSlot, Slot};
pub use lists::{Entry, ListError, ListKind, Lists};
pub use memory::{FlowMemory, SourceMemory};
pub use open::{GuardMaps, OpenError, layout_of};
pub use writer::{SettingsWriter, Values};
