//! Writes adaptive timeouts, and keeps a record that can restore all of them.
//!
//! The record's file outlives a SIGKILL but not a reboot, which resets the timeouts anyway. It is
//! saved before the timeouts are written, and again afterwards.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::files::{FileError, load};
use ctguard_control::adaptive::{Adaptation, AdaptiveRange, Record, adapt};
use ctguard_kernel::{
    conntrack::timeouts_writer::TimeoutSettings,
    durable::{remove, replace},
};

const FORMAT: u32 = 1;

/// Why timeouts are not adapted, or not restored.
#[derive(Debug, Error)]
pub(crate) enum TimeoutsError {
    #[error("cannot keep the record of changed timeouts")]
    Record(#[from] FileError),
    #[error("cannot set nf_conntrack_{name} to {seconds} s")]
    Setting { name: String, seconds: u32, source: io::Error },
}

#[derive(Debug)]
pub(crate) struct AdaptiveTimeouts {
    settings: TimeoutSettings,
    path: PathBuf,
    record: Record,
}

#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    timeouts: Record,
}

impl AdaptiveTimeouts {
    /// Restores the timeouts in the record that a killed daemon left in `path`.
    pub(crate) fn start(settings: TimeoutSettings, path: &Path) -> Result<Self, TimeoutsError> {
        let mut timeouts = Self { settings, path: path.to_owned(), record: Record::default() };
        timeouts.record = timeouts.load()?;
        timeouts.restore()?;
        Ok(timeouts)
    }

    /// Fits the timeouts to the fill, a share of the table's maximum.
    pub(crate) fn follow(&mut self, range: AdaptiveRange, fill: f64) -> Result<(), TimeoutsError> {
        self.adapt(Some(range), fill)
    }

    pub(crate) fn restore(&mut self) -> Result<(), TimeoutsError> {
        self.adapt(None, 0.0)
    }

    fn adapt(&mut self, range: Option<AdaptiveRange>, fill: f64) -> Result<(), TimeoutsError> {
        if range.is_none() && self.record.is_empty() {
            return Ok(());
        }
        let adaptation = adapt(range, fill, &self.record, |name| self.settings.read(name));
        let steps = steps(&self.record, &adaptation);
        self.record = adaptation.record;
        let mut failure = None;
        for step in steps {
            let Err(error) = self.take(&step) else { continue };
            // Nothing new is written that is not in the saved record. A timeout that cannot be
            // written is tried again the next time.
            if step == Step::Save && range.is_some() {
                return Err(error);
            }
            failure.get_or_insert(error);
        }
        failure.map_or(Ok(()), Err)
    }

    fn take(&mut self, step: &Step) -> Result<(), TimeoutsError> {
        match step {
            Step::Save => Ok(self.save()?),
            Step::Write(name, seconds) => {
                self.settings.write(name, *seconds).map_err(|source| {
                    let name = name.clone();
                    TimeoutsError::Setting { name, seconds: *seconds, source }
                })?;
                self.record.settle(name);
                Ok(())
            }
        }
    }

    fn load(&self) -> Result<Record, FileError> {
        let effect = "look at the timeouts in /proc/sys/net/netfilter";
        load(&self.path, &self.path.with_extension("damaged"), effect, |bytes| {
            match serde_json::from_slice(bytes)? {
                Document { format: FORMAT, timeouts } => Ok(timeouts),
                Document { format, .. } => Err(anyhow!("format {format} instead of {FORMAT}")),
            }
        })
    }

    fn save(&self) -> Result<(), FileError> {
        if self.record.is_empty() {
            return remove(&self.path).map(|_| ()).map_err(FileError::new("remove", &self.path));
        }
        let document = Document { format: FORMAT, timeouts: self.record.clone() };
        serde_json::to_vec_pretty(&document)
            .map_err(io::Error::from)
            .and_then(|bytes| replace(&self.path, &self.path.with_extension("new"), &bytes))
            .map_err(FileError::new("save", &self.path))
    }
}

/// The daemon may be killed between any two steps.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Save,
    Write(String, u32),
}

fn steps(old: &Record, adaptation: &Adaptation) -> Vec<Step> {
    let mut steps = Vec::new();
    if *old != adaptation.record {
        steps.push(Step::Save);
    }
    if !adaptation.writes.is_empty() {
        let write = |(name, seconds): &(String, u32)| Step::Write(name.clone(), *seconds);
        steps.extend(adaptation.writes.iter().map(write));
        steps.push(Step::Save);
    }
    steps
}

#[cfg(test)]
mod tests;
