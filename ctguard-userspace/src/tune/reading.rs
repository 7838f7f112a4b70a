//! The table and its losses, read at one moment.

use serde::{Deserialize, Serialize};

use crate::{
    host::{Host, Statistics, TableNumbers, Unread},
    namespace,
};

/// Counters since conntrack was loaded into this network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reading {
    pub(crate) count: u64,
    /// 0 is no limit.
    pub(crate) max: u64,
    /// New flows dropped for a full table.
    pub(crate) dropped: u64,
    /// Entries thrown away to make room.
    pub(crate) early_dropped: u64,
}

/// How it was before anything was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Before {
    /// The network namespace whose table it is.
    pub(crate) namespace: u64,
    /// The most that the counters can be of.
    pub(crate) uptime_seconds: u64,
    #[serde(flatten)]
    pub(crate) reading: Reading,
}

impl Reading {
    /// None where conntrack is not loaded.
    pub(crate) fn take(host: &Host) -> Result<Option<Self>, Unread> {
        let Some(table) = TableNumbers::read(host)? else { return Ok(None) };
        let counters = Statistics::read(host)?.unwrap_or_default();
        Ok(Some(Self {
            count: table.count,
            max: table.max,
            dropped: counters.dropped_for_room(),
            early_dropped: counters.get("early_drop"),
        }))
    }
}

impl Before {
    /// None where conntrack is not loaded.
    pub(crate) fn take(host: &Host) -> Result<Option<Self>, Unread> {
        let Some(reading) = Reading::take(host)? else { return Ok(None) };
        let namespace =
            namespace::number().map_err(|error| Unread::new("/proc/thread-self/ns/net", &error))?;
        Ok(Some(Self { namespace, uptime_seconds: host.uptime()?.as_secs(), reading }))
    }
}
