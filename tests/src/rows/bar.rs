//! Bars, and how a run is held against them.

use std::fmt;

use super::{Fill, Row, Who};
use crate::{
    recovery::Recovery,
    report::{Run, ratio},
    summary::{grouped, mebibytes, of_a_core, percent},
};

/// The fill stays below the target and so much of the table.
pub(super) const OVER_TARGET: f64 = 0.02;
/// In a short run on a machine that may stall, so much less may succeed …
const STALLED: f64 = 0.02;
/// … the median may take so many milliseconds longer …
const STALLED_MILLISECONDS: f64 = 5.0;
/// … the table may hold so much more …
const STALLED_FILL: f64 = 0.01;
/// … and things may take so many seconds longer.
const STALLED_SECONDS: f64 = 1.0;
/// The daemon's core is another's as well: its share there is twice as much at worst.
const STALLED_CPU: f64 = 0.05;
/// What the daemon may cost: shares of a core, bytes.
const IDLE_CPU: f64 = 0.002;
const FLOOD_CPU: f64 = 0.05;
const MEMORY: u64 = 15 << 20;
/// A table that is so full is full.
const FULL: f64 = 0.99;
/// A run is no worse than another when not so much less succeeds.
const NO_WORSE: f64 = 0.03;

/// A promise with its number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// This share of flows succeeds without waiting for a retransmission.
    AtOnce(Who, f64),
    /// This share succeeds, within four seconds.
    Eventually(Who, f64),
    /// The same while the daemon is dead.
    EventuallyInOutage(Who, f64),
    /// The flood adds less than so many milliseconds to the median of each group.
    MedianAdded(Who, f64),
    /// What the flood's own sources get through is shared as evenly.
    Jain(f64),
    /// Service is back so many seconds after the start.
    ServiceBack(f64),
    /// The fill falls to the target.
    FillBack,
    /// As many succeed at once as without a guard.
    NoWorseThanUnguarded,
    /// No established exchange breaks.
    NoneBroken,
    /// A daemon is ready, and the fill at the target, so many seconds after the start.
    BackInControl(f64),
    /// The fill is at most so much above the target.
    FillAboveTarget(f64),
    /// The kernel drops no new flow for a full table.
    KernelDropsNone,
    /// The fill's standard deviation in the second half of the flood, as a share of the table.
    Steady(f64),
    /// The daemon takes less than this share of a core while it has nothing to do.
    CpuIdle(f64),
    /// The same in the flood.
    CpuInFlood(f64),
    /// The daemon's memory without its maps, in bytes at most.
    Memory(u64),
}

/// How strictly a run is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strictness {
    /// By the promise itself.
    Promise,
    /// As a machine deserves that others use meanwhile.
    Stalling,
}

/// What a run is compared with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside<'r> {
    /// The run without a flood.
    pub baseline: Option<&'r Run>,
    /// The run without a guard.
    pub unguarded: Option<&'r Run>,
}

/// A bar, and what the runs have against it.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The bar in words.
    pub bar: String,
    /// The guarded run's number.
    pub guarded: String,
    /// The unguarded run's.
    pub unguarded: String,
    /// It was cleared.
    pub held: bool,
}

/// Holds a guarded run against every bar of a row.
#[must_use]
pub(super) fn judge(
    row: &Row,
    guarded: &Run,
    beside: Beside<'_>,
    strictness: Strictness,
) -> Vec<Judged> {
    let fill = match row.fill {
        Fill::Within(above) => vec![Bar::FillAboveTarget(above), Bar::KernelDropsNone],
        Fill::Anything => Vec::new(),
    };
    let cost = guarded.daemon.filter(|cost| cost.flood_cpu_ratio.is_some());
    let idle = cost.and_then(|cost| cost.idle_cpu_ratio).map(|_| Bar::CpuIdle(IDLE_CPU));
    let cost = cost.map(|_| [Bar::CpuInFlood(FLOOD_CPU), Bar::Memory(MEMORY)]);
    let bars = row.bars.iter().copied().chain(fill).chain(idle).chain(cost.into_iter().flatten());
    bars.map(|bar| bar.judge(guarded, beside, strictness)).collect()
}

/// A number of a run, and whether it clears the bar; none where the run does not have it.
type Measured = Option<(String, bool)>;

impl Bar {
    fn judge(self, guarded: &Run, beside: Beside<'_>, strictness: Strictness) -> Judged {
        let of = |run: &Run| self.measure(run, beside, strictness);
        let shown = |measured: Measured| measured.map_or_else(|| "–".to_owned(), |(text, _)| text);
        let measured = of(guarded);
        Judged {
            bar: self.to_string(),
            held: measured.as_ref().is_some_and(|(_, held)| *held),
            guarded: shown(measured),
            unguarded: shown(beside.unguarded.and_then(of)),
        }
    }

