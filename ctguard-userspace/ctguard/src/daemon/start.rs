//! Brings a guard into the kernel, or takes one over that is there: all or nothing.

use std::{fs, io, path::PathBuf};

use ctguard_layout::{LAYOUT_VERSION, maps};
use log::{info, warn};
use thiserror::Error;

use super::{
    Guard,
    arrivals::{self, Refused, publish},
    bring_up::{Place, bring_up, forget_others, others},
    configuration::Configuration,
    dismantle, lists,
    outside::go_on_confined,
    run::Waits,
    targets::Targets,
    tick::TickError,
    undo::Undo,
};
use crate::{
    config::{Config, ConfigError, DEFAULT_PATH},
    event_file::forget_gone_namespaces,
    events::What,
    interfaces::Plan,
};
use ctguard_kernel::{
    bpf::{
        self, AttachError, ClockError, DetectionChoice, LoadError, ModeChoice, MountError, Pins,
        is_attached,
    },
    conntrack::{Table, TableError},
    lock::{self, Lock, LockError},
    maps::{ListError, NoSlot, OpenError, layout_of},
    memory,
    net::{self, Link, Refusal, Surroundings, resolve},
};
use ctguard_settings::{Assignment, SettingError, StartKey};

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct StartOptions {
    pub(crate) pins: Pins,
    /// Those of the command line; if there are none, those of the configuration.
    pub(crate) interfaces: Vec<String>,
    /// As the operator named the configuration's file.
    pub(crate) file: Option<PathBuf>,
    pub(crate) config: Config,
    pub(crate) mode: ModeChoice,
    pub(crate) detection: DetectionChoice,
    pub(crate) assignments: Vec<Assignment>,
    /// What the command line says instead of the configuration.
    pub(crate) decided: Vec<StartKey>,
    pub(crate) trace: bool,
    pub(crate) egress_by_filter: bool,
    /// Where regulars and lists are kept.
    pub(crate) state: Option<PathBuf>,
}

