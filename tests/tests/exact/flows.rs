//! The flows of a run: which live, which have ended, and what became of each tuple so far.

use std::{
    collections::{HashMap, VecDeque},
    fmt::Write as _,
    time::Instant,
};

use ctguard_tests::{
    conntrack::{Entry, Tuple},
    random::Random,
};

use crate::network::{MARKED_OUTSIDE, is_inside};

/// Flows and tuples kept to be drawn from.
const KEPT: usize = 1000;
/// What is told of a tuple at most.
const NOTES: usize = 12;

/// A flow that conntrack has confirmed.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    /// As it arrives on the guarded interface.
    pub(crate) arriving: Tuple,
    /// As the inside sends it, before NAT.
    pub(crate) sent: Tuple,
    pub(crate) entry: Entry,
}

/// Which side a packet came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Outside,
    Inside,
}

/// What happened to a tuple, told as it arrives on the guarded interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    Arrived(&'static str),
    Left(&'static str),
    Confirmed,
    Deleted,
    /// A RST of it passed, one way or the other.
    Reset,
    /// A packet of the other direction may have left of which conntrack has no entry: it was
    /// refused, or is of no flow in the form in which it left.
    LeftUntracked,
}

/// A note, with the number of the packet that it was taken at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noted {
    number: u32,
    pub(crate) at: Instant,
    pub(crate) note: Note,
}

#[derive(Default)]
pub(crate) struct Flows {
    pub(crate) live: Vec<Flow>,
    ended: Vec<Tuple>,
    recent: VecDeque<Tuple>,
    notes: HashMap<Tuple, VecDeque<Noted>>,
    arriving: HashMap<Tuple, Tuple>,
}

impl Flows {
    /// Notes an entry that a packet from `side` made.
    pub(crate) fn confirmed(&mut self, entry: Entry, side: Side, number: u32, random: &mut Random) {
        let (arriving, sent) = match side {
            Side::Outside => (entry.original, entry.reply),
            Side::Inside => (entry.reply, entry.original),
        };
        if [arriving.from, sent.from].contains(&MARKED_OUTSIDE) {
            return;
        }
        self.note(arriving, number, Note::Confirmed);
        self.arriving.insert(sent, arriving);
        let flow = Flow { arriving, sent, entry };
        if self.live.len() < KEPT {
            self.live.push(flow);
        } else {
            let given_up = random.index(KEPT);
            self.live[given_up] = flow;
        }
    }

    /// Takes a flow out that is to be deleted.
    pub(crate) fn end_one(&mut self, number: u32, random: &mut Random) -> Option<Flow> {
        if self.live.is_empty() {
            return None;
        }
        let flow = self.live.swap_remove(random.index(self.live.len()));
        self.note(flow.arriving, number, Note::Deleted);
        self.note(flow.sent, number, Note::Deleted);
        if self.ended.len() == KEPT {
            let given_up = random.index(KEPT);
            self.ended.swap_remove(given_up);
        }
        self.ended.push(flow.arriving);
        Some(flow)
    }

    /// Notes a packet that arrived.
    pub(crate) fn arrived(&mut self, tuple: Tuple, kind: &'static str, number: u32) {
        self.note(tuple, number, Note::Arrived(kind));
        self.remember(tuple);
    }

    /// Notes a packet that the inside sent.
    pub(crate) fn left(&mut self, sent: Tuple, kind: &'static str, number: u32) {
        let arriving = self.arriving_of(sent);
        self.note(arriving, number, Note::Left(kind));
        self.remember(arriving);
    }

    /// How the answers to what the inside sends arrive.
    pub(crate) fn arriving_of(&self, sent: Tuple) -> Tuple {
        self.arriving.get(&sent).copied().unwrap_or(sent.reversed())
    }

    fn remember(&mut self, tuple: Tuple) {
        self.recent.push_back(tuple);
        if self.recent.len() > 12 {
            self.recent.pop_front();
        }
    }

    /// A live flow that has an inside.
    pub(crate) fn answerable(&self, random: &mut Random) -> Option<&Flow> {
        if self.live.is_empty() {
            return None;
        }
        let flow = &self.live[random.index(self.live.len())];
        is_inside(flow.sent.from).then_some(flow)
    }

    pub(crate) fn live(&self, random: &mut Random) -> Option<Tuple> {
        (!self.live.is_empty()).then(|| self.live[random.index(self.live.len())].arriving)
    }

    pub(crate) fn ended(&self, random: &mut Random) -> Option<Tuple> {
        (!self.ended.is_empty()).then(|| self.ended[random.index(self.ended.len())])
    }

    pub(crate) fn recent(&self, random: &mut Random) -> Option<Tuple> {
        (!self.recent.is_empty()).then(|| self.recent[random.index(self.recent.len())])
    }

    /// What happened to a tuple, the oldest first.
    pub(crate) fn of(&self, tuple: &Tuple) -> Vec<Noted> {
        self.notes.get(tuple).into_iter().flatten().copied().collect()
    }

    /// The same in words.
    pub(crate) fn history(&self, tuple: &Tuple) -> String {
        let mut text = String::new();
        for Noted { number, note, .. } in self.of(tuple) {
            // Writing to a string cannot fail.
            let _ = write!(text, " {number}:{note:?}");
        }
        text
    }

    pub(crate) fn note(&mut self, tuple: Tuple, number: u32, note: Note) {
        let notes = self.notes.entry(tuple).or_default();
        if notes.len() >= NOTES {
            notes.pop_front();
        }
        notes.push_back(Noted { number, at: Instant::now(), note });
    }
}
