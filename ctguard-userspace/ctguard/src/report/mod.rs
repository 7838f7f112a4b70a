//! What people and programs read: the stable JSON documents, and their human rendering.
//!
//! Fields are only ever added within a `schema_version`; the text is no interface.

mod by_class;
mod counters;
mod detection;
mod doctor;
mod doctor_text;
mod event_text;
mod lists;
mod settings;
mod status;
mod status_text;

use std::io::{self, Write};

use serde::Serialize;

pub(crate) use doctor::DoctorReport;
pub(crate) use event_text::event_text;
pub(crate) use lists::ListReport;
pub(crate) use settings::SettingsReport;
pub(crate) use status::{
    KnownSourceCounts, MemoryLoads, Observation, ObservedInterface, StatusReport,
};

/// Of every document here. 2: `new_flow_detection` of the status has a reason too.
const SCHEMA_VERSION: u32 = 2;

/// One document, and a line's end.
pub(crate) fn write_json(out: &mut impl Write, document: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, document)?;
    writeln!(out)
}
