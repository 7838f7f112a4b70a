//! Bars: what is promised, in numbers.

use std::fmt;

use super::Who;
use crate::summary::{grouped, mebibytes, of_a_core, percent};

/// The fill stays below the target and so much of the table.
pub(super) const OVER_TARGET: f64 = 0.02;
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
    /// This share succeeds at once, from the moment on at which service is settled.
    AtOnceSettled(Who, f64),
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
    /// Nor a connection of the office.
    OfficeKept,
    /// The guard refuses and challenges no packet.
    RefusesNone,
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

/// What a number must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Limit {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

impl Limit {
    /// Whether `number` keeps it, `slack` this side of it as well.
    pub(super) fn is_kept(self, number: f64, slack: f64) -> bool {
        match self {
            Self::AtLeast(least) => number >= least - slack,
            Self::AtMost(most) => number <= most + slack,
            Self::Below(most) => number < most + slack,
        }
    }
}

/// What a bar's number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// A share of flows, or an index of how evenly they are shared.
    Share,
    Index,
    /// A share of the table, and how far it strays.
    Fill,
    Deviation,
    Milliseconds,
    /// Infinite for never.
    Seconds,
    /// A share of a core: idle, and in a flood.
    IdleCore,
    Core,
    Count,
    Bytes,
}

impl Unit {
    pub(super) fn show(self, number: f64) -> String {
        match self {
            Self::Share | Self::Fill => precise(number),
            Self::Index => format!("{number:.3}"),
            Self::Deviation => format!("{:.2} %", number * 100.0),
            Self::Milliseconds => format!("{number:.1} ms"),
            Self::Seconds if number.is_infinite() => "never".to_owned(),
            Self::Seconds => format!("{number:.1} s"),
            Self::IdleCore | Self::Core => of_a_core(number),
            Self::Count => grouped(whole(number)),
            Self::Bytes => mebibytes(whole(number)),
        }
    }
}

impl Bar {
    pub(super) fn unit(self) -> Unit {
        match self {
            Self::AtOnce(..)
            | Self::AtOnceSettled(..)
            | Self::Eventually(..)
            | Self::EventuallyInOutage(..)
            | Self::NoWorseThanUnguarded => Unit::Share,
            Self::MedianAdded(..) => Unit::Milliseconds,
            Self::Jain(_) => Unit::Index,
            Self::ServiceBack(_) | Self::FillBack | Self::BackInControl(_) => Unit::Seconds,
            Self::NoneBroken | Self::OfficeKept | Self::RefusesNone | Self::KernelDropsNone => {
                Unit::Count
            }
            Self::FillAboveTarget(_) => Unit::Fill,
            Self::Steady(_) => Unit::Deviation,
            Self::CpuIdle(_) => Unit::IdleCore,
            Self::CpuInFlood(_) => Unit::Core,
            Self::Memory(_) => Unit::Bytes,
        }
    }

    /// What its number must be in runs with this target, beside the unguarded run's number.
    pub(super) fn limit(self, target_ratio: f64, unguarded: Option<f64>) -> Option<Limit> {
        Some(match self {
            Self::AtOnce(_, least)
            | Self::AtOnceSettled(_, least)
            | Self::Eventually(_, least)
            | Self::EventuallyInOutage(_, least)
            | Self::Jain(least) => Limit::AtLeast(least),
            Self::NoWorseThanUnguarded => Limit::AtLeast(unguarded? - NO_WORSE),
            Self::ServiceBack(most) | Self::BackInControl(most) | Self::Steady(most) => {
                Limit::AtMost(most)
            }
            Self::FillBack => Limit::Below(f64::INFINITY),
            Self::NoneBroken | Self::OfficeKept | Self::RefusesNone | Self::KernelDropsNone => {
                Limit::AtMost(0.0)
            }
            Self::FillAboveTarget(above) => Limit::AtMost(target_ratio + above),
            Self::MedianAdded(_, most) | Self::CpuIdle(most) | Self::CpuInFlood(most) => {
                Limit::Below(most)
            }
            Self::Memory(most) => Limit::AtMost(number(most)),
        })
    }

