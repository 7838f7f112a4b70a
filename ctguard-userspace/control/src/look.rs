//! One look at the table: a dump's entries in; who holds how much, and what may be deleted, out.

use std::time::Duration;

use super::{
    holdings::{Holdings, Proof},
    reclaim::{Filling, Marks, Queue, ReclaimAges, ReclaimClass, queue_capacity},
    sources::SourceScope,
    standing::parts_room,
};
use ctguard_units::TableSample;

/// What an entry is, by protocol, TCP state and status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// No reply seen: TCP in `SYN_SENT`, UDP, ICMP and others.
    Unanswered,
    /// TCP in `SYN_RECV`, or in `SYN_SENT` with a reply.
    HalfOpen,
    /// TCP in ESTABLISHED, ASSURED.
    Established,
    /// TCP in ESTABLISHED, not ASSURED: picked up midway.
    PickedUp,
    /// TCP in `FIN_WAIT`, `CLOSE_WAIT` or `LAST_ACK`.
    Closing,
    /// TCP in `TIME_WAIT` or CLOSE.
    Finished,
    /// UDP and others: a reply seen, not ASSURED.
    Answered,
    /// UDP and others: ASSURED.
    Stream,
}

impl Kind {
    /// Number of kinds.
    pub const COUNT: usize = 8;

    /// All.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Unanswered,
        Self::HalfOpen,
        Self::Established,
        Self::PickedUp,
        Self::Closing,
        Self::Finished,
        Self::Answered,
        Self::Stream,
    ];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unanswered => "unanswered",
            Self::HalfOpen => "half-open",
            Self::Established => "established",
            Self::PickedUp => "picked-up",
            Self::Closing => "closing",
            Self::Finished => "finished",
            Self::Answered => "answered",
            Self::Stream => "stream",
        }
    }
}

/// One entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Who opened it.
    pub source: SourceScope,
    /// What it is.
    pub kind: Kind,
    /// Seconds since the last packet, rounded down; `None` if unknown.
    pub idle: Option<u32>,
    /// Whether it may be deleted at all.
    pub deletable: bool,
    /// Whether its source completed a handshake with it: TCP, ASSURED.
    pub proves: bool,
}

impl Held {
    /// An entry of a reopened connection is ASSURED although its SYN proves nothing.
    const fn proof(&self) -> Proof {
        match self.kind {
            Kind::Unanswered | Kind::HalfOpen | Kind::PickedUp | Kind::Answered | Kind::Stream => {
                Proof::None
            }
            Kind::Established | Kind::Closing | Kind::Finished if self.proves => Proof::OfAddress,
            Kind::Established | Kind::Closing | Kind::Finished => Proof::None,
        }
    }

    /// Whether the kernel would replace it in a full table, and no ACK is to come: it is not ASSURED
    /// (`early_drop`), or the connection has been over for a moment (above 95 %,
    /// `gc_worker_can_early_drop`, `net/netfilter/nf_conntrack_core.c`).
    fn is_replaceable(&self) -> bool {
        match self.kind {
            Kind::Established | Kind::Stream | Kind::Closing => false,
            Kind::Finished if self.proves => self.idle.is_some_and(|idle| idle >= OVER_SECONDS),
            Kind::Finished => true,
            Kind::Unanswered | Kind::HalfOpen | Kind::PickedUp | Kind::Answered => !self.proves,
        }
    }
}

/// By then a FIN that was lost has been sent again, and its ACK.
const OVER_SECONDS: u32 = 2;

/// A look in progress.
#[derive(Debug)]
pub struct Looking<'m, T> {
    ages: ReclaimAges,
    marks: &'m Marks,
    queue: Filling<T>,
    holdings: Holdings,
    by_kind: [u64; Kind::COUNT],
    firm: u64,
}

