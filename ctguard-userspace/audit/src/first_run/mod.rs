//! What a machine is, and the configuration that fits it: `ctguard init`.
//!
//! `facts` reads, `file` writes a line for each conclusion, with its reason.

mod facts;
mod file;
mod routes;

pub use facts::{Facts, Guardable, Passed};
