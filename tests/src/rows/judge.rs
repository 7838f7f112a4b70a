//! Holds what rounds found against the bars of a row.

use super::{
    Bar, Fill, Row, Who,
    bar::{Limit, Unit},
    windows,
};
use crate::report::{Run, ratio};

/// Where no more of the flood is lost in the lab's queues, the machine stalled now and then; so many
/// of the clients' flows are forgiven at most.
const FEW: f64 = 0.01;
/// In a short run on a machine that may stall, so much less may succeed …
const STALLED: f64 = 0.02;
/// … the median may take so many milliseconds longer …
const STALLED_MILLISECONDS: f64 = 5.0;
/// … the table may hold so much more …
const STALLED_FILL: f64 = 0.01;
/// … things may take so many seconds longer, most of which the kernel needs to verify the program …
const STALLED_SECONDS: f64 = 2.0;
/// … the daemon may take so much more of a core that is another's as well …
const STALLED_CPU: f64 = 0.05;
/// … and so many flows at most are forgiven for frames that were lost in the lab's queues.
const STALLED_LOSS: f64 = 0.1;
/// What the daemon may cost: shares of a core, bytes.
const IDLE_CPU: f64 = 0.002;
const FLOOD_CPU: f64 = 0.05;
const MEMORY: u64 = 24 << 20;

/// One round of a row.
#[derive(Debug)]
pub struct Round {
    /// The run with ctguard, where one was made.
    pub guarded: Option<Run>,
    /// The run without a guard, where one was made.
    pub unguarded: Option<Run>,
}

/// How strictly rounds are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strictness {
    /// By the promise itself.
    Promise,
    /// As a machine deserves that others use meanwhile.
    Stalling,
}

/// A bar, and what the rounds have against it.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The bar in words.
    pub bar: String,
    /// The guarded runs' number.
    pub guarded: String,
    /// The unguarded runs'.
    pub unguarded: String,
    /// It was cleared.
    pub held: bool,
}

/// Holds rounds against every bar of a row.
#[must_use]
pub(super) fn judge(
    row: &Row,
    rounds: &[Round],
    baseline: Option<&Run>,
    strictness: Strictness,
) -> Vec<Judged> {
    let fill = match row.fill {
        Fill::Within(above) => vec![Bar::FillAboveTarget(above), Bar::KernelDropsNone],
        Fill::Anything => Vec::new(),
    };
    let daemon = guarded(rounds).next().and_then(|run| run.daemon);
    let cost = daemon.filter(|cost| cost.flood_cpu_ratio.is_some());
    let idle = cost.and_then(|cost| cost.idle_cpu_ratio).map(|_| Bar::CpuIdle(IDLE_CPU));
    let cost = cost.map(|_| [Bar::CpuInFlood(FLOOD_CPU), Bar::Memory(MEMORY)]);
    let bars = row.bars.iter().copied().chain(fill).chain(idle).chain(cost.into_iter().flatten());
    let office = guarded(rounds).any(|run| run.office.opened > 0).then_some(Bar::OfficeKept);
    let bars = bars.chain(office);
    let mut judged: Vec<_> = bars.map(|bar| judge_bar(bar, rounds, baseline, strictness)).collect();
    judged.extend(judge_windows(rounds));
    judged.extend(tell(rounds));
    judged
}

/// What no bar asks for, and the table shows all the same: the first round's.
fn tell(rounds: &[Round]) -> Vec<Judged> {
    let Some(round) = rounds.first() else { return Vec::new() };
    let line = |what: String, shown: &dyn Fn(&Run) -> Option<String>| {
        let cell =
            |run: &Option<Run>| run.as_ref().and_then(shown).unwrap_or_else(|| "–".to_owned());
        let (guarded, unguarded) = (cell(&round.guarded), cell(&round.unguarded));
        Judged { bar: what, guarded, unguarded, held: true }
    };
    let groups = [Who::There, Who::Newcomers, Who::Inside].map(|who| {
        line(format!("({who}: at once, within 4 s)"), &|run| {
            let late = run.recovery.is_some() && run.outage.is_none();
            let settled = run.settled.as_ref().filter(|_| late);
            let success = who.success(settled.unwrap_or(&run.legitimate))?;
            let shares = [success.at_once_ratio(), success.eventually_ratio()];
            Some(shares.map(|share| Unit::Share.show(share)).join(", "))
        })
    });
    let flood = line("(flood: offered/s, lost in the queue, CPU)".to_owned(), &|run| {
        let flood = run.flood?;
        let lost = Unit::Share.show(ratio(flood.lost_in_queue, flood.offered));
        let cpu = Unit::Core.show(run.router_cpu_ratio?);
        Some(format!("{:.0}, {lost}, {cpu}", flood.offered_per_second))
    });
    groups.into_iter().chain([flood]).collect()
}

/// The guarded runs of rounds.
pub(super) fn guarded(rounds: &[Round]) -> impl Iterator<Item = &Run> {
    rounds.iter().filter_map(|round| round.guarded.as_ref())
}

/// Where both runs were made, no window of a round may be worse with the guard than without.
fn judge_windows(rounds: &[Round]) -> Option<Judged> {
    let worst = rounds
        .iter()
        .filter_map(|round| windows::worst(round.guarded.as_ref()?, round.unguarded.as_ref()?));
    let worst: Vec<_> = worst.collect();
    let lack =
        |worst: &windows::Worst| worst.unguarded.at_once_ratio() - worst.guarded.at_once_ratio();
    let most = worst.iter().max_by(|one, other| lack(one).total_cmp(&lack(other)))?;
    Some(Judged {
        bar: format!("no 2 s worse than unguarded; worst: second {}", most.second),
        guarded: Unit::Share.show(most.guarded.at_once_ratio()),
        unguarded: Unit::Share.show(most.unguarded.at_once_ratio()),
        held: worst.iter().all(|worst| worst.held),
    })
}

