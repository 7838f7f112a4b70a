//! Count and maximum of the table (`/proc/sys/net/netfilter`).
//!
//! The files are kept open: a `pread` costs 0.8 µs, open and close 4 µs more.

use std::{cell::OnceCell, fs::File, io, os::unix::fs::FileExt, path::Path};

use thiserror::Error;

use ctguard_units::TableSample;

const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

#[derive(Debug, Error)]
#[error("cannot read {path}")]
pub struct TableError {
    path: &'static str,
    source: io::Error,
}

/// The table of the network namespace that opened it. Until the first rule that needs conntrack loads
/// it, the table is empty and has no maximum.
#[derive(Debug)]
pub struct Table(OnceCell<Files>);

#[derive(Debug)]
struct Files {
    count: Setting,
    max: Setting,
}

impl Table {
    pub fn open() -> Result<Self, TableError> {
        let table = Self(OnceCell::new());
        table.files()?;
        Ok(table)
    }

    /// Whether conntrack is loaded.
    pub fn is_there(&self) -> bool {
        matches!(self.files(), Ok(Some(_)))
    }

    /// 0 means no limit.
    pub fn max(&self) -> Result<u64, TableError> {
        Ok(self.sample()?.max)
    }

    pub fn sample(&self) -> Result<TableSample, TableError> {
        let Some(files) = self.files()? else { return Ok(TableSample { entries: 0, max: 0 }) };
        let read =
            |setting: &Setting, path| setting.read().map_err(|source| TableError { path, source });
        Ok(TableSample { entries: read(&files.count, COUNT)?, max: read(&files.max, MAX)? })
    }

    fn files(&self) -> Result<Option<&Files>, TableError> {
        if let Some(files) = self.0.get() {
            return Ok(Some(files));
        }
        let (Some(count), Some(max)) = (open(COUNT)?, open(MAX)?) else { return Ok(None) };
        Ok(Some(self.0.get_or_init(|| Files { count, max })))
    }
}

fn open(path: &'static str) -> Result<Option<Setting>, TableError> {
    match Setting::open(Path::new(path)) {
        Ok(setting) => Ok(Some(setting)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TableError { path, source }),
    }
}

/// A kernel setting that is one number.
#[derive(Debug)]
pub(super) struct Setting(File);

impl Setting {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self)
    }

    pub(super) fn read(&self) -> io::Result<u64> {
        let mut buffer = [0; 32];
        let length = self.0.read_at(&mut buffer, 0)?;
        std::str::from_utf8(buffer.get(..length).unwrap_or_default())
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}
