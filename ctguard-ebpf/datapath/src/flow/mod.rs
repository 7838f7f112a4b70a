//! The flow cache: which flows conntrack knows, as far as this interface's packets show.
//!
//! A fixed array of lines of eight slots. A flow may lie in one of two lines that its hash selects,
//! so a table with half as many flows as the cache has slots overflows none of them in practice.
//! Where both lines are full, a new flow replaces the one in its first line that would end soonest;
//! if that one goes on, it is charged again. Entries live no longer than conntrack's own.

mod slot;

use slot::Slot;

use crate::{
    hash::low_word,
    layout::{Environment, FlowKind, FlowLine},
    packet::TcpFlags,
    place::Place,
    shared::Shared,
    units::Coarse,
    verifier::{OpaqueZero, sign},
};

/// Gives the lines of the flow cache.
pub trait FlowLines {
    /// The line at `index`, if there is one.
    fn flow_line(&self, index: u32) -> Option<&FlowLine>;
}

impl Place {
    /// The place of the flow of this hash in the cache.
    #[inline(always)]
    pub(crate) const fn of_flow(hash: u64, environment: &Environment) -> Self {
        Self::of(hash, environment.fixed.flow_line_mask, OpaqueZero::new(environment.fixed.zero))
    }
}

/// What a packet shows of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passing {
    pub(crate) leaving: bool,
    /// It leaves and shows that conntrack has an entry: it opens the flow, or carries data.
    pub(crate) answers: bool,
    /// The number of a [`FlowKind`], which selects the timeouts.
    pub(crate) kind: u32,
    /// 0 except for TCP.
    pub(crate) flags: TcpFlags,
}

/// A flow's slot, alive or ended.
#[derive(Clone, Copy)]
pub(crate) struct Found<'l> {
    cell: &'l Shared,
    pub(crate) slot: Slot,
}

#[inline(always)]
pub(crate) fn find<L: FlowLines>(lines: &L, place: Place) -> Option<Found<'_>> {
    match find_in(lines.flow_line(place.first)?, place) {
        Some(found) => Some(found),
        None => find_in(lines.flow_line(place.second)?, place),
    }
}

impl Found<'_> {
    /// Whether conntrack knows the flow.
    #[inline(always)]
    pub(crate) const fn is_alive(&self, now: Coarse) -> bool {
        self.slot.remaining(now) != 0
    }

    /// Whether only SYNs of the flow have been seen, the last within the repeat window: conntrack
    /// has the entry, so the same SYN again makes none.
    #[inline(always)]
    pub(crate) const fn is_just_opened(&self, environment: &Environment, now: Coarse) -> bool {
        let timeout = environment.flow_timeout(FlowKind::TcpOpening);
        let remaining = self.slot.remaining(now);
        self.slot.is_opening()
            && remaining != 0
            && remaining.saturating_add(environment.daemon.repeat_window_coarse) >= timeout
    }

    /// Notes that a packet of the flow passed; whether that changed anything.
    #[inline(always)]
    pub(crate) fn pass(&self, environment: &Environment, passing: Passing, now: Coarse) -> bool {
        let slot = self.slot.after(environment, passing, now);
        // Within a coarse unit nothing changes, so a busy flow's line is written once a second
        // and stays shared between CPUs meanwhile.
        let changed = slot != self.slot;
        if changed {
            // Another CPU may have given the slot to another flow meanwhile.
            self.cell.replace_if(self.slot.0, slot.0);
        }
        changed
    }
}

/// Notes that `passing` opened a flow: in the slot `found`, whatever that held before, or in a new
/// one.
#[inline(always)]
pub(crate) fn put<L: FlowLines>(
    lines: &L,
    found: Option<Found<'_>>,
    place: Place,
    environment: &Environment,
    passing: Passing,
    now: Coarse,
) {
    match found {
        Some(found) => found.cell.store(Slot::opened(place.hash, environment, passing, now).0),
        None => remember(lines, place, environment, passing, now),
    }
}

/// Remembers a flow that has no slot: in an empty one, or in place of the flow that ends soonest.
#[inline(always)]
pub(crate) fn remember<L: FlowLines>(
    lines: &L,
    place: Place,
    environment: &Environment,
    passing: Passing,
    now: Coarse,
) {
    let slot = Slot::opened(place.hash, environment, passing, now);
    let (Some(first), Some(second)) = (lines.flow_line(place.first), lines.flow_line(place.second))
    else {
        return;
    };
    let in_first = soonest_to_end(first, now);
    let in_second = soonest_to_end(second, now);
    let crowded = in_first.ended < COMFORTABLE && in_second.ended > in_first.ended;
    let victim = if crowded { in_second } else { in_first };
    victim.cell.store(slot.0);
}

#[inline(always)]
fn find_in(line: &FlowLine, place: Place) -> Option<Found<'_>> {
    for (cell, position) in line.slots.iter().zip(0..) {
        if Slot(cell.load()).is_of(place.hash) {
            // Read again behind the loop: the verifier refuses a value that not every path has set.
            let cell = slot_at(line, place.zero.hide(position));
            return Some(Found { cell, slot: Slot(cell.load()) });
        }
    }
    None
}

/// Remembers a flow from a dump of the table, if it is not known and has an empty slot. It never
/// replaces a flow whose packets were seen.
pub(crate) fn learn<L: FlowLines>(
    lines: &L,
    place: Place,
    environment: &Environment,
    passing: Passing,
    life: u32,
    now: Coarse,
) {
    if find(lines, place).is_some_and(|found| found.is_alive(now)) {
        return;
    }
    for index in [place.first, place.second] {
        let Some(victim) = lines.flow_line(index).map(|line| soonest_to_end(line, now)) else {
            return;
        };
        if victim.ended > 0 {
            let slot = Slot::opened(place.hash, environment, passing, now);
            victim.cell.store(slot.ending_within(life, now).0);
            return;
        }
    }
}

/// With fewer free slots than this in its first line, a new flow may go to its second. More would
/// make more lookups read two lines; fewer would leave no room for flows whose second line is full.
const COMFORTABLE: i64 = 3;

struct Victim<'l> {
    cell: &'l Shared,
    /// Slots of the line that have ended.
    ended: i64,
}

/// Without a branch: the verifier would walk each of the 2^8 paths through eight comparisons.
#[inline(always)]
fn soonest_to_end(line: &FlowLine, now: Coarse) -> Victim<'_> {
    let [first, rest @ ..] = &line.slots;
    let mut soonest = Slot(first.load()).lifetime(now) << POSITION_BITS;
    let mut ended = sign(soonest);
    for (cell, position) in rest.iter().zip(1..) {
        let lifetime = Slot(cell.load()).lifetime(now) << POSITION_BITS | position;
        ended += sign(lifetime);
        let difference = soonest - lifetime;
        soonest -= difference & !sign(difference);
    }
    Victim { cell: slot_at(line, low_word(soonest.cast_unsigned())), ended: -ended }
}

/// Bits of a slot's position in its line.
const POSITION_BITS: u32 = FlowLine::SLOTS.trailing_zeros();

#[inline(always)]
fn slot_at(line: &FlowLine, position: u32) -> &Shared {
    &line.slots[position as usize & (FlowLine::SLOTS - 1)]
}
