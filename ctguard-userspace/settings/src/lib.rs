//! What the operator can set: keys, values, defaults, and how they change the policy.
#![warn(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "only the binary writes to a terminal"
)]
#![forbid(unsafe_code)]
#![expect(
    missing_docs,
    reason = "internal to the product: names of fields and messages of errors say what they are"
)]

mod change;
mod defaults;
mod key;
mod reference;
mod value;

pub use change::{Assignment, Change, InterfaceSettings, SettingError, Settings};
pub use defaults::DEFAULT_POLICY;
pub use key::Key;
pub use reference::reference;
pub use value::Value;
