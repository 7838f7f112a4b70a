//! Which entries may be deleted to make room, and in which order.
//!
//! The order is that of [`ReclaimClass`], least harm first. Of sources above their part, those
//! furthest above come first, and none loses more than its excess. Otherwise the entry that has been
//! idle longest comes first.

use std::collections::HashMap;

use ctguard_layout::Policy;

use super::{
    holdings::{Excess, Proof},
    look::{Held, Kind},
    sources::SourceScope,
};

/// Why an entry may be deleted, in the order in which entries are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReclaimClass {
    /// Nobody answered.
    Unanswered,
    /// A handshake that takes longer than one round trip.
    HalfOpen,
    /// The connection has ended.
    Finished,
    /// One question, one answer.
    Answered,
    /// A UDP stream of a source that holds more than its part.
    StreamAbovePart,
    /// An idle connection of a source that holds more than its part.
    EstablishedAbovePart,
    /// What the kernel itself would replace in a full table, of any age.
    Replaceable,
}

impl ReclaimClass {
    /// Number of classes.
    pub const COUNT: usize = 7;

    /// All, in order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Unanswered,
        Self::HalfOpen,
        Self::Finished,
        Self::Answered,
        Self::StreamAbovePart,
        Self::EstablishedAbovePart,
        Self::Replaceable,
    ];

    /// Its name in reports and settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unanswered => "unanswered",
            Self::HalfOpen => "half-open",
            Self::Finished => "finished",
            Self::Answered => "answered",
            Self::StreamAbovePart => "stream-above-part",
            Self::EstablishedAbovePart => "established-above-part",
            Self::Replaceable => "replaceable",
        }
    }

    /// The names and counts of the classes that counted anything.
    pub fn named(counts: [u64; Self::COUNT]) -> impl Iterator<Item = (&'static str, u64)> {
        Self::ALL.map(Self::name).into_iter().zip(counts).filter(|(_, count)| *count > 0)
    }

    /// The class of an entry that is old enough.
    const fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Unanswered | Kind::PickedUp => Some(Self::Unanswered),
            Kind::HalfOpen => Some(Self::HalfOpen),
            Kind::Finished => Some(Self::Finished),
            Kind::Answered => Some(Self::Answered),
            Kind::Stream => Some(Self::StreamAbovePart),
            Kind::Established => Some(Self::EstablishedAbovePart),
            // An ACK is still to come, and would bring the entry back for longer.
            Kind::Closing => None,
        }
    }

    /// The entries whose excess this class reduces; `None` if it is dead weight, whoever holds it.
    const fn excess_of(self) -> Option<Proof> {
        match self {
            Self::StreamAbovePart => Some(Proof::None),
            Self::EstablishedAbovePart => Some(Proof::OfAddress),
            Self::Unanswered
            | Self::HalfOpen
            | Self::Finished
            | Self::Answered
            | Self::Replaceable => None,
        }
    }
}

/// Idle time in seconds from which on an entry may be deleted, by class except
/// [`ReclaimClass::Replaceable`]; `None` if the class is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReclaimAges {
    /// In the order of the classes.
    pub ages: [Option<u32>; ReclaimClass::COUNT - 1],
}

impl ReclaimAges {
    /// What the operator's policy says.
    pub fn of(policy: &Policy) -> Self {
        Self { ages: policy.reclaim_after.map(|after| (after > 0).then_some(after)) }
    }

    /// The class in which the entry may be deleted now.
    pub(crate) fn class(&self, held: &Held) -> Option<ReclaimClass> {
        let class = ReclaimClass::of(held.kind)?;
        let age = self.ages[class as usize]?;
        (held.deletable && held.idle? >= age).then_some(class)
    }
}

impl ReclaimClass {
    /// Whether the entry only takes room, whoever holds it.
    pub const fn is_dead_weight(self) -> bool {
        self.excess_of().is_none()
    }
}

/// What sources hold above their part, as the last look found it.
pub type Marks = HashMap<SourceScope, Excess>;

/// Entries to delete, in order.
#[derive(Clone, Debug)]
pub struct Queue<T> {
    /// The next one last.
    entries: Vec<(ReclaimClass, T)>,
    counts: [u64; ReclaimClass::COUNT],
    /// See [`Self::firm`].
    firm: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), counts: [0; ReclaimClass::COUNT], firm: 0 }
    }
}

/// Most entries of a queue, for a table of `max` entries (0: without a maximum).
pub fn queue_capacity(max: u64) -> usize {
    const MOST: usize = 32_768;
    const LEAST: usize = 1024;
    match usize::try_from(max) {
        Ok(0) | Err(_) => MOST,
        Ok(max) => max.clamp(LEAST, MOST),
    }
}

impl<T> Queue<T> {
    /// Entries to delete, without [`ReclaimClass::Replaceable`].
    pub fn len(&self) -> u64 {
        self.counts.iter().sum::<u64>() - self.replaceable()
    }

