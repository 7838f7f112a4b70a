//! What the daemon says while it runs, on standard error.

use std::io::Write as _;

use env_logger::Builder;
use log::{Level, LevelFilter};

/// Log targets of the eBPF program begin so.
const PROGRAM: &str = "ctguard_program";

/// Sentences for people; `trace` adds what the program logs, and `RUST_LOG` whatever it names.
pub(super) fn start(trace: bool) {
    let mut builder = Builder::new();
    builder.filter_level(LevelFilter::Info).filter_module("aya", LevelFilter::Warn);
    if trace {
        builder.filter_level(LevelFilter::Trace);
    }
    builder.parse_default_env();
    builder.format(|out, record| {
        let target = record.target();
        match record.level() {
            _ if target.starts_with(PROGRAM) => writeln!(out, "trace: {}", record.args()),
            Level::Error | Level::Warn => writeln!(out, "ctguard: warning: {}", record.args()),
            Level::Info | Level::Debug | Level::Trace => {
                writeln!(out, "ctguard: {}", record.args())
            }
        }
    });
    builder.init();
}
