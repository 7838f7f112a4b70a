//! What a run has to say to a bar.

use serde_json::Value;

use super::{Bar, Who, bar::number};
use crate::{recovery::Recovery, report::Run};

/// A table that is so full is full.
const FULL: f64 = 0.99;

impl Bar {
    /// The bar's number in a run, beside the run without a flood; none where the run has none.
    pub(super) fn measure(self, run: &Run, baseline: Option<&Run>) -> Option<f64> {
        let legitimate = &run.legitimate;
        match self {
            Self::AtOnce(who, _) => Some(who.success(legitimate)?.at_once_ratio()),
            Self::AtOnceSettled(who, _) => {
                Some(who.success(run.settled.as_ref()?)?.at_once_ratio())
            }
            Self::Eventually(who, _) => Some(who.success(legitimate)?.eventually_ratio()),
            Self::EventuallyInOutage(who, _) => {
                let meanwhile = &run.outage.as_ref()?.legitimate;
                Some(who.success(meanwhile)?.eventually_ratio())
            }
            Self::NoWorseThanUnguarded => Some(Who::Everybody.success(legitimate)?.at_once_ratio()),
            Self::MedianAdded(who, _) => who.median_added(legitimate, baseline),
            Self::Jain(_) => run.flood?.jain_index,
            Self::ServiceBack(_) => Some(or_never(from_full(run)?.service_seconds)),
            Self::FillBack => Some(or_never(from_full(run)?.fill_seconds)),
            Self::NoneBroken => {
                Some(f64::from(run.established.tcp_broken + run.established.udp_broken))
            }
            Self::OfficeKept => Some(f64::from(run.office.tcp_broken)),
            Self::RefusesNone => Some(number(refused(run.guard_status.as_ref()?)?)),
            Self::BackInControl(_) => {
                let recovery = run.recovery?;
                Some(or_never(recovery.fill_seconds.map(|fill| fill.max(recovery.ready_seconds))))
            }
            Self::FillAboveTarget(_) => Some(run.fill.peak_ratio),
            Self::KernelDropsNone => Some(number(run.kernel.drop)),
            Self::Steady(_) => Some(run.fill.second_half?.deviation_ratio),
            Self::CpuIdle(_) => run.daemon?.idle_cpu_ratio,
            Self::CpuInFlood(_) => run.daemon?.flood_cpu_ratio,
            Self::Memory(_) => Some(number(run.daemon?.resident_bytes?)),
        }
    }
}

/// New flows that the guard refused or challenged, by its own counters.
fn refused(status: &Value) -> Option<u64> {
    let of_class = |class: &str| {
        let class = status.pointer(&format!("/counters/{class}"))?;
        let refused = class.get("refused")?.as_object()?.values().map(Value::as_u64);
        refused.chain([class.get("challenged")?.as_u64()]).sum::<Option<u64>>()
    };
    ["tcp", "udp", "other"].into_iter().map(of_class).sum()
}

fn or_never(seconds: Option<f64>) -> f64 {
    seconds.unwrap_or(f64::INFINITY)
}

/// A recovery from a table that was full; from another there is nothing to recover.
fn from_full(run: &Run) -> Option<Recovery> {
    run.recovery.filter(|recovery| recovery.fill_ratio_before.is_some_and(|fill| fill >= FULL))
}
