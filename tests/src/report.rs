//! What a lab found: the document `report.json`.

mod groups;
mod legitimate;
mod spread;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    legit::{Answers, Exchanges},
    process::DaemonCost,
    recovery::{Outage, Recovery},
    stages::StageSeconds,
    table::{FillPoint, KernelCounters},
};

pub use groups::GroupOutcome;
pub use legitimate::{ConnectTimes, Legitimate, Success, SuccessPoint};
pub use spread::Spread;

/// Version of the document; fields are only added within one.
pub const SCHEMA_VERSION: u32 = 1;

/// A whole lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// What was asked for.
    pub options: Options,
    /// Where it ran.
    pub machine: Machine,
    /// Legitimate traffic alone.
    pub baseline: Option<Run>,
    /// With the flood, without a guard.
    pub unguarded: Option<Run>,
    /// With the flood, with ctguard.
    pub guarded: Option<Run>,
    /// With the flood and a program that knows and drops exactly the flood: no guard does better.
    pub ideal: Option<Run>,
}

/// What a lab was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    /// The kind of flood.
    pub flood: String,
    /// Seconds that the flood lasts.
    pub seconds: u32,
    /// Packets a second; null at full speed.
    pub flood_packets_per_second: Option<u32>,
    /// Entries that the table takes.
    pub table_max: u64,
    /// The flood goes at a port that the router's own rules drop.
    pub port_dropped: bool,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Legitimate new flows a second from outside; from inside come a fifth as many.
    pub legitimate_per_second: f64,
    /// How long packets travel between far hosts and the router, both ways together.
    #[serde(default)]
    pub round_trip_milliseconds: f64,
    /// Buckets of the table's hash.
    #[serde(default)]
    pub buckets: u64,
}

/// Where a lab ran.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Release of the kernel.
    pub kernel: String,
    /// CPUs that the lab could use.
    pub cpus: usize,
}

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Entries that the table takes.
    pub table_max: u64,
    /// The share of the table that a guard never passes.
    pub target_ratio: f64,
    /// How full the table was.
    pub fill: Fill,
    /// New flows of legitimate clients.
    pub legitimate: Legitimate,
    /// The same from the moment on at which service is settled.
    #[serde(default)]
    pub settled: Option<Legitimate>,
    /// Connections of an office behind one far address.
    #[serde(default)]
    pub office: Exchanges,
    /// Exchanges opened before the flood.
    pub established: Exchanges,
    /// Answers to flows from inside, from a second before the flood until its end.
    #[serde(default)]
    pub answers: Answers,
    /// Packets that found the router's queues full during the flood and were not the flood's own:
    /// of clients and servers, and answers to the flood.
    #[serde(default)]
    pub others_lost_in_queue: u64,
    /// Packets out of the router that found the next hop's queue full.
    #[serde(default)]
    pub leaving_lost_in_queue: u64,
    /// The share of a CPU that the router's packets took in the flood.
    #[serde(default)]
    pub router_cpu_ratio: Option<f64>,
    /// The flood; null in a run without one.
    pub flood: Option<FloodOutcome>,
    /// The kernel's counters for the router.
    pub kernel: KernelCounters,
    /// Seconds at which the flood began and ended.
    pub flood_seconds: Option<(f64, f64)>,
    /// `ctguard status --json` at the flood's end; null without ctguard.
    pub guard_status: Option<Value>,
    /// Seconds of the flood that ctguard was in each stage, by class, to half a second.
    #[serde(default)]
    pub stage_seconds: StageSeconds,
    /// What ctguard's daemon costs; null without ctguard.
    #[serde(default)]
    pub daemon: Option<DaemonCost>,
    /// How service came back; null where ctguard was there from the beginning to the end.
    #[serde(default)]
    pub recovery: Option<Recovery>,
    /// How it went while ctguard's daemon was dead; null where it never was.
    #[serde(default)]
    pub outage: Option<Outage>,
}

/// How full the table was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fill {
    /// Entries when the last legitimate flow had started.
    pub at_end: u64,
    /// The most entries seen.
    pub peak: u64,
    /// The same as a share of the table.
    pub peak_ratio: f64,
    /// Mean and standard deviation in the second half of the flood, or of the time of one.
    #[serde(default)]
    pub second_half: Option<Spread>,
    /// Entries over time, every 100 ms.
    pub series: Vec<FillPoint>,
}

/// What became of the flood.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FloodOutcome {
    /// Packets the generator made.
    pub offered: u64,
    /// The same for each second.
    pub offered_per_second: f64,
    /// Packets that found the router's queue full: no program and no table ever saw them.
    pub lost_in_queue: u64,
    /// Packets the guard's program dropped (the device's own counter).
    pub dropped_in_xdp: u64,
    /// Packets that it answered in their place (the device's own counter).
    #[serde(default)]
    pub answered_in_xdp: u64,
    /// Packets that conntrack saw: offered, less lost in the queue, less dropped or answered in XDP.
    pub reached_conntrack: u64,
    /// Jain's index of what the flood's own sources got through; null where they are not counted.
    #[serde(default)]
    pub jain_index: Option<f64>,
}

/// Where more of a flood is lost in the lab's queues, the machine is at its limit: one that carries the
/// flood loses less than this in every run.
pub const AT_LIMIT: f64 = 0.001;

impl Run {
    /// Whether the lab's queues lost so many of the flood's packets.
    #[must_use]
    pub fn is_at_limit(&self) -> bool {
        self.lost_of_flood() > AT_LIMIT
    }

    /// The share of the flood that the lab's only queue lost, and of all others' packets with it: no
    /// guard can answer for that.
    #[must_use]
    pub fn lost_of_flood(&self) -> f64 {
        self.flood.as_ref().map_or(0.0, |flood| ratio(flood.lost_in_queue, flood.offered))
    }

    /// The share of legitimate flows that frames lost in the router's queues can have spoiled, each one
    /// flow at most.
    #[must_use]
    pub fn spoiled_in_queue(&self) -> f64 {
        ratio(self.others_lost_in_queue, self.legitimate.during_flood.attempted)
    }
}

impl Report {
    /// The runs that took place, with their names, in the order in which they are shown.
    pub fn runs(&self) -> impl Iterator<Item = (&'static str, &Run)> {
        let all = [
            ("no flood", &self.baseline),
            ("unguarded", &self.unguarded),
            ("ctguard", &self.guarded),
            ("ideal", &self.ideal),
        ];
        all.into_iter().filter_map(|(name, run)| Some((name, run.as_ref()?)))
    }
}

/// Jain's index of what each source got: 1 when all got the same, 1/n when one got all.
#[must_use]
pub fn jain_index(shares: &[u64]) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
    let shares: Vec<f64> = shares.iter().map(|&share| share as f64).collect();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    let number = f64::from(u32::try_from(shares.len()).ok()?);
    (squares > 0.0).then(|| shares.iter().sum::<f64>().powi(2) / (number * squares))
}

/// `part` of `whole`; 1 when there is nothing.
#[must_use]
pub fn ratio(part: u64, whole: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jains_index_tells_equal_shares_from_one_that_has_all() {
        assert_eq!(jain_index(&[5, 5, 5, 5]), Some(1.0));
        assert_eq!(jain_index(&[8, 0, 0, 0]), Some(0.25));
        assert_eq!(jain_index(&[]), None);
    }
}
