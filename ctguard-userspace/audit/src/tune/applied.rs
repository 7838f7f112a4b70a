//! The last change, as its record has it.

use super::{
    error::TuneError,
    place::Relation,
    record::{Record, Setting},
    verdict::{Watched, judge},
    watch::{Before, Interval},
};
use crate::host::{BUCKETS, Host, MAX, has_value, setting_path};

/// A change whose effect is watched.
#[derive(Debug)]
pub struct Applied {
    before: Before,
    last: Vec<Setting>,
    is_only: bool,
    /// From another network namespace only the table's size can be read.
    relation: Relation,
}

impl Applied {
    pub fn last(host: &Host) -> Result<Self, TuneError> {
        let record = Record::load(host)?;
        let record = record.ok_or(TuneError::NothingApplied)?;
        let mut before = record.before.ok_or(TuneError::NothingApplied)?;
        let relation = record.relation(host);
        if relation != Relation::Same {
            // Entries and losses of another namespace say nothing about this one.
            before = Before { count: None, lost_per_second: None, ..before };
        }
        Ok(Self { before, is_only: record.is_only_change(), last: record.last, relation })
    }

    /// Whether a revert would revert this change only, and no earlier one.
    pub const fn is_only(&self) -> bool {
        self.is_only
    }

    /// Why the change is no longer in force; none while it is, or while conntrack is not loaded.
    pub fn lapsed(&self, host: &Host) -> Result<Option<String>, TuneError> {
        let record = Record::load(host)?;
        let Some(record) = record.filter(|record| record.before.is_some()) else {
            return Ok(Some("it was reverted".to_owned()));
        };
        if record.last != self.last {
            return Ok(Some("another change was applied".to_owned()));
        }
        for Setting { key, then } in &self.last {
            if self.relation != Relation::Same && ![BUCKETS, MAX].contains(&key.as_str()) {
                continue;
            }
            let live = host.number(&setting_path(host, key))?;
            if let Some(live) = live.filter(|live| !has_value(key, *live, *then)) {
                return Ok(Some(format!("{key} is {live}, not {then}")));
            }
        }
        Ok(None)
    }

    pub fn judge(&self, intervals: &[Interval]) -> Watched {
        judge(self.before, intervals)
    }
}
