//! The flow cache: which flows conntrack knows, as far as this interface's packets tell.
//!
//! A fixed array of lines of eight slots. A flow may lie in one of two lines that its hash names,
//! so a table that holds half as many flows as the cache has slots overflows none of them in
//! practice; where both lines are full, the flow of the first that would end soonest gives way and
//! is charged again if it goes on. Entries live no longer than conntrack's own.

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
    #[must_use]
    pub const fn of_flow(hash: u64, environment: &Environment) -> Self {
        Self::of(hash, environment.fixed.flow_line_mask, OpaqueZero::new(environment.fixed.zero))
    }
}

/// What a packet tells of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passing {
    /// Which way it goes.
    pub leaving: bool,
    /// It leaves and shows that conntrack has an entry: it opens the flow, or carries data.
    pub answers: bool,
    /// Which timeouts hold; for TCP the state decides among its four.
    /// The number of a [`FlowKind`].
    pub kind: u32,
    /// Control bits; 0 but for TCP.
    pub flags: TcpFlags,
}

/// A flow's slot, alive or ended.
#[derive(Clone, Copy)]
pub struct Found<'l> {
    cell: &'l Shared,
    slot: Slot,
}

/// Looks a flow up.
#[inline(always)]
pub fn find<L: FlowLines>(lines: &L, place: Place) -> Option<Found<'_>> {
    match find_in(lines.flow_line(place.first)?, place) {
        Some(found) => Some(found),
        None => find_in(lines.flow_line(place.second)?, place),
    }
}

impl Found<'_> {
    /// Whether conntrack knows the flow.
    #[inline(always)]
    #[must_use]
    pub const fn is_alive(&self, now: Coarse) -> bool {
        self.slot.remaining(now) != 0
    }

    /// Whether the flow is a SYN's that nothing but SYNs has followed for the repeat window:
    /// conntrack has its entry, so the same SYN again makes none.
    #[inline(always)]
    #[must_use]
    pub const fn is_just_opened(&self, environment: &Environment, now: Coarse) -> bool {
        let timeout = environment.flow_timeout(FlowKind::TcpOpening);
        let remaining = self.slot.remaining(now);
        self.slot.is_opening()
            && remaining != 0
            && remaining.saturating_add(environment.daemon.repeat_window_coarse) >= timeout
    }

    /// Whether the inside has opened the flow or sent data for it. Else conntrack may know nothing
    /// of it, for the packet that was admitted may have died on its way.
    #[inline(always)]
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        self.slot.is_answered()
    }

    /// Whether a packet that goes on with the flow changes nothing: it is established and has been
    /// prolonged in this coarse unit already.
    #[inline(always)]
    #[must_use]
    pub const fn is_fresh(&self, environment: &Environment, kind: FlowKind, now: Coarse) -> bool {
        self.slot.is_fresh(environment, kind, now)
    }

    /// Answered, and nobody closes it.
    #[inline(always)]
    #[must_use]
    pub const fn is_established(&self) -> bool {
        self.slot.is_established()
    }

    /// Notes that a packet of the flow passed, and tells whether that changed anything.
    #[inline(always)]
    #[must_use]
    pub fn pass(&self, environment: &Environment, passing: Passing, now: Coarse) -> bool {
        let slot = self.slot.after(environment, passing, now);
        // Within a coarse unit nothing changes, so a busy flow's line is written once a second
        // and stays shared between CPUs meanwhile.
        let changed = slot != self.slot;
        if changed {
            // Another CPU may have given the slot to another flow meanwhile.
            let _ = self.cell.replace_if(self.slot.0, slot.0);
        }
        changed
    }

    /// Notes that the flow was opened anew, whatever became of it before.
    #[inline(always)]
    pub fn reopen(&self, place: Place, environment: &Environment, passing: Passing, now: Coarse) {
        self.cell.store(Slot::opened(place.hash, environment, passing, now).0);
    }
}

/// Remembers a flow that has no slot: in an empty one, or in the place of the flow that ends
/// soonest.
#[inline(always)]
pub fn remember<L: FlowLines>(
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
            // Read again where the paths have met: a value that only some of them have set is not
            // to be read, says the verifier.
            let cell = slot_at(line, place.zero.hide(position));
            return Some(Found { cell, slot: Slot(cell.load()) });
        }
    }
    None
}

/// Remembers a flow that a dump told of, if it is not known and there is an empty slot for it: what
/// packets made known never gives way to it.
pub fn learn<L: FlowLines>(
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

/// Free slots below which a line's new flow rather goes to its second line. More would make more
/// lookups read two lines; fewer would leave no room for flows whose second line is full.
const COMFORTABLE: i64 = 3;

struct Victim<'l> {
    cell: &'l Shared,
    ended: i64,
}

/// Without a branch: the verifier would follow each of the 2^8 ways through eight comparisons.
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
