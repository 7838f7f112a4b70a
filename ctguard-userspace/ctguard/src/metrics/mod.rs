//! Metrics for Prometheus, read from the same report as `ctguard status`.

mod catalog;
mod server;
mod text;

pub(crate) use server::{Listen, serve};
pub(crate) use text::{Format, write};
