//! Typed handles over the pinned maps: what daemon, command line and data path share.

mod capture;
mod copies;
mod counters;
mod feeds;
mod interfaces;
mod lists;
mod memory;
mod open;
mod pause;
mod refusals;
mod writer;

pub use capture::{Capture, CaptureError, Tally};
pub use copies::Copies;
pub use counters::Totals;
pub use feeds::{FeedListed, FeedLists};
pub use interfaces::{Interfaces, NoSlot, Slot};
pub use lists::{Entry, ListError, ListKind, Lists};
pub use memory::{FlowMemory, SourceMemory};
pub use open::{GuardMaps, OpenError, layout_of};
pub use pause::Pause;
pub use refusals::Refusals;
pub use writer::{SettingsWriter, Values};