impl StartOptions {
    /// A configuration says all that is not default. Without one, a guard that is taken over keeps its
    /// settings.
    pub(super) fn keeps_settings(&self, fresh: bool) -> bool {
        !fresh && !self.config.is_there()
    }
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
    Config(#[from] ConfigError),
    #[error(
        "no interface to guard; name one: ctguard run -i wan0, or interfaces = [\"wan0\"] in {DEFAULT_PATH}"
    )]
    NoInterface,
    #[error(transparent)]
    List(#[from] ListError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Tick(#[from] TickError),
    #[error("cannot restore timeouts that an earlier daemon changed")]
    Timeouts(#[source] anyhow::Error),
    #[error("cannot wait for events of the kernel")]
    Waits(#[source] anyhow::Error),
    #[error("cannot {task}")]
    Io { task: &'static str, source: io::Error },
}

impl StartError {
    pub(super) fn cannot(task: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { task, source }
    }
}

/// Starts a guard, within the runtime that will steer it.
pub(super) fn start(options: &StartOptions) -> Result<(Guard, Waits), StartError> {
    let table = Table::open()?;
    let links = net::links().map_err(StartError::cannot("read the interfaces"))?;
    let named = &options.interfaces;
    let named = if named.is_empty() { options.config.interfaces() } else { named };
    if named.is_empty() {
        return Err(StartError::NoInterface);
    }
    let is_stale = lock::is_of_other_namespace(options.pins.path());
    let takes_over = !is_stale && options.pins.path().join(maps::POLICY).exists();
    let plan =
        Plan::of_start(&links, named, |index| takes_over && is_attached(&options.pins, index));
    if let Some(refusal) = plan.refusal_of_start(!options.interfaces.is_empty(), takes_over) {
        return Err(refusal.clone().into());
    }
    // A guard may have a device that a missing name means.
    if !takes_over {
        ensure_some(&plan.added, options, &links)?;
    }
    let lock = lock::for_daemon(options.pins.path())?;
    bpf::finish_replacement(&options.pins)
        .map_err(StartError::cannot("finish what an earlier start began"))?;
    if let Err(error) = forget_gone_namespaces() {
        warn!("cannot remove the events of network namespaces that are gone: {error}");
    }
    if is_stale {
        remove_stale(&options.pins)?;
    }
    let started = start_locked(options, table, links, plan, lock.clone());
    // A guard that is kept is known by its lock file.
    if started.is_err() && !options.pins.path().join(maps::POLICY).exists() {
        lock.remove();
    }
    started
}

/// Whoever mistypes the only name on a command line is there to hear it.
fn ensure_some(found: &[Link], options: &StartOptions, links: &[Link]) -> Result<(), Refusal> {
    match options.interfaces.first() {
        Some(name) if found.is_empty() => resolve(links, name).map(drop),
        _ => Ok(()),
    }
}

/// A guard of a namespace that is gone would bring its lists and settings into this one.
fn remove_stale(pins: &Pins) -> Result<(), StartError> {
    if !pins.path().exists() {
        return Ok(());
    }
    warn!("removing the guard at {}, which is of another network namespace", pins.path().display());
    dismantle(pins).map_err(StartError::cannot("remove a guard of another network namespace"))
}

fn start_locked(
    options: &StartOptions,
    table: Table,
    links: Vec<Link>,
    plan: Plan,
    lock: Lock,
) -> Result<(Guard, Waits), StartError> {
    bpf::prepare(&options.pins)?;
    let found = prepare(&options.pins)?;
    bpf::name_moved(&options.pins, &links).map_err(StartError::cannot("find what is attached"))?;
    let targets = Targets::new(&options.pins, &links, &plan)
        .map_err(StartError::cannot("find what is attached"))?;
    let mut undo = Undo::default();
    let place = place(&options.pins, found, &mut undo)?;
    let fresh = place.fresh;
    ensure_some(&targets.links, options, &links)?;
    for note in plan.notes {
        info!("{note}");
    }
    let indices: Vec<_> = targets.links.iter().map(|link| link.index).collect();
    let around = Surroundings::of(links, &indices);
    let (mut guard, writing, mut refused) =
        bring_up(options, table, around, &targets, &place, lock, &mut undo)?;
    let waits = Waits::open(&mut guard, options.trace).map_err(StartError::Waits)?;
    let others = others(&guard, &targets.links)?;
    if let FoundGuard::Replaced(layout) = found {
        bpf::replace(&options.pins).map_err(StartError::cannot("replace the former guard"))?;
        guard.pins = options.pins.clone();
        guard.maps.are_pinned_at(&options.pins);
        guard.report(What::Replaced { former_layout: layout, layout: LAYOUT_VERSION });
    }
    undo.commit();
    // Feeds are read by threads of this one.
    go_on_confined(&mut guard, options.state.as_deref());
    let awaited = if options.keeps_settings(fresh) { &targets.absent[..] } else { &[] };
    forget_others(&mut guard, &others, awaited, writing.clone());
    if !fresh {
        let former = options.state.as_deref().and_then(Configuration::last_good);
        let (_, listed) = lists::configure(&mut guard, &former.unwrap_or_default(), &writing);
        drop(writing);
        guard.attempted("change the lists", "they are not as configured", &listed);
    }
    lists::follow_feeds(&mut guard);
    if !targets.missing.is_empty() {
        let interfaces = targets.missing.clone();
        guard.report(What::InterfaceAwaited { interfaces, existing: plan.existing });
    }
    guard.configuration.warn_of_others(&guard.interfaces, &targets.absent);
    refused.extend(plan.refused.into_iter().map(|(name, refusal)| {
        // The kernel tells when the interface changes.
        Refused { name, error: refusal.to_string(), is_tried_again: false }
    }));
    arrivals::begin(&mut guard, &targets.absent, refused);
    publish(&mut guard);
    memory::give_back();
    let kept = guard.configuration.keep();
    guard.attempted("keep the configuration", "a start with a damaged file finds none", &kept);
    Ok((guard, waits))
}

/// The guard that a start finds.
#[derive(Clone, Copy)]
enum FoundGuard {
    Nothing,
    /// Its maps are used again.
    SameLayout,
    /// Of this layout, and replaced: its maps have another, or some are lost.
    Replaced(u32),
}

/// Clears what an interrupted start left.
fn prepare(pins: &Pins) -> Result<FoundGuard, StartError> {
    match layout_of(pins) {
        Ok(LAYOUT_VERSION) => match pins.lack() {
            None => return Ok(FoundGuard::SameLayout),
            // In a map that is made anew, nothing would be as the program expects it.
            Some(lost) => {
                warn!("the guard at {} lost {lost}, so it is made anew", pins.path().display());
                return Ok(FoundGuard::Replaced(LAYOUT_VERSION));
            }
        },
        Ok(0) | Err(OpenError::NoGuard { .. }) => {}
        Ok(layout) => return Ok(FoundGuard::Replaced(layout)),
        Err(error) => return Err(error.into()),
    }
    let empty = fs::read_dir(pins.path()).map(|mut entries| entries.next().is_none());
    if !empty.map_err(StartError::cannot("clear what an earlier start left"))? {
        dismantle(pins).map_err(StartError::cannot("clear what an earlier start left"))?;
        bpf::prepare(pins)?;
    }
    Ok(FoundGuard::Nothing)
}

fn place(pins: &Pins, found: FoundGuard, undo: &mut Undo) -> Result<Place, StartError> {
    let again = pins.clone();
    Ok(match found {
        FoundGuard::Nothing => {
            undo.push("remove the new guard", move || Ok(dismantle(&again)?));
            Place { pins: pins.clone(), fresh: true }
        }
        FoundGuard::SameLayout => Place { pins: pins.clone(), fresh: false },
        FoundGuard::Replaced(_) => {
            undo.push("remove the new guard", move || Ok(bpf::finish_replacement(&again)?));
            let beside = bpf::begin_beside(pins);
            let pins = beside.map_err(StartError::cannot("make a guard beside the former one"))?;
            Place { pins, fresh: true }
        }
    })
}
