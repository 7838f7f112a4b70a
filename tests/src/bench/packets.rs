//! The cost of a packet by its kind: interleaved rounds, over the floor of a program that does
//! nothing and beside rate limits at their least; with an empty table and with a full one.

use std::{collections::BTreeMap, fmt, time::Duration};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{
    cases::{self, Case, Judged, Subject},
    reference::Floor,
    table,
};
use crate::{netns::Namespace, sysctl::HostSysctl};

/// How often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Length {
    /// Each times every kind of packet once.
    pub(super) rounds: usize,
    /// Runs of the program in each timing.
    pub(super) repeat: u32,
    /// A full table is measured as well.
    pub(super) full: bool,
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
struct Row {
    name: &'static str,
    nanoseconds: f64,
    over_floor: f64,
    buckets: Option<Buckets>,
    beside: Option<Beside>,
}

/// A cost in bare buckets: what one costs over its floor, on the same packet in the same rounds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Buckets {
    ratio: f64,
    bar: f64,
    gate: f64,
}

/// What the other build takes.
#[derive(Clone, Copy, Debug, Serialize)]
struct Beside {
    nanoseconds: f64,
    /// This build's time by the other's, of the middle half of all rounds.
    ratio: f64,
}

/// Middles of all rounds with one table.
#[derive(Clone, Debug, Serialize)]
struct Section {
    entries: u32,
    floors: Vec<(Floor, f64)>,
    rows: Vec<Row>,
}

/// Middles of all rounds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Packets(Vec<Section>);

/// Times every case, in a namespace of its own; another build of the object in turns with this one.
pub(super) fn run(length: Length, beside: Option<&[u8]>) -> Result<Packets> {
    let _max = HostSysctl::set("net.netfilter.nf_conntrack_max", "524288")?;
    let namespace = Namespace::create("bench")?;
    table::track(&namespace)?;
    namespace.run(|| {
        let live = table::Live::open()?;
        let section = |entries| section(length, &live, beside, entries);
        let mut sections = vec![section(0)?];
        if length.full {
            table::fill(table::ENTRIES)?;
            sections.push(section(table::ENTRIES)?);
        }
        Ok(Packets(sections))
    })
}

fn section(
    length: Length,
    live: &table::Live,
    beside: Option<&[u8]>,
    entries: u32,
) -> Result<Section> {
    let subject = Subject { object: None, full: entries > 0 };
    let syn = cases::syn()?;
    let floors =
        Floor::ALL.into_iter().map(|floor| floor.timer(&syn)).collect::<Result<Vec<_>>>()?;
    let mut cases = cases::references()?;
    let references = cases.len();
    cases.extend(cases::cases(subject, live)?);
    let others = match beside {
        Some(_) => cases::cases(Subject { object: beside, ..subject }, live)?,
        None => Vec::new(),
    };
    let other_of = |position: usize| {
        let position = position.checked_sub(references)?;
        others.get(position)
    };
    let mut floor_times = vec![Vec::new(); floors.len()];
    let mut rounds = vec![Vec::new(); cases.len()];
    for round in 0..length.rounds.max(1) {
        for (floor, times) in floors.iter().zip(&mut floor_times) {
            times.push(nanoseconds(floor(length.repeat)?));
        }
        let over = |time: f64, floor| time - floor_of(floor, &floor_times);
        for (position, case) in cases.iter().enumerate() {
            let time_other =
                || other_of(position).map(|other| (other.time)(length.repeat)).transpose();
            // The two take turns in going first.
            let before = if round % 2 == 0 { time_other()? } else { None };
            let time = nanoseconds((case.time)(length.repeat).context(case.name)?);
            let other = if round % 2 == 0 { before } else { time_other()? };
            let bucket = case.judged.as_ref().map(|Judged { bucket: (time, floor), .. }| {
                Ok::<_, anyhow::Error>(over(nanoseconds(time(length.repeat)?), *floor))
            });
            rounds[position].push(Timed {
                time,
                over_floor: over(time, case.floor),
                bucket: bucket.transpose()?,
                other: other.map(nanoseconds),
            });
        }
    }
    let rows = cases.iter().zip(&rounds).map(|(case, rounds)| row(case, rounds));
    Ok(Section {
        entries,
        rows: rows.collect(),
        floors: Floor::ALL.into_iter().zip(floor_times.into_iter().map(middle)).collect(),
    })
}