    /// Whose flows it is about, if anybody's.
    pub(super) fn who(self) -> Option<Who> {
        match self {
            Self::AtOnce(who, _)
            | Self::AtOnceSettled(who, _)
            | Self::Eventually(who, _)
            | Self::EventuallyInOutage(who, _) => Some(who),
            Self::NoWorseThanUnguarded => Some(Who::Everybody),
            Self::MedianAdded(..)
            | Self::Jain(_)
            | Self::ServiceBack(_)
            | Self::FillBack
            | Self::NoneBroken
            | Self::OfficeKept
            | Self::RefusesNone
            | Self::BackInControl(_)
            | Self::FillAboveTarget(_)
            | Self::KernelDropsNone
            | Self::Steady(_)
            | Self::CpuIdle(_)
            | Self::CpuInFlood(_)
            | Self::Memory(_) => None,
        }
    }

    /// Whether it holds only if it holds in every round; of others the median round counts.
    pub(super) fn allows_no_exception(self) -> bool {
        matches!(
            self,
            Self::NoneBroken
                | Self::OfficeKept
                | Self::RefusesNone
                | Self::KernelDropsNone
                | Self::FillAboveTarget(_)
                | Self::Memory(_)
        )
    }
}

/// Counts of a run, and bytes of a daemon, are far below 2^52.
#[expect(clippy::cast_precision_loss, reason = "says the function")]
pub(super) fn number(count: u64) -> f64 {
    count as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts, made of whole numbers below 2^52"
)]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

/// Bars of 99.9 % need two digits; nothing is rounded up to 100 %.
fn precise(ratio: f64) -> String {
    format!("{:.2} %", (ratio * 10_000.0).floor() / 100.0)
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::AtOnce(who, least) => write!(f, "{who}: ≥ {} at once", percent(least)),
            Self::AtOnceSettled(who, least) => {
                write!(f, "{who}: ≥ {} at once, once settled", percent(least))
            }
            Self::Eventually(who, least) => write!(f, "{who}: ≥ {} within 4 s", percent(least)),
            Self::EventuallyInOutage(who, least) => {
                write!(f, "{who}, without a daemon: ≥ {} within 4 s", percent(least))
            }
            Self::MedianAdded(who, most) => write!(f, "{who}: median added < {most} ms"),
            Self::Jain(least) => write!(f, "the flood's sources: Jain's index ≥ {least}"),
            Self::ServiceBack(most) => write!(f, "service back in ≤ {most} s"),
            Self::FillBack => f.write_str("fill falls to the target"),
            Self::NoWorseThanUnguarded => f.write_str("at once no fewer than unguarded"),
            Self::NoneBroken => f.write_str("established exchanges broken: 0"),
            Self::OfficeKept => f.write_str("connections of the office broken: 0"),
            Self::RefusesNone => f.write_str("new flows refused or challenged: 0"),
            Self::BackInControl(most) => write!(f, "back in control in ≤ {most} s"),
            Self::FillAboveTarget(above) => {
                write!(f, "fill ≤ target + {} %", (above * 10_000.0).round() / 100.0)
            }
            Self::KernelDropsNone => f.write_str("flows dropped for a full table: 0"),
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

    #[test]
    fn what_never_came_back_keeps_no_limit() {
        let back = |bar: Bar, seconds| bar.limit(0.85, None).unwrap().is_kept(seconds, 0.0);
        assert!(back(Bar::FillBack, 30.0) && !back(Bar::FillBack, f64::INFINITY));
        assert!(!back(Bar::ServiceBack(2.0), f64::INFINITY));
        assert_eq!(Unit::Seconds.show(f64::INFINITY), "never");
    }

    #[test]
    fn what_is_compared_with_an_unguarded_run_needs_one() {
        assert_eq!(Bar::NoWorseThanUnguarded.limit(0.85, None), None);
        let limit = Bar::NoWorseThanUnguarded.limit(0.85, Some(0.6)).unwrap();
        assert!(limit.is_kept(0.58, 0.0) && !limit.is_kept(0.56, 0.0));
    }
}
