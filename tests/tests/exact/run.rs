//! One run: sends, waits for the mark, compares.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ctguard_layout::{Class, Counter, Outcome};
use ctguard_tests::{
    conntrack::{ConntrackTable, Entry, NewEntries, Tuple},
    pinned::{Counts, Pinned},
    random::Random,
    wire::Wire,
};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{
    dissect::{Frame, dissect, tuple_of},
    explain::{self, Detection, Facts},
    flows::{Flows, Note, Side},
    frame::{Packet, RST, TCP, UDP, set_transport_checksum},
    inside,
    network::{MARKED_INSIDE, MARKED_OUTSIDE, Network, TO_LAN, TO_WAN, forwarded, goes_out_again},
    outside::{self, Arrival},
    report,
    tally::{Finding, Tally},
};

/// No mark takes longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Unexplained differences after which a run ends.
const ENOUGH: usize = 10;
/// One difference in so many packets may stay unexplained, and is printed: one in some 600,000 does,
/// where an entry ends by a timer of the kernel's between two questions of the test. A way past the
/// guard makes far more, for every kind of packet comes thousands of times.
const ONE_IN: u32 = 20_000;

/// Sends so many random packets and compares what ctguard and conntrack make of each.
pub(crate) fn compare(detection: Detection, seed: u64, packets: u32) -> Result<Tally> {
    let network = Network::guarded(detection)?;
    stay_on_one_cpu()?;
    let pinned = Pinned::open(network.site.pins())?;
    pinned.end_learning();
    let mut run = Run {
        entries: NewEntries::listen(network.site.guarded())?,
        table: ConntrackTable::open(network.site.guarded())?,
        counts: pinned.counts()?,
        pinned,
        network,
        detection,
        flows: Flows::default(),
        random: Random::new(seed),
        marks: 0,
        tally: Tally::default(),
        unexplained: Vec::new(),
    };
    let began = Instant::now();
    for number in 0..packets {
        run.step(number).with_context(|| format!("packet {number}"))?;
        if run.unexplained.len() >= ENOUGH {
            break;
        }
    }
    println!("{}{packets} packets in {:.1?}", run.tally, began.elapsed());
    let (number, text) = (run.unexplained.len(), run.unexplained.join("\n"));
    let tolerated = usize::try_from(packets.div_ceil(ONE_IN))?;
    if number > 0 {
        println!("{number} differences that nothing explains, {tolerated} tolerated:\n{text}");
    }
    ensure!(number <= tolerated, "{number} differences that nothing explains:\n{text}");
    Ok(run.tally)
}

struct Run {
    network: Network,
    detection: Detection,
    pinned: Pinned,
    entries: NewEntries,
    table: ConntrackTable,
    flows: Flows,
    random: Random,
    marks: u32,
    counts: Counts,
    tally: Tally,
    unexplained: Vec<String>,
}

/// A packet that is about to arrive.
struct Sent {
    arrival: Arrival,
    frame: Frame,
    tuple: Option<Tuple>,
    /// Conntrack has an entry of it already.
    was_known: bool,
}

impl Run {
    /// One packet from outside, and now and then something else before it.
    fn step(&mut self, number: u32) -> Result<()> {
        if self.random.below(4) == 0 {
            self.send_inside(number)?;
        }
        if self.random.once_in(25)
            && let Some(flow) = self.flows.end_one(number, &mut self.random)
        {
            self.table.delete(&flow.entry)?;
        }
        self.send_outside(number)
    }

    fn send_inside(&mut self, number: u32) -> Result<()> {
        let departure = inside::departure(&self.flows, &mut self.random);
        let frame = dissect(&departure.frame);
        let tuple = frame.ip.as_ref().map_or(departure.tuple, tuple_of);
        self.flows.left(tuple, departure.kind, number);
        self.network.inner.send(&departure.frame)?;
        for entry in self.until_marked(Side::Inside)? {
            self.flows.confirmed(entry, Side::Inside, number, &mut self.random);
        }
        self.note_passed(Side::Inside, &frame, tuple, number)
    }

    /// Notes what a packet may have told the egress program, or done to its entry.
    fn note_passed(&mut self, side: Side, frame: &Frame, tuple: Tuple, number: u32) -> Result<()> {
        let ip = frame.ip.as_ref().filter(|ip| ip.protocol == TCP);
        if ip.and_then(|ip| ip.payload.get(13)).is_some_and(|flags| flags & RST != 0) {
            // Whoever sent it, in the name of which side.
            let arriving = self.flows.arriving_of(tuple);
            self.flows.note(arriving, number, Note::Reset);
            self.flows.note(tuple, number, Note::Reset);
        }
        let hairpins = side == Side::Outside && goes_out_again(tuple.to);
        if hairpins || !self.table.knows(&tuple)? {
            self.flows.note(tuple.reversed(), number, Note::LeftUntracked);
        }
        Ok(())
    }

