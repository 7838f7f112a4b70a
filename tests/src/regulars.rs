//! The record of regulars that a guard starts with: the only place that knows its format.

use std::{fs, net::IpAddr, path::Path};

use anyhow::{Context as _, Result};
use serde_json::json;

/// The record, in the directory that `ctguard run --state` names.
const FILE: &str = "regulars.json";

/// Writes a record that holds these addresses, and nothing else, into the directory.
pub fn write(directory: &Path, addresses: &[IpAddr]) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let path = directory.join(FILE);
    fs::write(&path, record(addresses)).with_context(|| format!("cannot write {}", path.display()))
}

fn record(addresses: &[IpAddr]) -> String {
    let regulars: Vec<_> = addresses.iter().map(|address| json!({ "address": address })).collect();
    json!({ "schema_version": 1, "regulars": regulars }).to_string()
}
