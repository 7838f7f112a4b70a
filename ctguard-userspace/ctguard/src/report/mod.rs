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
mod schema;
mod settings;
mod status;
mod status_text;

pub(crate) use doctor::DoctorReport;
pub(crate) use doctor_text::write_doctor;
pub(crate) use event_text::event_text;
pub(crate) use lists::ListReport;
pub(crate) use settings::SettingsReport;
pub(crate) use status::{
    KnownSourceCounts, MemoryLoads, Observation, ObservedInterface, StatusReport,
};
