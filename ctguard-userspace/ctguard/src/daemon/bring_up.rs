//! Loads the program, fills the maps and attaches to every interface.

use std::{collections::BTreeSet, io, sync::Arc};

use log::{info, warn};

use ctguard_layout::{Detection, FLOW_KINDS, programs};

use super::{
    Guard, Guarded, StartError, StartOptions,
    adaptive_timeouts::AdaptiveTimeouts,
    arrivals::{Refused, Waiting},
    complaints::Complaints,
    configuration::Configuration,
    hook::Hooks,
    incidents::IncidentsKeeper,
    keep_regulars::RegularsKeeper,
    known_flows::KnownFlows,
    lists::{ListsKeeper, Now},
    look::Looker,
    others::Others,
    outside::Outside,
    reclaim::Reclaimer,
    settle::{fixed, settle},
    targets::Targets,
    tick::{Ticked, Ticker},
    undo::Undo,
    unreadable::Unreadable,
};
use crate::{event_file::EventFile, feeds::Feeds, holders::HoldersFile, sentence::sentence};
use ctguard_control::standing::Standings;
use ctguard_kernel::{
    bpf::{
        self, AttachError, Attachment, Detector, FormerPrograms, KernelClock, Mode, ModeChoice,
        Pins, Programs,
    },
    conntrack::{Table, Timeouts, timeouts_writer::TimeoutSettings},
    lock::{self, Lock},
    maps::{GuardMaps, SourceMemory},
    net::{Link, Stations, Surroundings, bond_without_native},
    run_directory,
};
use ctguard_units::{CoarseClock, Sizes};

/// How long after the first start unknown TCP connections pass where conntrack is not asked, unless
/// the table has been dumped earlier: connections older than the guard must go on.
const LEARNING_SECONDS: u64 = 10;

/// The assumed maximum while conntrack is not loaded: the kernel's default for 4 GiB of memory and
/// more (`nf_conntrack_init_start`, `net/netfilter/nf_conntrack_core.c`).
const USUAL_MAX: u64 = 262_144;

/// Where a guard is made, and whether its maps are new.
pub(super) struct Place {
    /// Beside the pins of the one that it replaces, if that has another map layout.
    pub(super) pins: Pins,
    pub(super) fresh: bool,
}

