//! Adaptive timeouts at work: what is written, and a record by which all of it comes back.
//!
//! The record lies in a file that outlives a SIGKILL but not a reboot, after which
//! the kernel's defaults are back anyway. It is saved before what it tells of is written, and
//! settled afterwards.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use log::warn;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use ctguard_control::adaptive::{Adaptation, AdaptiveRange, Record, adapt};
use ctguard_kernel::{conntrack::timeouts_writer::TimeoutSettings, durable::replace};

const FORMAT: u32 = 1;

/// Why timeouts are not adapted, or not restored.
#[derive(Debug, Error)]
pub(crate) enum ReliefError {
    #[error("cannot {action} {}, the record of changed timeouts", path.display())]
    Record { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot set nf_conntrack_{name} to {seconds} s")]
    Setting { name: String, seconds: u32, source: io::Error },
}

/// The timeouts of one namespace, in our hands or the operator's.
#[derive(Debug)]
pub(crate) struct Relief {
    settings: TimeoutSettings,
    path: PathBuf,
    record: Record,
}

#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    timeouts: Record,
}

impl Relief {
    /// Takes up the record that a killed daemon left in `path`, and restores what it tells of.
    pub(crate) fn start(settings: TimeoutSettings, path: &Path) -> Result<Self, ReliefError> {
        let mut relief = Self { settings, path: path.to_owned(), record: Record::default() };
        relief.record = relief.load()?;
        relief.restore()?;
        Ok(relief)
    }

    /// Fits the timeouts to the fill, a share of the table's maximum; cheap enough for each second.
    pub(crate) fn follow(&mut self, range: AdaptiveRange, fill: f64) -> Result<(), ReliefError> {
        self.adapt(Some(range), fill)
    }

    /// Gives every timeout back.
    pub(crate) fn restore(&mut self) -> Result<(), ReliefError> {
        self.adapt(None, 0.0)
    }

    fn adapt(&mut self, range: Option<AdaptiveRange>, fill: f64) -> Result<(), ReliefError> {
        // Nothing to restore needs no look at the settings.
        if range.is_none() && self.record.is_empty() {
            return Ok(());
        }
        let adaptation = adapt(range, fill, &self.record, |name| self.settings.read(name));
        let steps = steps(&self.record, &adaptation);
        self.record = adaptation.record;
        let mut failure = None;
        for step in steps {
            let Err(error) = self.take(&step) else { continue };
            // Nothing new is written that no record tells of. A setting that fails leaves the
            // others to be written, and is tried again the next time.
            if step == Step::Save && range.is_some() {
                return Err(error);
            }
            failure.get_or_insert(error);
        }
        failure.map_or(Ok(()), Err)
    }

    fn take(&mut self, step: &Step) -> Result<(), ReliefError> {
        match step {
            Step::Save => self.save(),
            Step::Write(name, seconds) => {
                self.settings.write(name, *seconds).map_err(|source| {
                    let name = name.clone();
                    ReliefError::Setting { name, seconds: *seconds, source }
                })?;
                self.record.settle(name);
                Ok(())
            }
        }
    }

    fn load(&self) -> Result<Record, ReliefError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Record::default()),
            Err(source) => return Err(self.error("read", source)),
        };
        if let Ok(Document { format: FORMAT, timeouts }) = serde_json::from_slice(&bytes) {
            return Ok(timeouts);
        }
        let aside = self.path.with_extension("damaged");
        fs::rename(&self.path, &aside).map_err(|source| self.error("move aside", source))?;
        warn!(
            "the record of changed timeouts is damaged and lies in {} from now on; look at the \
             timeouts in /proc/sys/net/netfilter",
            aside.display()
        );
        Ok(Record::default())
    }

    fn save(&self) -> Result<(), ReliefError> {
        if self.record.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(self.error("remove", error))
                }
                Ok(()) | Err(_) => Ok(()),
            };
        }
        let document = Document { format: FORMAT, timeouts: self.record.clone() };
        serde_json::to_vec_pretty(&document)
            .map_err(io::Error::from)
            .and_then(|bytes| replace(&self.path, &self.path.with_extension("new"), &bytes))
            .map_err(|source| self.error("save", source))
    }

    fn error(&self, action: &'static str, source: io::Error) -> ReliefError {
        ReliefError::Record { action, path: self.path.clone(), source }
    }
}

/// One thing to do, between any two of which the daemon may be killed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Save the record as it is then.
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
