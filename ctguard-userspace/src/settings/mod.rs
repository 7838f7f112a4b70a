//! What the operator can set: keys, values, defaults, and how they change the policy.

mod change;
mod defaults;
mod key;
mod value;

pub(crate) use change::{Assignment, Change, SettingError, Settings};
pub(crate) use defaults::DEFAULT_POLICY;
pub(crate) use key::Key;
pub(crate) use value::Value;
