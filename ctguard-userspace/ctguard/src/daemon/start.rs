//! Brings a guard into the kernel, or takes one over that is there: all or nothing.

use std::{fs, io, path::PathBuf};

use ctguard_layout as layout;
use ctguard_layout::LAYOUT_VERSION;
use log::info;
use thiserror::Error;

use super::{
    Guard,
    bring_up::{Up, bring_up},
    dismantle,
    tick::TickError,
    undo::Undo,
};
use ctguard_kernel::{
    bpf::{
        self, AttachError, ClockError, DetectionChoice, LoadError, ModeChoice, MountError, Pins,
    },
    conntrack::{Table, TableError},
    lock::{self, LockError},
    maps::{NoSlot, OpenError, layout_of},
    net::{self, Link, Refusal, Resolved, resolve},
};
use ctguard_settings::{Assignment, SettingError};

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct StartOptions {
    pub(crate) pins: Pins,
    pub(crate) interfaces: Vec<String>,
    pub(crate) mode: ModeChoice,
    pub(crate) detection: DetectionChoice,
    pub(crate) assignments: Vec<Assignment>,
    pub(crate) trace: bool,
    pub(crate) egress_by_filter: bool,
    /// Where regulars are kept; none where they are not.
    pub(crate) state: Option<PathBuf>,
}

/// Why there is no guard.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Interface(#[from] Refusal),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Clock(#[from] ClockError),
    #[error(transparent)]
    Slot(#[from] NoSlot),
    #[error(transparent)]
    Setting(#[from] SettingError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Tick(#[from] TickError),
    #[error("cannot begin relief")]
    Relief(#[source] anyhow::Error),
    #[error("cannot tell the network namespace")]
    Namespace(#[source] io::Error),
    #[error("cannot read the interfaces")]
    Links(#[source] io::Error),
    #[error("cannot clear what an earlier start left")]
    Clear(#[source] io::Error),
    #[error("cannot keep the programs that run")]
    Former(#[source] io::Error),
    #[error("cannot draw random numbers")]
    Random(#[source] io::Error),
}

/// Starts a guard; what fails leaves the kernel as it was.
pub(crate) fn start(options: &StartOptions) -> Result<Guard, StartError> {
    let table = Table::open()?;
    let links = net::links().map_err(StartError::Links)?;
    let targets = resolve_all(&links, &options.interfaces)?;
    let lock = lock::for_daemon(options.pins.path())?;
    match start_locked(options, table, &links, &targets) {
        Ok(up) => Ok(Guard::new(up, lock, options)),
        Err(error) => {
            // A guard that is kept is known by its lock file.
            if !options.pins.path().join(layout::maps::POLICY).exists() {
                lock.remove();
            }
            Err(error)
        }
    }
}

fn start_locked(
    options: &StartOptions,
    table: Table,
    links: &[Link],
    targets: &[Link],
) -> Result<Up, StartError> {
    bpf::prepare(&options.pins)?;
    let found = found(&options.pins)?;
    let mut undo = Undo::default();
    if found == Found::Nothing {
        let pins = options.pins.clone();
        undo.push("remove the new guard", move || Ok(dismantle(&pins)?));
    }
    let up = bring_up(options, table, links, targets, found == Found::Nothing, &mut undo)?;
    undo.commit();
    Ok(up)
}

/// What lies under the pin path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Guard,
}

fn found(pins: &Pins) -> Result<Found, StartError> {
    match layout_of(pins) {
        Ok(LAYOUT_VERSION) => Ok(Found::Guard),
        Ok(0) | Err(OpenError::NoGuard { .. }) => clear(pins),
        Ok(found) => Err(OpenError::OtherLayout { path: pins.path().to_owned(), found }.into()),
        Err(error) => Err(error.into()),
    }
}

/// A start that was cut short may have left pins that belong to nothing.
fn clear(pins: &Pins) -> Result<Found, StartError> {
    let empty = fs::read_dir(pins.path()).map(|mut entries| entries.next().is_none());
    if !empty.map_err(StartError::Clear)? {
        dismantle(pins).map_err(StartError::Clear)?;
        bpf::prepare(pins)?;
    }
    Ok(Found::Nothing)
}

fn resolve_all(links: &[Link], names: &[String]) -> Result<Vec<Link>, StartError> {
    let mut targets: Vec<Link> = Vec::new();
    for name in names {
        let Resolved { link, instead_of } = resolve(links, name)?;
        if let Some(kind) = instead_of {
            info!("{name} is a {kind} on {}; guarding {}", link.name, link.name);
        }
        if !targets.iter().any(|target| target.index == link.index) {
            targets.push(link);
        }
    }
    Ok(targets)
}
