//! From nothing, or from what a former daemon left, to programs that run on every interface.

use std::{collections::BTreeSet, io};

use log::{info, warn};

use ctguard_layout::{Detection, FLOW_KINDS, programs};

use super::{
    Guarded, StartError, StartOptions,
    known_flows::KnownFlows,
    known_sources::KnownSources,
    reclaim::Relieving,
    settle::{fixed, settle},
    tick::Ticker,
    undo::Undo,
};
use crate::events::EventFile;
use ctguard_kernel::{
    bpf::{self, Attachment, Detector, Former, KernelClock, Mode, Pins, Programs},
    conntrack::{Table, Timeouts},
    lock,
    maps::{GuardMaps, SettingsWriter, SourceMemory},
    net::Link,
};
use ctguard_units::{CoarseClock, Sizes};

/// What a guard consists of.
pub(super) struct Up {
    pub(super) programs: Programs,
    pub(super) maps: GuardMaps,
    pub(super) table: Table,
    pub(super) timeouts: Timeouts,
    pub(super) kernel_clock: KernelClock,
    pub(super) jiffies_per_second: u32,
    pub(super) coarse: CoarseClock,
    pub(super) ticker: Ticker,
    pub(super) sources: SourceMemory,
    pub(super) known_sources: KnownSources,
    pub(super) relieving: Relieving,
    pub(super) known_flows: KnownFlows,
    pub(super) events: EventFile,
    pub(super) interfaces: Vec<Guarded>,
}

/// Where the flow cache answers alone, TCP connections that nobody knows pass for so long after the
/// first start, or until the table has been dumped into it: those that are older than the guard must
/// go on, also when the table is full already.
const LEARNING_SECONDS: u64 = 10;

/// What a table is taken for that is not there yet: the kernel's own choice for 4 GiB of memory and
/// more (`nf_conntrack_init_start`, `net/netfilter/nf_conntrack_core.c`).
const USUAL_MAX: u64 = 262_144;

/// Loads, settles and attaches; `fresh` without a guard to take over. What is done here `undo` can
/// undo, until nothing can fail any more.
///
/// A guard that is there keeps its maps, and with them every bucket; its links get the new
/// programs without a packet in between.
pub(super) fn bring_up(
    options: &StartOptions,
    table: Table,
    links: &[Link],
    targets: &[Link],
    fresh: bool,
    undo: &mut Undo,
) -> Result<Up, StartError> {
    let pins = &options.pins;
    let events = EventFile::of_this_namespace().map_err(StartError::Namespace)?;
    let max = if table.is_there() { table.max()? } else { USUAL_MAX };
    let sizes = Sizes::of_table(max);
    let mut programs = Programs::load(pins, sizes, options.trace, options.detection)?;
    let former = targets.iter().map(|link| Former::of(pins, link)).collect::<io::Result<Vec<_>>>();
    let former = former.map_err(StartError::Former)?;
    pin(&programs, pins, undo)?;
    let kernel_clock = KernelClock::from_pin(&pins.program(programs::CLOCK))?;
    let jiffies_per_second = kernel_clock.calibrate(programs.clock_read())?;
    let coarse = CoarseClock::new(jiffies_per_second);
    let timeouts = Timeouts::open();
    let mut maps = GuardMaps::open_unversioned(pins)?;
    let writing = lock::for_writing(pins.path())?;
    let (values, again, until_then) = (maps.values(), pins.clone(), writing.clone());
    undo.push("put the former settings back", move || {
        GuardMaps::open_unversioned(&again)?.put_back(values);
        drop(until_then);
        Ok(())
    });

    let learning_until = match programs.detector() {
        Detector::Conntrack(_) => 0,
        Detector::FlowCache(_) => {
            let learning = LEARNING_SECONDS * u64::from(jiffies_per_second);
            kernel_clock.now(jiffies_per_second)?.0 + learning
        }
    };
    if fresh {
        maps.make(fixed(&maps)?);
    }
    maps.change_facts(|facts| {
        // The flow cache answers for the first time, or conntrack does.
        if fresh || facts.lookup_options_bytes != 0 || learning_until == 0 {
            facts.learning_until = learning_until;
        }
        facts.flow_timeouts = [1; FLOW_KINDS];
        coarse.write(facts);
        timeouts.write(coarse, facts);
    });
    let options_bytes = programs.detector().options_bytes();
    let writer = maps.settings_writer(writing.clone());
    settle(&writer, options, links, targets, fresh, options_bytes)?;

    // The first packet finds a grant, or a fallback rate.
    let now = kernel_clock.now(jiffies_per_second)?;
    let mut ticker = Ticker::new(now, jiffies_per_second, &maps.limits());
    let sources = maps.source_memory()?;
    ticker.tick(&maps, &sources, &table, targets.iter().map(|link| link.index))?;
    let detection = detection(programs.detector(), &table);
    begin_detection(&maps, (detection, options_bytes), fresh);
    if !targets.iter().all(|link| bpf::is_attached(pins, link.index)) {
        // Nobody has noted the flows of an interface that was not guarded.
        maps.doubt_known_flows();
    }
    let others = others(pins, &maps, targets)?;
    let mut interfaces = Vec::new();
    for (link, former) in targets.iter().zip(former) {
        undo.push("put the former programs back", move || Ok(former.restore()?));
        interfaces.push(attach_one(&mut programs, &maps, link, options)?);
    }
    let relieving = Relieving::start().map_err(StartError::Relief)?;
    let known_flows = KnownFlows::new(maps.flow_memory()?);
    if forget(&others, pins, &maps.settings_writer(writing)) {
        maps.note_detection(detection, options_bytes);
    }
    Ok(Up {
        programs,
        maps,
        table,
        timeouts,
        kernel_clock,
        jiffies_per_second,
        coarse,
        ticker,
        sources,
        known_sources: KnownSources::new(options.state.clone()),
        relieving,
        known_flows,
        events,
        interfaces,
    })
}

