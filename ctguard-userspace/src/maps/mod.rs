//! Typed handles over the pinned maps: what daemon, command line and data path share.

mod counters;
mod interfaces;
pub(crate) mod known_sources;
mod lists;
mod memory;
mod open;

pub(crate) use counters::Totals;
pub(crate) use interfaces::{Interfaces, Slot, SlotError};
pub(crate) use lists::{Entry, ListError, ListKind, Lists};
pub(crate) use memory::{FlowMemory, SourceMemory};
pub(crate) use open::{GuardMaps, OpenError, layout_of};