    fn send_outside(&mut self, number: u32) -> Result<()> {
        let arrival = outside::arrival(number, &self.flows, &mut self.random);
        let frame = dissect(&arrival.whole);
        let tuple = frame.ip.as_ref().map(tuple_of);
        let was_known = tuple.map_or(Ok(false), |tuple| self.table.knows(&tuple))?;
        let sent = Sent { arrival, frame, tuple, was_known };
        for frame in &sent.arrival.frames {
            self.network.outer.send(frame)?;
        }
        let entries = self.until_marked(Side::Outside)?;
        let counts = self.counted(sent.arrival.frames.len())?;
        self.judge(&sent, &entries, &counts, number)?;
        self.flows.arrived(tuple.unwrap_or(sent.arrival.tuple), sent.arrival.kind, number);
        let had_entry = sent.was_known || !entries.is_empty();
        for entry in entries {
            self.flows.confirmed(entry, Side::Outside, number, &mut self.random);
        }
        if let Some(tuple) = tuple
            && had_entry
            && !self.table.knows(&tuple)?
        {
            // By the RST that the router itself answers with, for one.
            self.flows.note(tuple, number, Note::Reset);
        }
        match tuple {
            Some(tuple) => self.note_passed(Side::Outside, &sent.frame, tuple, number),
            None => Ok(()),
        }
    }

    fn judge(
        &mut self,
        sent: &Sent,
        entries: &[Entry],
        counts: &Counts,
        number: u32,
    ) -> Result<()> {
        let kind = sent.arrival.kind;
        let made = u64::try_from(entries.len())?;
        let refused = counts.refused();
        let charged = counts.taken + refused;
        // A dry run lets go on what it would drop.
        let dropped = counts.of(Counter::Packets(Outcome::TinyFragment));
        if made == charged || made > charged && made <= charged + dropped {
            let agreed = if made > 0 { Finding::AgreedNew } else { Finding::AgreedOld };
            self.tally.add(kind, agreed);
            return Ok(());
        }
        let notes = sent.tuple.map(|tuple| self.flows.of(&tuple)).unwrap_or_default();
        let way_back = sent.tuple.map(|tuple| forwarded(tuple).reversed());
        let way_back_is_taken = way_back.map_or(Ok(false), |tuple| self.table.knows(&tuple))?;
        let facts = Facts {
            detection: self.detection,
            frame: &sent.frame,
            never_whole: sent.arrival.never_whole,
            was_known: sent.was_known,
            way_back_is_taken,
            counts,
            notes: &notes,
        };
        let reason =
            if made > charged { explain::uncharged(&facts) } else { explain::for_nothing(&facts) };
        if let Some(reason) = reason {
            self.tally.add(kind, Finding::Explained(reason));
            return Ok(());
        }
        self.tally.add(kind, Finding::Unexplained);
        let history = sent.tuple.map(|tuple| {
            let (there, back) = (self.flows.history(&tuple), tuple.reversed());
            format!("{tuple:?}:{there}\n  back:{}", self.flows.history(&back))
        });
        self.unexplained.push(format!(
            "packet {number}, {kind}: made {made}, charged {charged} ({}), known before: {}\n  \
             {}\n  entries: {:?}\n  frames: {}",
            report::counted(counts),
            sent.was_known,
            history.unwrap_or_default(),
            entries.iter().map(|entry| entry.original).collect::<Vec<_>>(),
            report::hexadecimal(&sent.arrival.frames),
        ));
        Ok(())
    }

    /// Sends a mark after what was sent, and gives the entries confirmed before its own.
    fn until_marked(&mut self, side: Side) -> Result<Vec<Entry>> {
        self.marks += 1;
        let (wire, frame, mark) = mark(&self.network, side, self.marks);
        wire.send(&frame)?;
        let mut entries = Vec::new();
        loop {
            let entry = self.entries.next(PATIENCE).context("no mark came through")?;
            if entry.original == mark {
                return Ok(entries);
            }
            entries.push(entry);
        }
    }

    /// What was counted for so many frames, the mark behind them taken off.
    fn counted(&mut self, frames: usize) -> Result<Counts> {
        let now = self.pinned.counts()?;
        let mut counts = now.since(&self.counts);
        self.counts = now;
        let told = report::counted(&counts);
        let is_whole = counts.judged() == u64::try_from(frames)? + 1;
        let is_marked = counts.take_admitted(Class::Udp);
        ensure!(is_whole && is_marked, "{frames} frames and their mark were counted as {told}");
        Ok(counts)
    }
}

/// A datagram of a flow of its own, routed through without NAT.
fn mark(network: &Network, side: Side, number: u32) -> (&Wire, Vec<u8>, Tuple) {
    let [_, high, middle, low] = number.to_be_bytes();
    let (wire, link, from, to): (_, _, IpAddr, _) = match side {
        Side::Outside => (&network.outer, TO_WAN, MARKED_OUTSIDE, MARKED_INSIDE),
        Side::Inside => (&network.inner, TO_LAN, MARKED_INSIDE, MARKED_OUTSIDE),
    };
    let from_port = u16::from_be_bytes([middle, low]);
    let to_port = 1000 + u16::from(high);
    let mut payload = [from_port.to_be_bytes(), to_port.to_be_bytes(), [0, 8], [0, 0]].concat();
    set_transport_checksum(from, to, UDP, &mut payload);
    let frame = Packet::new(from, to, UDP, payload).frame(link);
    (wire, frame, Tuple { from, to, protocol: UDP, from_port, to_port })
}

/// Packets sent from two CPUs could overtake each other.
fn stay_on_one_cpu() -> Result<()> {
    let allowed = sched_getaffinity(None)?;
    let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).context("no CPU")?;
    let mut only = CpuSet::new();
    only.set(first);
    Ok(sched_setaffinity(None, &only)?)
}
