//! How soon the table will be full if it keeps filling as fast as now.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::finding::{Finding, Severity};
use crate::host::{COUNT, Host, TableNumbers, sysctl_path};
use ctguard_units::real;

const APART: Duration = Duration::from_millis(50);
/// Readings that are needed, and the least time that an audit takes.
const READINGS: usize = 5;
/// The growth between two readings that counts: less may be chance, or one web page.
const LEAST: u64 = 20;
const SOON_SECONDS: f64 = 600.0;
const VERY_SOON_SECONDS: f64 = 60.0;
/// Most entries live for a minute or two, so slower growth stops by itself. It counts once the table
/// is half full.
const HALF: f64 = 0.5;

#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    /// Since the beginning.
    pub(super) readings: Vec<(Duration, u64)>,
}

impl Pace {
    pub(super) fn start(host: &Host) -> Self {
        let mut pace = Self { began: Instant::now(), readings: Vec::new() };
        pace.note(host);
        pace
    }

    fn note(&mut self, host: &Host) {
        // `presence` reports what cannot be read.
        if let Ok(Some(count)) = host.number(&sysctl_path(COUNT)) {
            self.readings.push((self.began.elapsed(), count));
        }
    }

    pub(super) fn keep(&mut self, host: &Host) {
        if !host.is_this() {
            return;
        }
        for _ in 1..READINGS {
            let next = self.readings.last().map_or(APART, |(at, _)| *at + APART);
            thread::sleep(next.saturating_sub(self.began.elapsed()));
            self.note(host);
        }
    }
}

pub(super) fn judge(readings: &[(Duration, u64)], table: TableNumbers) -> Option<Finding> {
    let [(began, first), .., (ended, last)] = *readings else { return None };
    let mut pairs = readings.iter().zip(readings.iter().skip(1));
    let grows = pairs.all(|((_, one), (_, next))| *next >= one.saturating_add(LEAST));
    let left = table.max.checked_sub(last)?;
    if !grows || readings.len() < READINGS {
        return None;
    }
    let lasted = ended.saturating_sub(began);
    let per_second = real(last - first) / lasted.as_secs_f64().max(f64::MIN_POSITIVE);
    let seconds = real(left) / per_second;
    let is_half_full = real(last) >= HALF * real(table.max);
    let severity = match seconds {
        ..VERY_SOON_SECONDS if is_half_full => Severity::Fault,
        ..VERY_SOON_SECONDS => Severity::Warning,
        ..SOON_SECONDS if is_half_full => Severity::Warning,
        _ => return None,
    };
    let pace = format!("{per_second:.0} entries a second");
    let what = format!("the table grows by {pace} and will be full in {seconds:.0} s");
    let read = format!("{first}, then {last} after {} ms", lasted.as_millis());
    let why = format!(
        "entries are created faster than they expire, in each of {} readings: this is most likely a \
         flood, not a burst",
        readings.len()
    );
    Finding::of("filling", severity, what)
        .read(sysctl_path(COUNT), read)
        .because(why)
        .tune("ctguard run -i IFACE    # the interface where it arrives")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Severity;

    const TABLE: TableNumbers = TableNumbers { count: 0, max: 100_000, buckets: 100_000 };

    fn judged(counts: &[u64]) -> Option<Severity> {
        let at = |number: u32| APART * number;
        let readings: Vec<_> = (0..).map(at).zip(counts.iter().copied()).collect();
        judge(&readings, TABLE).map(|finding| finding.severity)
    }

    /// So many more at each of five readings.
    fn steps(from: u64, step: u64) -> Vec<u64> {
        (0..5).map(|number| from + step * number).collect()
    }

    #[test]
    fn a_table_that_will_be_full_in_a_minute_is_told_and_a_half_full_one_in_ten() {
        // 2,000 entries a second, in 50 s and in 20 s; 400, in 120 s.
        assert_eq!(judged(&steps(1000, 100)), Some(Severity::Warning));
        assert_eq!(judged(&steps(60_000, 100)), Some(Severity::Fault));
        assert_eq!(judged(&steps(51_000, 20)), Some(Severity::Warning));
        assert_eq!(judged(&steps(1000, 20)), None, "most of them will have ended by then");
    }

    /// Fails when a burst, or chance, is taken for a pace.
    #[test]
    fn a_table_that_grows_by_fits_and_starts_does_not_fill() {
        assert_eq!(judged(&[1000, 3000, 3010, 3020, 3030]), None);
        assert_eq!(judged(&[60_000, 60_200, 60_100, 60_300, 60_500]), None);
        assert_eq!(judged(&steps(90_000, 19)), None);
        assert_eq!(judged(&[1000, 9000]), None, "two readings are no pace");
        assert_eq!(judged(&[]), None);
    }

    #[test]
    fn a_table_without_a_maximum_does_not_fill() {
        let readings = steps(60_000, 100).into_iter().zip(0..);
        let readings: Vec<_> = readings.map(|(count, number)| (APART * number, count)).collect();
        assert!(judge(&readings, TableNumbers { max: 0, ..TABLE }).is_none());
    }
}