/// Pins the programs in the place of those of an earlier start.
fn pin(programs: &Programs, pins: &Pins, undo: &mut Undo) -> Result<(), StartError> {
    let former = pins.programs().map_err(StartError::Former)?;
    let again = pins.clone();
    undo.push("pin the former programs", move || {
        former.iter().try_for_each(|(name, program)| again.replace_program(name, program))?;
        Ok(())
    });
    Ok(programs.pin()?)
}

/// Who answers, and why: functions may be missing because their module is.
fn detection(detector: &Detector, table: &Table) -> Detection {
    let detection = detector.detection();
    if detection == Detection::FunctionsMissing && !table.is_there() {
        Detection::NotLoaded
    } else {
        detection
    }
}

/// What the environment tells of the detection while programs are being replaced.
///
/// Its `lookup_options_bytes` say that every program in a link asks conntrack. One without the
/// calls would judge by half: no answer ever comes, but what the filter lacks counts as new before
/// all of the flow cache is asked. One with the calls does not make them while the field is 0. So
/// it is cleared before the first program without calls comes, and set when the last one is gone,
/// that of an interface guarded no longer included; in between the flow cache, which both kinds
/// keep, answers for all. A start that fails in between leaves programs of both kinds, and it so.
/// Nothing changes where both starts have the same answer, and nothing is judged before a new
/// guard's first attachment.
fn begin_detection(maps: &GuardMaps, (detection, next): (Detection, u32), fresh: bool) {
    if fresh || maps.environment().daemon.lookup_options_bytes == next {
        maps.note_detection(detection, next);
    } else {
        maps.note_detection(Detection::Changing, 0);
    }
}

fn attach_one(
    programs: &mut Programs,
    maps: &GuardMaps,
    link: &Link,
    options: &StartOptions,
) -> Result<Guarded, StartError> {
    let StartOptions { pins, mode, egress_by_filter, .. } = options;
    let attachment = bpf::attach(pins, programs, link, *mode, *egress_by_filter)?;
    note_mode(maps, link, &attachment);
    Ok(Guarded {
        name: link.name.clone(),
        ifindex: link.index,
        mode: attachment.mode,
        attached: true,
    })
}

/// Writes the mode in use into the interface's slot, and warns of the slow one.
pub(super) fn note_mode(maps: &GuardMaps, link: &Link, attachment: &Attachment) {
    maps.note_mode(link.index, attachment.mode.number());
    if attachment.fresh && attachment.mode == Mode::Generic {
        let reason = attachment
            .native_refusal
            .as_ref()
            .map(|error| format!(" (its driver: {error})"))
            .unwrap_or_default();
        warn!("{} runs the program in generic mode, which is slower{reason}", link.name);
    }
}

/// Interfaces that a former daemon guarded and this one is not asked to.
fn others(pins: &Pins, maps: &GuardMaps, targets: &[Link]) -> Result<BTreeSet<u32>, StartError> {
    let mut others = BTreeSet::from_iter(pins.attached().map_err(StartError::Former)?);
    others.extend(maps.interfaces.used().iter().map(|slot| slot.interface.ifindex));
    others.retain(|ifindex| targets.iter().all(|link| link.index != *ifindex));
    Ok(others)
}

/// Lets go of other interfaces; false where one stays guarded. The last step of all, for it cannot be
/// undone.
fn forget(others: &BTreeSet<u32>, pins: &Pins, writer: &SettingsWriter<'_>) -> bool {
    let mut all = true;
    for &ifindex in others {
        match Attachment::detach(pins, ifindex) {
            Ok(()) => {
                writer.remove_interface(ifindex);
                info!("interface {ifindex} is guarded no longer");
            }
            Err(error) => {
                warn!("interface {ifindex} stays guarded: {error}");
                all = false;
            }
        }
    }
    all
}
