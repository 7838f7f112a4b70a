//! What people and programs read: the stable JSON documents, and their human rendering.
//!
//! Fields are only ever added within a `schema_version`; the text is no interface.

mod by_class;
mod counters;
mod detection;
mod doctor;
mod event_text;
mod feeds;
mod lists;
mod status;
mod status_text;
mod why;

pub(crate) use by_class::ByClass;
pub(crate) use counters::CounterReport;
pub(crate) use detection::DetectionReport;
pub(crate) use doctor::{DoctorReport, write_doctor};
pub(crate) use event_text::{cause_text, event_text};
pub(crate) use feeds::FeedsReport;
pub(crate) use lists::ListReport;
pub(crate) use status::{
    ConntrackReport, DaemonReport, GrantReport, InterfaceReport, KnownFlowsReport,
    KnownSourcesReport, ListsReport, LoadReport, MapsReport, MemoriesReport, PauseReport,
    RateReport, ScopesReport, StatusReport, TierReport, UnreadableReport,
};
pub(crate) use status_text::{above_lines, above_text, pause_text, write_status};
pub(crate) use why::{HeldReport, ListedReport, NextReport, WhyReport, write_why};

/// How text is wrapped for a terminal of 80 columns, below a heading.
fn wrapping(indent: &str) -> textwrap::Options<'_> {
    textwrap::Options::new(80)
        .subsequent_indent(indent)
        // A command, a path or a name stays whole.
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
}

/// The share of unreadable frames above which the guard does not do its work.
pub(crate) const MOST_UNREADABLE: f64 = 0.01;

/// 2: `new_flow_detection` of the status has a reason too.
pub(crate) const SCHEMA_VERSION: u32 = 2;