    /// Whether there is nothing to delete but [`ReclaimClass::Replaceable`].
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries of [`ReclaimClass::Replaceable`].
    pub fn replaceable(&self) -> u64 {
        self.count(ReclaimClass::Replaceable)
    }

    /// Entries that the look found and that neither the guard nor the kernel can delete, not even in
    /// need.
    pub const fn firm(&self) -> u64 {
        self.firm
    }

    /// Entries of one class.
    pub fn count(&self, class: ReclaimClass) -> u64 {
        self.counts[class as usize]
    }

    /// Spares the flows of sources above their part: their idle times cannot be trusted.
    pub fn keep_dead_weight(&mut self) {
        self.entries.retain(|(class, _)| class.is_dead_weight());
        for class in ReclaimClass::ALL.into_iter().filter(|class| !class.is_dead_weight()) {
            self.firm += std::mem::take(&mut self.counts[class as usize]);
        }
    }

    /// Takes the next `most`; [`ReclaimClass::Replaceable`] only if they are needed.
    pub fn take(&mut self, most: usize, and_replaceable: bool) -> Vec<(ReclaimClass, T)> {
        let may = self.len() + if and_replaceable { self.replaceable() } else { 0 };
        let count = usize::try_from(may).map_or(most, |may| may.min(most));
        let taken: Vec<_> = self.entries.drain(self.entries.len() - count..).rev().collect();
        for (class, _) in &taken {
            self.counts[*class as usize] -= 1;
        }
        taken
    }
}

/// A queue while a look fills it.
#[derive(Debug)]
pub(crate) struct Filling<T> {
    candidates: Vec<Candidate<T>>,
    capacity: usize,
    /// No candidate of this rank or a lower one finds a place.
    least: u64,
}

#[derive(Debug)]
struct Candidate<T> {
    /// Class, then excess, then idle time: the highest is deleted first.
    rank: u64,
    source: SourceScope,
    payload: T,
}

impl<T> Filling<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { candidates: Vec::new(), capacity, least: 0 }
    }

    pub(crate) fn offer(
        &mut self,
        held: &Held,
        class: ReclaimClass,
        marks: &Marks,
        payload: impl FnOnce() -> Option<T>,
    ) {
        let excess = match class.excess_of() {
            None => 0,
            Some(proof) => match marks.get(&held.source).map(|excess| excess.of(proof)) {
                None | Some(0) => return,
                Some(excess) => excess,
            },
        };
        let rank = rank(class, excess, held.idle.unwrap_or(0));
        if rank <= self.least {
            return;
        }
        let Some(payload) = payload() else { return };
        if self.candidates.len() == self.capacity {
            self.make_room();
            if rank <= self.least {
                return;
            }
        }
        self.candidates.push(Candidate { rank, source: held.source, payload });
    }

    /// `firm` are those that were never offered, or only as above a part.
    pub(crate) fn finish(mut self, marks: &Marks, firm: u64) -> Queue<T> {
        self.candidates.sort_unstable_by_key(|candidate| candidate.rank);
        let mut spent = HashMap::<(SourceScope, ReclaimClass), u32>::new();
        let mut queue = Queue { firm, ..Queue::default() };
        // The highest first, so that a source above its part loses what has been idle longest.
        for Candidate { rank, source, payload } in self.candidates.into_iter().rev() {
            let class = class_of(rank);
            if let Some(proof) = class.excess_of() {
                let spent = spent.entry((source, class)).or_default();
                if *spent >= marks.get(&source).map_or(0, |excess| excess.of(proof)) {
                    continue;
                }
                *spent += 1;
            }
            queue.firm -= u64::from(!class.is_dead_weight());
            queue.counts[class as usize] += 1;
            queue.entries.push((class, payload));
        }
        queue.entries.reverse();
        queue
    }

    /// Drops the lowest quarter.
    fn make_room(&mut self) {
        let dropped = (self.candidates.len() / 4).max(1);
        let key = |candidate: &Candidate<T>| candidate.rank;
        let (_, highest, _) = self.candidates.select_nth_unstable_by_key(dropped - 1, key);
        self.least = highest.rank;
        self.candidates.drain(..dropped);
    }
}

const IDLE_BITS: u32 = 32;
const EXCESS_BITS: u32 = 28;

fn rank(class: ReclaimClass, excess: u32, idle: u32) -> u64 {
    let class = (ReclaimClass::COUNT - class as usize) as u64;
    let excess = u64::from(excess.min((1 << EXCESS_BITS) - 1));
    class << (IDLE_BITS + EXCESS_BITS) | excess << IDLE_BITS | u64::from(idle)
}

fn class_of(rank: u64) -> ReclaimClass {
    ReclaimClass::ALL[ReclaimClass::COUNT - (rank >> (IDLE_BITS + EXCESS_BITS)) as usize]
}