fn judge_bar(bar: Bar, rounds: &[Round], baseline: Option<&Run>, strictness: Strictness) -> Judged {
    let measure = |run: &Run| bar.measure(run, baseline);
    let made = guarded(rounds).next().is_some();
    let guarded = rounds.iter().map(|round| round.guarded.as_ref().and_then(measure)).collect();
    let guarded = Numbers::of(guarded);
    let unguarded = rounds.iter().map(|round| round.unguarded.as_ref().and_then(measure)).collect();
    let unguarded = Numbers::of(unguarded);
    let slack = match strictness {
        Strictness::Promise => {
            let few = |run: &&Run| run.lost_of_flood() <= FEW;
            lost_by_lab(bar, self::guarded(rounds).filter(few)).min(FEW)
        }
        Strictness::Stalling => slack(bar, rounds),
    };
    let target_ratio = self::guarded(rounds).next().map_or(0.0, |run| run.target_ratio);
    let limit = bar.limit(target_ratio, unguarded.as_ref().map(Numbers::median));
    let held = !made
        || guarded.as_ref().zip(limit).is_some_and(|(numbers, limit)| {
            let counts =
                if bar.allows_no_exception() { numbers.worst(limit) } else { numbers.median() };
            limit.is_kept(counts, slack)
        });
    let shown = |numbers: &Option<Numbers>| {
        numbers.as_ref().map_or_else(|| "–".to_owned(), |numbers| numbers.show(bar.unit()))
    };
    Judged { bar: bar.to_string(), guarded: shown(&guarded), unguarded: shown(&unguarded), held }
}

/// The share of a bar's flows that packets lost in the lab's queues can have spoiled, in the worst of
/// these runs; a packet is as likely one client's as another's. With four seconds' time a client sends it
/// again.
fn lost_by_lab<'r>(bar: Bar, runs: impl Iterator<Item = &'r Run>) -> f64 {
    let has_time = matches!(bar, Bar::Eventually(..) | Bar::EventuallyInOutage(..));
    if bar.who().is_none() || has_time {
        return 0.0;
    }
    runs.map(Run::spoiled_in_queue).fold(0.0, f64::max)
}

fn slack(bar: Bar, rounds: &[Round]) -> f64 {
    match bar.unit() {
        Unit::Share => STALLED + lost_by_lab(bar, guarded(rounds)).min(STALLED_LOSS),
        Unit::Index => STALLED,
        Unit::Fill | Unit::Deviation => STALLED_FILL,
        Unit::Milliseconds => STALLED_MILLISECONDS,
        Unit::Seconds => STALLED_SECONDS,
        Unit::Core => STALLED_CPU,
        Unit::IdleCore | Unit::Count | Unit::Bytes => 0.0,
    }
}

/// A bar's numbers, one of each round, from the least to the most; never empty.
struct Numbers(Vec<f64>);

impl Numbers {
    /// None unless every round has one.
    fn of(numbers: Vec<Option<f64>>) -> Option<Self> {
        let mut numbers: Vec<f64> = numbers.into_iter().collect::<Option<_>>()?;
        numbers.sort_by(f64::total_cmp);
        (!numbers.is_empty()).then_some(Self(numbers))
    }

    /// Of an even number of rounds, the mean of the two in the middle.
    fn median(&self) -> f64 {
        let (low, high) = ((self.0.len() - 1) / 2, self.0.len() / 2);
        f64::midpoint(self.0[low], self.0[high])
    }

    fn worst(&self, limit: Limit) -> f64 {
        match limit {
            Limit::AtLeast(_) => self.0[0],
            Limit::AtMost(_) | Limit::Below(_) => self.0[self.0.len() - 1],
        }
    }

    /// The median, and between which numbers it lies.
    fn show(&self, unit: Unit) -> String {
        let median = unit.show(self.median());
        let (least, most) = (unit.show(self.0[0]), unit.show(self.0[self.0.len() - 1]));
        if least == most { median } else { format!("{median} ({least} … {most})") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(of: &[f64]) -> Numbers {
        Numbers::of(of.iter().copied().map(Some).collect()).expect("numbers")
    }

    #[test]
    fn a_single_round_shows_its_number_and_several_the_median_and_the_range() {
        assert_eq!(numbers(&[0.5]).show(Unit::Share), "50.00 %");
        let three = numbers(&[1.0, 0.25, 0.5]);
        assert_eq!(three.show(Unit::Share), "50.00 % (25.00 % … 100.00 %)");
        assert!((numbers(&[1.0, 2.0]).median() - 1.5).abs() < 1e-9);
    }

    /// Fails when a drop or a peak in one round of many is forgotten.
    #[test]
    fn what_allows_no_exception_is_judged_by_the_worst_round() {
        let worst = numbers(&[0.0, 0.0, 7.0]).worst(Limit::AtMost(0.0));
        assert!((worst - 7.0).abs() < 1e-9);
        assert!((numbers(&[0.2, 0.4]).worst(Limit::AtLeast(0.1)) - 0.2).abs() < 1e-9);
        assert!(Bar::KernelDropsNone.allows_no_exception());
        assert!(Bar::FillAboveTarget(0.02).allows_no_exception());
    }

    /// Fails when a round that has nothing to say counts as one that says yes.
    #[test]
    fn a_round_without_a_number_leaves_the_bar_without_one() {
        assert!(Numbers::of(vec![Some(1.0), None]).is_none());
        assert!(Numbers::of(Vec::new()).is_none());
    }
}
