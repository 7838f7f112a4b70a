//! Settings as JSON.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde::Serialize;

use super::{SCHEMA_VERSION, write_json};
use ctguard_settings::{Key, Value};

/// What `ctguard get --json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct SettingsReport {
    schema_version: u32,
    settings: BTreeMap<String, Value>,
}

impl SettingsReport {
    pub(crate) fn new(values: &[(Key, Value)]) -> Self {
        let settings = values.iter().map(|(key, value)| (key.to_string(), *value)).collect();
        Self { schema_version: SCHEMA_VERSION, settings }
    }

    pub(crate) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        write_json(out, self)
    }
}
