//! What the operator can set: keys, values, defaults, and how they change the policy.

mod change;
mod defaults;
mod key;
mod reference;
mod value;
mod zone;

pub(crate) use change::{Assignment, Change, InterfaceSettings, SettingError, Settings};
pub(crate) use defaults::DEFAULT_POLICY;
pub(crate) use key::Key;
pub(crate) use reference::reference;
pub(crate) use value::Value;