/// Loads, configures and attaches. Registers in `undo` how each step is undone. Returns the guard, the
/// lock that keeps commands from changing settings, and what is not guarded yet though it is there.
///
/// A guard that is taken over keeps its maps, and its links get the new programs without a gap.
pub(super) fn bring_up(
    options: &StartOptions,
    table: Table,
    around: Surroundings,
    targets: &Targets,
    place: &Place,
    lock: Lock,
    undo: &mut Undo,
) -> Result<(Guard, Lock, Vec<Refused>), StartError> {
    let &Place { ref pins, fresh } = place;
    let without_namespace = || StartError::cannot("find out the network namespace");
    let events = EventFile::of_this_namespace().map_err(without_namespace())?;
    let holders = HoldersFile::of_this_namespace().map_err(without_namespace())?;
    holders.clear();
    let max = if table.is_there() { table.max()? } else { USUAL_MAX };
    let sizes = Sizes::of_table(max);
    let mut programs = Programs::load(pins, sizes, options.trace, options.detection)?;
    let links = &targets.links;
    let former =
        links.iter().map(|link| FormerPrograms::of(pins, link)).collect::<io::Result<Vec<_>>>();
    let former = former.map_err(StartError::cannot("keep the programs that run"))?;
    pin(&programs, pins, undo)?;
    let kernel_clock = KernelClock::from_pin(&pins.program(programs::CLOCK))?;
    let jiffies_per_second = kernel_clock.calibrate(programs.clock_read())?;
    let coarse = CoarseClock::new(jiffies_per_second);
    let timeouts = Timeouts::open();
    let mut maps = GuardMaps::open_unversioned(pins)?;
    let writing = lock::for_writing(options.pins.path())?;
    let (values, again, until_then) = (maps.values(), pins.clone(), writing.clone());
    undo.push("put the former settings back", move || {
        GuardMaps::open_unversioned(&again)?.put_back(values);
        drop(until_then);
        Ok(())
    });

    let learning_until = learning_until(&programs, &kernel_clock, jiffies_per_second)?;
    if fresh {
        maps.make(fixed(&maps)?);
    }
    maps.change_facts(|facts| {
        if fresh || facts.lookup_options_bytes != 0 || learning_until == 0 {
            facts.learning_until = learning_until;
        }
        facts.flow_timeouts = [1; FLOW_KINDS];
        coarse.write(facts);
        timeouts.write(coarse, facts);
    });
    let options_bytes = programs.detector().options_bytes();
    let mut writer = maps.settings_writer(writing.clone());
    settle(&writer, options, &around, targets, fresh, options_bytes)?;
    let now = Now::read(&kernel_clock, jiffies_per_second)?;
    let lists = ListsKeeper::start(options, fresh.then_some((&mut writer, now)))?;

    // The first packet finds a grant, or a fallback rate.
    let now = kernel_clock.now(jiffies_per_second)?;
    let mut ticker = Ticker::new(now, jiffies_per_second, &maps.limits());
    let sources = Arc::new(maps.source_memory()?);
    let (regulars, known) = RegularsKeeper::start(options.state.clone());
    let looker = look_first(Standings::new(known), &maps, &sources, &table, &timeouts);
    let indices = links.iter().map(|link| link.index);
    let Ticked { changes, .. } = ticker.tick(&maps, &sources, &table, looker.relief(0), indices)?;
    let detection = detection(programs.detector(), &table);
    begin_detection(&maps, (detection, options_bytes), fresh);
    if !links.iter().all(|link| bpf::is_attached(pins, link.index)) {
        // The filter lacks flows of an interface that was not guarded.
        maps.doubt_known_flows();
    }
    let kernel = (&mut programs, &mut maps, &around);
    let (interfaces, refused) =
        attach_all(options, targets, kernel, former, place, &writing, undo)?;
    let record = run_directory::of_this_namespace("timeouts.json").map_err(without_namespace())?;
    let adaptive = AdaptiveTimeouts::start(TimeoutSettings::of_the_kernel(), &record)
        .map_err(|error| StartError::Timeouts(error.into()))?;
    let guard = Guard {
        pins: pins.clone(),
        lock,
        programs,
        known_flows: KnownFlows::new(maps.flow_memory()?),
        maps,
        table,
        timeouts,
        kernel_clock,
        jiffies_per_second,
        coarse,
        ticker,
        sources,
        looker,
        regulars,
        reclaimer: Reclaimer::default(),
        adaptive,
        others: Others::default(),
        unreadable: Unreadable::default(),
        events,
        holders,
        interfaces,
        waiting: Waiting::new().map_err(without_namespace())?,
        unreported: changes,
        around,
        configuration: Configuration::new(options),
        lists,
        hooks: Hooks::default(),
        outside: Outside::default(),
        incidents: IncidentsKeeper::start(options.state.as_deref()),
        feeds: Feeds::default(),
        mode: options.mode,
        egress_by_filter: options.egress_by_filter,
        complaints: Complaints::default(),
    };
    Ok((guard, writing, refused))
}

/// Until then unknown connections are assumed to be older than the guard, where conntrack does not
/// say so; 0 is not at all.
fn learning_until(
    programs: &Programs,
    kernel_clock: &KernelClock,
    jiffies_per_second: u32,
) -> Result<u64, StartError> {
    match programs.detector() {
        Detector::Conntrack(_) => Ok(0),
        Detector::FlowCache(_) => {
            let learning = LEARNING_SECONDS * u64::from(jiffies_per_second);
            Ok(kernel_clock.now(jiffies_per_second)?.0 + learning)
        }
    }
}

fn look_first(
    standings: Standings,
    maps: &GuardMaps,
    sources: &Arc<SourceMemory>,
    table: &Table,
    timeouts: &Timeouts,
) -> Looker {
    let mut looker = Looker::new(standings);
    if let Err(error) = looker.first(maps, sources, table, timeouts) {
        warn!("the guard starts without a look at the connection table: {error:#}");
    }
    looker
}

/// Pins the programs in the place of those of an earlier start.
fn pin(programs: &Programs, pins: &Pins, undo: &mut Undo) -> Result<(), StartError> {
    let former = pins.programs().map_err(StartError::cannot("keep the programs that run"))?;
    let again = pins.clone();
    undo.push("pin the former programs", move || {
        former.iter().try_for_each(|(name, program)| again.replace_program(name, program))?;
        Ok(())
    });
    Ok(programs.pin(pins)?)
}

/// Functions may be missing because their module is.
fn detection(detector: &Detector, table: &Table) -> Detection {
    let detection = detector.detection();
    if detection == Detection::FunctionsMissing && !table.is_there() {
        Detection::NotLoaded
    } else {
        detection
    }
}

/// Sets what the environment says about the detection while programs are being replaced.
///
/// A nonzero `lookup_options_bytes` claims that every attached program asks conntrack. A program
/// without these calls would take every flow that the filter lacks for new. So the field is cleared
/// before the first such program is attached, and set after the last one is gone, including those of
/// interfaces that are no longer guarded. In between the flow cache, which both kinds of program
/// keep, answers for all.
fn begin_detection(maps: &GuardMaps, (detection, next): (Detection, u32), fresh: bool) {
    if fresh || maps.environment().daemon.lookup_options_bytes == next {
        maps.note_detection(detection, next);
    } else {
        maps.note_detection(Detection::Changing, 0);
    }
}