impl<'m, T> Looking<'m, T> {
    /// A look at a table of `max` entries, after one that left these [`super::standing::Standings::marks`].
    pub fn new(ages: ReclaimAges, marks: &'m Marks, max: u64) -> Self {
        Self {
            ages,
            marks,
            queue: Filling::new(queue_capacity(max)),
            holdings: Holdings::default(),
            by_kind: [0; Kind::COUNT],
            firm: 0,
        }
    }

    /// Adds an entry. `payload` says how to delete it, and is asked only if it is queued.
    pub fn add(&mut self, held: &Held, payload: impl FnOnce() -> Option<T>) {
        self.by_kind[held.kind as usize] += 1;
        let class = self.ages.class(held);
        let is_dead = class.is_some_and(ReclaimClass::is_dead_weight);
        self.holdings.add(held.source, held.proof(), is_dead, is_answered(held.kind));
        let spare = (held.deletable && held.is_replaceable()).then_some(ReclaimClass::Replaceable);
        let class = class.or(spare);
        let may_go = class.is_some_and(ReclaimClass::is_dead_weight) || held.is_replaceable();
        self.firm += u64::from(!may_go);
        if let Some(class) = class {
            self.queue.offer(held, class, self.marks, payload);
        }
    }

    /// `complete` says whether the dump told of every entry.
    pub fn finish(self, complete: bool) -> Look<T> {
        Look {
            queue: self.queue.finish(self.marks, self.firm),
            entries: self.by_kind.iter().sum(),
            holdings: self.holdings,
            by_kind: self.by_kind,
            complete,
            handshakes_prove: true,
        }
    }
}

/// Looks take at most this part of a processor: a 50th in calm, a 25th under pressure, and a 12th
/// when the next one is urgent.
const PART_IN_CALM: u32 = 50;
const PART: u32 = 25;
const PART_IF_URGENT: u32 = 12;

/// The shortest time between two looks, in calm and otherwise.
const INTERVAL_IN_CALM: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(250);

/// From the begin of a look that `took` so much processor time to the next one.
pub fn interval(took: Duration, is_calm: bool, is_urgent: bool) -> Duration {
    match (is_urgent, is_calm) {
        (true, _) => INTERVAL.max(took * PART_IF_URGENT),
        (false, true) => INTERVAL_IN_CALM.max(took * PART_IN_CALM),
        (false, false) => INTERVAL.max(took * PART),
    }
}

/// A table that holds so many parts per million of its maximum more than the last look found has grown.
const GROWN_PPM: u32 = 30_000;

/// Whether the next look cannot wait: the table is above its target, or it has grown into the room that
/// is kept for sources within their parts although nobody is held to one yet, so that they would be
/// refused with the others. `looked_at` is how many entries the last look found.
pub fn is_urgent(table: TableSample, target_ppm: u32, looked_at: u64, has_parts: bool) -> bool {
    let has_grown = table.entries > looked_at + table.part(GROWN_PPM);
    let lacks_parts = !has_parts && table.entries > parts_room(table, target_ppm).all;
    table.max > 0 && (table.is_above(target_ppm) || has_grown && lacks_parts)
}

/// What a look found.
#[derive(Clone, Debug)]
pub struct Look<T> {
    /// What may be deleted.
    pub queue: Queue<T>,
    /// Who holds how much.
    pub holdings: Holdings,
    /// Number of entries.
    pub entries: u64,
    /// By [`Kind`].
    pub by_kind: [u64; Kind::COUNT],
    /// Whether the dump told of every entry.
    pub complete: bool,
    /// Whether a completed handshake shows that its source has its address. Not so where conntrack takes
    /// any ACK for the handshake's (`nf_conntrack_tcp_be_liberal`), which whoever spoofed the SYN can
    /// send as well.
    pub handshakes_prove: bool,
}

const fn is_answered(kind: Kind) -> bool {
    matches!(kind, Kind::Answered | Kind::Stream)
}

#[cfg(test)]
mod tests;
