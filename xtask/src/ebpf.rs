//! `cargo xtask ebpf`: builds the eBPF objects, or checks that the stored ones are of these sources.

mod object;
mod record;
mod sources;
mod toolchain;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use anyhow::{Context, Result, bail};

use crate::workspace;
use record::Record;
use sources::Sources;
use toolchain::Toolchain;

/// How the objects are wanted.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Build nothing to keep: fail when a stored object is not of the sources that are here
    #[arg(long)]
    check: bool,
}

/// Builds and stores the objects, or checks those that are stored.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let task = if options.check { check } else { build_and_store };
    task()?;
    Ok(ExitCode::SUCCESS)
}

/// Fails when a stored object is not of the sources that are here; builds nothing.
pub(crate) fn fail_if_stale() -> Result<()> {
    OBJECTS.iter().try_for_each(|stored| stored.verify(&stored.sources()?).map(drop))
}

/// Says so when a stored object is not of the sources that are here.
pub(crate) fn warn_if_stale() -> Result<()> {
    for stored in OBJECTS {
        if let Err(reason) = stored.verify(&stored.sources()?) {
            eprintln!("xtask: note: {reason:#}");
        }
    }
    Ok(())
}

/// A program and the place it is embedded from.
struct Stored {
    program: &'static str,
    object: &'static str,
    /// The crates whose sources make it.
    crates: &'static [&'static str],
}

const OBJECTS: [Stored; 2] = [
    Stored {
        program: "ctguard-program",
        object: "ctguard-userspace/ebpf/ctguard.bpf.o",
        crates: &["ctguard-ebpf/layout", "ctguard-ebpf/datapath", "ctguard-ebpf/program"],
    },
    Stored {
        program: "lab-program",
        object: "tests/ebpf/lab.bpf.o",
        crates: &[
            "ctguard-ebpf/layout",
            "ctguard-ebpf/datapath",
            "ctguard-ebpf/program",
            "tests/lab-program",
        ],
    },
];

fn build_and_store() -> Result<()> {
    let toolchain = Toolchain::set_up()?;
    let versions = toolchain.versions()?;
    eprintln!("xtask: building the eBPF objects with {versions}");
    let programs = toolchain.build()?;
    for stored in OBJECTS {
        let object = stored.fresh(&programs)?;
        stored.store(&object, &Record::new(&stored.sources()?, &object, &versions))?;
    }
    Ok(())
}

fn check() -> Result<()> {
    let mut records = Vec::new();
    for stored in OBJECTS {
        records.push(stored.verify(&stored.sources()?)?);
        eprintln!("xtask: {} is of these sources", stored.object);
    }

    // CI is where the bytes themselves must be compared.
    let toolchain =
        if workspace::is_ci() { Some(Toolchain::set_up()?) } else { Toolchain::find()? };
    let Some(toolchain) = toolchain else {
        eprintln!("xtask: compared digests only: there is no eBPF toolchain here");
        return Ok(());
    };
    let versions = toolchain.versions()?;
    if let Some(other) = records.iter().find(|record| record.versions != versions) {
        eprintln!(
            "xtask: compared digests only: stored objects are by {}, here is {versions}",
            other.versions
        );
        return Ok(());
    }
    let programs = toolchain.build()?;
    for stored in OBJECTS {
        stored.compare(&stored.fresh(&programs)?)?;
        eprintln!("xtask: {} is what {versions} makes of them", stored.object);
    }
    Ok(())
}

impl Stored {
    /// The digest of the sources that are here.
    fn sources(&self) -> Result<String> {
        Ok(Sources::gather(&workspace::root()?, self.crates, &toolchain::FLAGS)?.digest())
    }

    fn path(&self) -> Result<PathBuf> {
        Ok(workspace::root()?.join(self.object))
    }

    /// What is stored of this program's making, once it is found to be of `sources`.
    fn verify(&self, sources: &str) -> Result<Record> {
        let remedy = "run `cargo xtask ebpf` and commit what it writes";
        let path = self.path()?;
        let Some(record) = Record::read(&path)? else {
            bail!("nothing tells the sources of {}: {remedy}", self.object);
        };
        if record.sources != sources {
            bail!("{} was built from other sources than these: {remedy}", self.object);
        }
        if !record.describes(&read(&path)?) {
            bail!("{} was not stored together with its digest: {remedy}", self.object);
        }
        Ok(record)
    }

    /// The object just built, as it is stored.
    fn fresh(&self, programs: &Path) -> Result<Vec<u8>> {
        let built = read(&programs.join(self.program))?;
        object::strip(&built).with_context(|| format!("cannot strip {}", self.program))
    }

    fn store(&self, object: &[u8], record: &Record) -> Result<()> {
        let path = self.path()?;
        let same = fs::read(&path).is_ok_and(|stored| stored == object);
        let parent = path.parent().context("an object lies in a directory")?;
        fs::create_dir_all(parent).with_context(|| cannot_write(parent))?;
        fs::write(&path, object).with_context(|| cannot_write(&path))?;
        record.write(&path)?;
        let news = if same { "unchanged" } else { "changed" };
        eprintln!("xtask: stored {}: {} bytes, {news}", self.object, object.len());
        Ok(())
    }

    fn compare(&self, fresh: &[u8]) -> Result<()> {
        let stored = read(&self.path()?)?;
        if let Some(section) = object::first_difference(&stored, fresh)? {
            bail!(
                "section {section} of {} is not what its sources give: \
                 run `cargo xtask ebpf` and commit what it writes",
                self.object
            );
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

/// The contents of `path`, or `None` where there is no such file.
fn read_if_present(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
