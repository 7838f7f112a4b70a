//! How soon the table will be full at the pace at which it fills now.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::finding::Finding;
use crate::host::{COUNT, Host, TableNumbers, sysctl_path};

/// Between two readings of the count.
const APART: Duration = Duration::from_millis(50);
/// Readings that make a pace, and an audit's time at least.
const READINGS: usize = 5;
/// Entries more at each reading: fewer may be chance, or one web page.
const LEAST: u64 = 20;
const SOON_SECONDS: f64 = 600.0;
const VERY_SOON_SECONDS: f64 = 60.0;
/// Most entries live for one or two minutes, so a pace that needs longer than that to fill a table
/// comes to rest before; it counts where the table is half full already.
const HALF: f64 = 0.5;

/// The count as it changes during an audit.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    readings: Vec<Reading>,
}

/// The count at a time since the first reading.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Duration,
    count: u64,
}

impl Pace {
    pub(super) fn start(host: &Host) -> Self {
        let mut pace = Self { began: Instant::now(), readings: Vec::new() };
        pace.note(host);
        pace
    }

    fn note(&mut self, host: &Host) {
        // What cannot be read here was told where the table was looked for.
        if let Ok(Some(count)) = host.number(&sysctl_path(COUNT)) {
            self.readings.push(Reading { at: self.began.elapsed(), count });
        }
    }

    /// Waits for the rest of the readings.
    pub(super) fn keep(&mut self, host: &Host) {
        if !host.is_this() {
            return;
        }
        for _ in 1..READINGS {
            let next = self.readings.last().map_or(APART, |last| last.at + APART);
            thread::sleep(next.saturating_sub(self.began.elapsed()));
            self.note(host);
        }
    }

    /// B2, of the list in `docs/doctor.md`.
    pub(super) fn judge(&self, table: TableNumbers) -> Option<Finding> {
        judge(&self.readings, table)
    }
}

#[expect(clippy::cast_precision_loss, reason = "tables have fewer than 2^52 entries")]
fn judge(readings: &[Reading], table: TableNumbers) -> Option<Finding> {
    let [first, .., last] = readings else { return None };
    let grows = readings.windows(2).all(|pair| match pair {
        [one, next] => next.count >= one.count.saturating_add(LEAST),
        _ => false,
    });
    let left = table.max.checked_sub(last.count)?;
    if !grows || readings.len() < READINGS {
        return None;
    }
    let lasted = last.at.saturating_sub(first.at);
    let more = last.count - first.count;
    let per_second = more as f64 / lasted.as_secs_f64().max(f64::MIN_POSITIVE);
    let seconds = left as f64 / per_second;
    let is_half_full = last.count as f64 >= HALF * table.max as f64;
    let what = format!(
        "the table fills by {per_second:.0} entries a second: at this pace it is full in \
         {seconds:.0} s"
    );
    let finding = match seconds {
        ..VERY_SOON_SECONDS if is_half_full => Finding::fault("filling", what),
        ..VERY_SOON_SECONDS => Finding::warning("filling", what),
        ..SOON_SECONDS if is_half_full => Finding::warning("filling", what),
        _ => return None,
    };
    Some(
        finding
            .read(
                sysctl_path(COUNT),
                format!("{}, and {} after {} ms", first.count, last.count, lasted.as_millis()),
            )
            .because(format!(
                "new entries come faster than old ones end, at each of {} readings in a row; a \
                 burst would have ended, a flood goes on",
                readings.len()
            ))
            .tune("ctguard run -i IFACE    # of the side that they come from"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    const TABLE: TableNumbers = TableNumbers { count: 0, max: 100_000, buckets: 100_000 };

    fn judged(counts: &[u64]) -> Option<Severity> {
        let at = |number: u32| APART * number;
        let readings: Vec<_> =
            (0..).map(at).zip(counts).map(|(at, &count)| Reading { at, count }).collect();
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
        let readings: Vec<_> =
            readings.map(|(count, number)| Reading { at: APART * number, count }).collect();
        assert!(judge(&readings, TableNumbers { max: 0, ..TABLE }).is_none());
    }
}
