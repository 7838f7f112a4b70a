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
mod default_file;
mod defaults;
mod document;
mod feed;
mod key;
mod prefix;
mod reference;
mod value;

pub use change::{Assignment, Change, InterfaceSettings, SettingError, Settings};
pub use default_file::{default_file, in_toml};
pub use defaults::DEFAULT_POLICY;
pub use document::{DocumentError, Entry, Place, Problem, StartKey, Takes, quoted, read_document};
pub use feed::{Feed, FeedError, FeedKey, FeedSource};
pub use key::Key;
pub use prefix::{PrefixError, parse_listed, parse_prefix};
pub use reference::reference;
pub use value::Value;
