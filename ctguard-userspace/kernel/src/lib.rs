//! Access to the kernel: `bpf` loads and attaches the programs, `maps` opens their maps, `conntrack`
//! reads and changes the connection table, `net` asks about devices.
#![warn(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "only the binary writes to a terminal"
)]
#![expect(
    missing_docs,
    reason = "internal to the product: names of fields and messages of errors say what they are"
)]

pub mod bpf;
pub mod confinement;
pub mod conntrack;
pub mod durable;
pub mod lock;
pub mod maps;
pub mod memory;
pub mod modules;
pub mod namespace;
pub mod net;
pub mod privileges;
pub mod run_directory;
pub mod terminal;
pub mod urgency;
