//! The table and its losses, read at one moment.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::host::{Host, Losses, Lost, Statistics, TableNumbers, Unread};

/// How long losses before a change are counted.
const LOOK: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub count: u64,
    /// 0 is no limit.
    pub max: u64,
    /// None where they cannot be read.
    pub losses: Option<Losses>,
}

/// The table just before a change.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Before {
    /// None for another network namespace.
    pub count: Option<u64>,
    /// 0 is no limit.
    pub max: u64,
    /// New flows dropped and entries evicted; none where the kernel does not count them.
    pub lost_per_second: Option<f64>,
}

impl Reading {
    /// None where conntrack is not loaded.
    pub fn take(host: &Host) -> Result<Option<Self>, Unread> {
        let Some(table) = TableNumbers::read(host)? else { return Ok(None) };
        let losses = Statistics::read(host)?.map(|counters| counters.losses());
        Ok(Some(Self { count: table.count, max: table.max, losses }))
    }
}

impl Before {
    /// None where conntrack is not loaded.
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 flows are lost at once")]
    pub fn take(host: &Host) -> Result<Option<Self>, Unread> {
        let began = Instant::now();
        let Some(first) = Reading::take(host)? else { return Ok(None) };
        if host.is_this() {
            thread::sleep(LOOK);
        }
        let Some(then) = Reading::take(host)? else { return Ok(None) };
        let seconds = began.elapsed().max(LOOK).as_secs_f64();
        let lost = first.losses.zip(then.losses).map(|(first, then)| then.since(first));
        let per_second = |lost: Lost| (lost.dropped + lost.early_dropped) as f64 / seconds;
        let lost_per_second = lost.map(per_second);
        Ok(Some(Self { count: Some(then.count), max: then.max, lost_per_second }))
    }
}