    fn measure(self, run: &Run, beside: Beside<'_>, strictness: Strictness) -> Measured {
        let slack = |stalled: f64| match strictness {
            Strictness::Promise => 0.0,
            Strictness::Stalling => stalled,
        };
        // What the lab's only queue loses, no guard can answer for.
        let lost = run.flood.map_or(0.0, |flood| ratio(flood.lost_in_queue, flood.offered));
        let share = |found: f64, least: f64| {
            let held = found >= least - slack(STALLED + lost);
            Some((precise(found), held))
        };
        let seconds = |found: Option<f64>, most: f64| match found {
            Some(found) => Some((format!("{found:.1} s"), found <= most + slack(STALLED_SECONDS))),
            None => Some(("never".to_owned(), false)),
        };
        let legitimate = &run.legitimate;
        match self {
            Self::AtOnce(who, least) => share(who.success(legitimate)?.at_once_ratio(), least),
            Self::Eventually(who, least) => {
                share(who.success(legitimate)?.eventually_ratio(), least)
            }
            Self::EventuallyInOutage(who, least) => {
                let meanwhile = &run.outage.as_ref()?.legitimate;
                share(who.success(meanwhile)?.eventually_ratio(), least)
            }
            Self::MedianAdded(who, most) => {
                let added = who.median_added(legitimate, beside.baseline)?;
                Some((format!("{added:.1} ms"), added < most + slack(STALLED_MILLISECONDS)))
            }
            Self::Jain(least) => {
                let index = run.flood?.jain_index?;
                Some((format!("{index:.3}"), index >= least - slack(STALLED)))
            }
            Self::ServiceBack(most) => seconds(from_full(run)?.service_seconds, most),
            Self::FillBack => seconds(from_full(run)?.fill_seconds, f64::INFINITY),
            Self::NoWorseThanUnguarded => {
                let found = Who::Everybody.success(legitimate)?.at_once_ratio();
                let unguarded = beside.unguarded?.legitimate.during_flood.at_once_ratio();
                Some((precise(found), found >= unguarded - NO_WORSE - slack(STALLED)))
            }
            Self::NoneBroken => {
                let broken = run.established.tcp_broken + run.established.udp_broken;
                Some((format!("{broken} of {}", run.established.opened), broken == 0))
            }
            Self::BackInControl(most) => {
                let recovery = run.recovery?;
                let found = recovery.fill_seconds.map(|fill| fill.max(recovery.ready_seconds));
                seconds(found, most)
            }
            Self::FillAboveTarget(above) => {
                let most = run.target_ratio + above + slack(STALLED_FILL);
                Some((precise(run.fill.peak_ratio), run.fill.peak_ratio <= most))
            }
            Self::KernelDropsNone => Some((grouped(run.kernel.drop), run.kernel.drop == 0)),
            Self::Steady(most) => {
                let found = run.fill.second_half?.deviation_ratio;
                let shown = format!("{:.2} %", found * 100.0);
                Some((shown, found <= most + slack(STALLED_FILL)))
            }
            Self::CpuIdle(most) => {
                let found = run.daemon?.idle_cpu_ratio?;
                Some((of_a_core(found), found < most))
            }
            Self::CpuInFlood(most) => {
                let found = run.daemon?.flood_cpu_ratio?;
                Some((of_a_core(found), found < most + slack(STALLED_CPU)))
            }
            Self::Memory(most) => {
                let found = run.daemon?.resident_bytes?;
                Some((mebibytes(found), found <= most))
            }
        }
    }
}

/// A recovery from a table that was full; from another there is nothing to recover.
fn from_full(run: &Run) -> Option<Recovery> {
    run.recovery.filter(|recovery| recovery.fill_ratio_before.is_some_and(|fill| fill >= FULL))
}

/// Bars of 99.9 % need two digits; nothing is rounded up to 100 %.
fn precise(ratio: f64) -> String {
    format!("{:.2} %", (ratio * 10_000.0).floor() / 100.0)
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::AtOnce(who, least) => write!(f, "{who}: ≥ {} at once", percent(least)),
            Self::Eventually(who, least) => write!(f, "{who}: ≥ {} within 4 s", percent(least)),
            Self::EventuallyInOutage(who, least) => {
                write!(f, "{who}, without a daemon: ≥ {} within 4 s", percent(least))
            }
            Self::MedianAdded(who, most) => write!(f, "{who}: median added < {most} ms"),
            Self::Jain(least) => write!(f, "the flood's sources: Jain's index ≥ {least}"),
            Self::ServiceBack(most) => write!(f, "service back in ≤ {most} s"),
            Self::FillBack => f.write_str("fill falls to the target"),
            Self::NoWorseThanUnguarded => f.write_str("at once no fewer than unguarded"),
            Self::NoneBroken => f.write_str("no established exchange broken"),
            Self::BackInControl(most) => write!(f, "back in control in ≤ {most} s"),
            Self::FillAboveTarget(above) => {
                write!(f, "fill ≤ target + {} %", (above * 10_000.0).round() / 100.0)
            }
            Self::KernelDropsNone => f.write_str("no flow dropped for a full table"),
            Self::Steady(most) => write!(f, "standard deviation of the fill ≤ {}", percent(most)),
            Self::CpuIdle(most) => write!(f, "daemon: < {} of a core idle", percent(most)),
            Self::CpuInFlood(most) => {
                write!(f, "daemon: < {} of a core in the flood", percent(most))
            }
            Self::Memory(most) => write!(f, "daemon: ≤ {} without its maps", mebibytes(most)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_just_below_its_bar_is_not_shown_as_clearing_it() {
        assert_eq!(precise(0.99899), "99.89 %");
        assert_eq!(precise(0.999_99), "99.99 %");
        assert_eq!(precise(1.0), "100.00 %");
    }

    #[test]
    fn a_bar_says_its_number() {
        assert_eq!(
            Bar::AtOnce(Who::Proven, 0.999).to_string(),
            "proven and regulars: ≥ 99.9 % at once"
        );
        assert_eq!(Bar::FillAboveTarget(0.0375).to_string(), "fill ≤ target + 3.75 %");
        assert_eq!(Bar::Memory(15 << 20).to_string(), "daemon: ≤ 15.0 MiB without its maps");
    }
}