/// Attaches to all targets, but what the configuration names may have to wait: a running daemon would guard
/// on without it. An interface that was guarded does not wait.
fn attach_all(
    options: &StartOptions,
    targets: &Targets,
    (programs, maps, around): (&mut Programs, &mut GuardMaps, &Surroundings),
    former: Vec<FormerPrograms>,
    &Place { ref pins, fresh }: &Place,
    writing: &Lock,
    undo: &mut Undo,
) -> Result<(Vec<Guarded>, Vec<Refused>), StartError> {
    let (mut interfaces, mut refused) = (Vec::new(), Vec::new());
    let mut first = None;
    for ((link, names), former) in targets.links.iter().zip(&targets.names).zip(former) {
        let may_wait = options.interfaces.is_empty() && !former.is_there();
        undo.push("put the former programs back", move || Ok(former.restore()?));
        let how = (pins, options.mode, options.egress_by_filter);
        match attach_one(programs, maps, around, link, how) {
            Ok(guarded) => interfaces.push(Guarded { names: names.clone(), ..guarded }),
            Err(error) if may_wait && error.is_of_device() => {
                // It may not have been attached.
                let _ = Attachment::detach(pins, link.index);
                maps.settings_writer(writing.clone()).remove_interface(link.index);
                refused.extend(names.iter().map(|name| Refused {
                    name: name.clone(),
                    error: sentence(&error),
                    is_tried_again: true,
                }));
                first = first.or(Some(error));
            }
            Err(error) => return Err(error.into()),
        }
    }
    match first {
        Some(first) if fresh && interfaces.is_empty() && targets.missing.is_empty() => {
            Err(first.into())
        }
        _ => Ok((interfaces, refused)),
    }
}

pub(super) fn attach_one(
    programs: &mut Programs,
    maps: &GuardMaps,
    around: &Surroundings,
    link: &Link,
    (pins, mode, egress_by_filter): (&Pins, ModeChoice, bool),
) -> Result<Guarded, AttachError> {
    let attachment = bpf::attach(pins, programs, link, mode, egress_by_filter)?;
    note_mode(maps, link, &attachment);
    Ok(Guarded {
        name: link.name.clone(),
        ifindex: link.index,
        mode: attachment.mode,
        attached: true,
        stations: Stations::of(around, link),
        names: Vec::new(),
    })
}

/// Writes the mode in use into the interface's slot, and warns of the slow one.
pub(super) fn note_mode(maps: &GuardMaps, link: &Link, attachment: &Attachment) {
    maps.note_mode(link.index, attachment.mode.number());
    let is_slower = attachment.mode == Mode::Generic && !Mode::Native.loses_answers(link);
    if attachment.fresh && is_slower {
        let reason = attachment
            .native_refusal
            .as_ref()
            .map(|error| match bond_without_native(link) {
                Some(what) => format!(" (a bond's {what} refuses native XDP)"),
                None => format!(" (its driver: {error})"),
            })
            .unwrap_or_default();
        warn!("{} runs the program in generic mode, which is slower{reason}", link.name);
    }
}

/// Interfaces that a former daemon guarded and this one does not.
pub(super) fn others(guard: &Guard, targets: &[Link]) -> Result<BTreeSet<u32>, StartError> {
    let attached = guard.pins.attached().map_err(StartError::cannot("find what is attached"))?;
    let mut others = BTreeSet::from_iter(attached);
    others.extend(guard.maps.interfaces.used().iter().map(|slot| slot.interface.ifindex));
    others.retain(|ifindex| targets.iter().all(|link| link.index != *ifindex));
    Ok(others)
}

/// Detaches from other interfaces; the settings of those called by `awaited` names stay. The last step,
/// because it cannot be undone.
pub(super) fn forget_others(
    guard: &mut Guard,
    others: &BTreeSet<u32>,
    awaited: &[String],
    writing: Lock,
) {
    let Guard { pins, maps, programs, table, .. } = guard;
    let writer = maps.settings_writer(writing);
    let mut all = true;
    for &ifindex in others {
        match Attachment::detach(pins, ifindex) {
            Ok(()) => {
                let slot = writer.interfaces.of(ifindex);
                if !slot.is_some_and(|slot| awaited.contains(&slot.name())) {
                    writer.remove_interface(ifindex);
                }
                info!("interface {ifindex} is guarded no longer");
            }
            Err(error) => {
                warn!("interface {ifindex} stays guarded: {error}");
                all = false;
            }
        }
    }
    if all {
        let detector = programs.detector();
        maps.note_detection(detection(detector, table), detector.options_bytes());
    }
}
