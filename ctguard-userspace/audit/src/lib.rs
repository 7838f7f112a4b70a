//! What is wrong with a machine's connection tracking, and how it is mended.
//!
//! `host` reads a machine's files and judges nothing, `doctor` judges them, `tune` changes them and
//! takes it back.
#![expect(
    missing_docs,
    reason = "internal to the product: names of fields and messages of errors say what they are"
)]

pub mod doctor;
pub mod host;
pub mod tune;
