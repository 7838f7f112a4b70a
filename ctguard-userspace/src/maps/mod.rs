//! Typed handles over the pinned maps: what daemon, command line and data path share.

mod counters;
mod interfaces;
#[cfg_attr(not(test), expect(dead_code, reason = "the main loop does not call it yet"))]
pub(crate) mod known_sources;
mod lists;
mod memory;
mod open;

pub(crate) use counters::Totals;
pub(crate) use interfaces::{Interfaces, Slot, SlotError};
pub(crate) use lists::{Entry, ListError, ListKind, Lists};
pub(crate) use memory::FlowMemory;
pub(crate) use open::{GuardMaps, OpenError, layout_of};
