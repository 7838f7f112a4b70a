//! What is wrong with a machine's connection tracking, and how it is mended.
//!
//! `host` reads a machine's files and judges nothing, `doctor` judges them, `tune` changes them and
//! takes it back.
#![warn(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "only the binary writes to a terminal"
)]
#![expect(
    missing_docs,
    reason = "internal to the product: names of fields and messages of errors say what they are"
)]

pub mod doctor;
pub mod first_run;
pub mod host;
pub mod tune;