/// One case in one round, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Timed {
    time: f64,
    over_floor: f64,
    /// The bare bucket on the same packet, over its floor.
    bucket: Option<f64>,
    /// The other build.
    other: Option<f64>,
}

fn row(case: &Case, rounds: &[Timed]) -> Row {
    let nanoseconds = middle(rounds.iter().map(|round| round.time));
    let over_floor = middle(rounds.iter().map(|round| round.over_floor));
    let bucket = middle(rounds.iter().filter_map(|round| round.bucket));
    let other = middle(rounds.iter().filter_map(|round| round.other));
    Row {
        name: case.name,
        nanoseconds,
        over_floor,
        buckets: case.judged.as_ref().map(|judged| Buckets {
            ratio: over_floor / bucket,
            bar: judged.bar,
            gate: judged.gate,
        }),
        beside: (!other.is_nan())
            .then(|| Beside { nanoseconds: other, ratio: nanoseconds / other }),
    }
}

/// What a floor took in the last round.
fn floor_of(floor: Floor, times: &[Vec<f64>]) -> f64 {
    let position = Floor::ALL.iter().position(|other| *other == floor);
    let last = position.and_then(|position| times.get(position)).and_then(|times| times.last());
    last.copied().unwrap_or(f64::NAN)
}

impl Packets {
    /// Whether every bar holds.
    pub(super) fn holds(&self) -> bool {
        let rows = self.0.iter().flat_map(|section| &section.rows);
        rows.filter_map(|row| row.buckets).all(|Buckets { ratio, bar, .. }| ratio <= bar)
    }
}

impl Packets {
    /// What a change made dearer than its gate, with the LRU buckets that each kind of packet costs.
    pub(super) fn beyond_gates(&self) -> BTreeMap<&'static str, String> {
        let beyond = self.0.iter().flat_map(|section| {
            let lru = section.rows.iter().find(|row| row.name == cases::LRU);
            let lru = lru.map_or(f64::NAN, |row| row.over_floor);
            section.rows.iter().filter_map(move |row| {
                let (cost, gate) = (row.over_floor / lru, row.buckets?.gate);
                println!("{}: {cost:.2} LRU buckets, gate {gate}", row.name);
                let holds = cost <= gate;
                let Row { name, .. } = row;
                (!holds)
                    .then(|| (*name, format!("{name} costs {cost:.2} LRU buckets, gate {gate}")))
            })
        });
        beyond.collect()
    }
}

impl fmt::Display for Packets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Section { entries, floors, rows } in &self.0 {
            let table = format!("table of {entries} entries");
            writeln!(f, "{table:<44} {:>6} {:>11} {:>6} {:>6}", "ns", "over floor", "R", "bar")?;
            for (floor, time) in floors {
                writeln!(f, "{:<44} {time:>6.1}", floor.name())?;
            }
            for row in rows {
                let (name, time, over) = (row.name, row.nanoseconds, row.over_floor);
                write!(f, "{name:<44} {time:>6.1} {over:>+11.1}")?;
                if let Some(Buckets { ratio, bar, .. }) = row.buckets {
                    let missed = if ratio > bar { " missed" } else { "" };
                    write!(f, " {ratio:>6.1} {:>6}{missed}", format!("≤ {bar}"))?;
                }
                if let Some(Beside { nanoseconds, ratio }) = row.beside {
                    write!(f, "   beside {nanoseconds:>6.1}, ratio {ratio:.3}")?;
                }
                writeln!(f)?;
            }
            writeln!(f)?;
        }
        write!(
            f,
            "R: the array bucket's cost over its floor, on the same packet in the same rounds"
        )
    }
}

pub(super) fn nanoseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

/// The mean of the middle half: the kernel tells whole nanoseconds, of which a median would be one.
pub(super) fn middle(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.into_iter().collect();
    numbers.sort_by(f64::total_cmp);
    let quarter = numbers.len() / 4;
    let half = numbers.get(quarter..numbers.len() - quarter).unwrap_or(&[]);
    half.iter().sum::<f64>() / half.iter().map(|_| 1.0).sum::<f64>()
}
