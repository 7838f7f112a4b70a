//! Decides which failures are logged, because one that repeats each tick would fill the log.

use std::{collections::BTreeMap, time::Duration};

/// How often a lasting failure is logged.
const AGAIN: Duration = Duration::from_mins(1);

/// A failure has ended if all attempts of this time succeeded. Longer than any pause between two
/// attempts: dumps of the table come once a minute.
const ENDED: Duration = Duration::from_mins(2);

#[derive(Debug, Default)]
pub(super) struct Complaints(BTreeMap<String, Complaint>);

#[derive(Debug)]
struct Complaint {
    logged: Duration,
    failed: Duration,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Failure(String),
    End(String),
}

impl Complaints {
    /// Whether to log `news`, which may come each second: once a minute.
    pub(super) fn is_due(&mut self, news: &str, now: Duration) -> bool {
        let is_due = self.0.get(news).is_none_or(|last| now >= last.logged + AGAIN);
        if is_due {
            self.0.insert(news.to_owned(), Complaint { logged: now, failed: now });
        }
        is_due
    }

    /// What to log about an attempt to do `task`; a failure means `effect`.
    pub(super) fn judge(
        &mut self,
        task: &str,
        effect: &str,
        attempt: &anyhow::Result<()>,
        now: Duration,
    ) -> Option<Line> {
        let known = self.0.get_mut(task);
        let Err(error) = attempt else {
            known.filter(|complaint| now >= complaint.failed + ENDED)?;
            self.0.remove(task);
            return Some(Line::End(format!("can {task} again")));
        };
        match known {
            Some(complaint) => {
                complaint.failed = now;
                if now < complaint.logged + AGAIN {
                    return None;
                }
                complaint.logged = now;
            }
            None => {
                self.0.insert(task.to_owned(), Complaint { logged: now, failed: now });
            }
        }
        Some(Line::Failure(format!("cannot {task}, so {effect}: {error:#}")))
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    const TICK: Duration = Duration::from_millis(20);

    /// The lines of two tasks that fail, or work, at each tick from `begin` to `end`.
    fn tick(complaints: &mut Complaints, seconds: std::ops::Range<u64>, works: bool) -> Vec<Line> {
        let mut lines = Vec::new();
        let [mut now, end] = [seconds.start, seconds.end].map(Duration::from_secs);
        while now < end {
            for task in ["swim", "fly"] {
                let attempt = if works { Ok(()) } else { Err(anyhow!("no {task}ing")) };
                lines.extend(complaints.judge(task, "it stays", &attempt, now));
            }
            now += TICK;
        }
        lines
    }

    fn failures() -> [Line; 2] {
        ["cannot swim, so it stays: no swiming", "cannot fly, so it stays: no flying"]
            .map(|text| Line::Failure(text.to_owned()))
    }

    /// Fails when two failures that take turns are each taken for news.
    #[test]
    fn failures_that_alternate_are_logged_once_a_minute_each() {
        let mut complaints = Complaints::default();
        assert_eq!(tick(&mut complaints, 0..60, false), failures());
        assert_eq!(tick(&mut complaints, 60..120, false), failures());
    }

    #[test]
    fn a_task_that_fails_for_another_reason_each_time_is_logged_once_a_minute() {
        let mut complaints = Complaints::default();
        let attempts = (0..3000).map(|tick| (TICK * tick, Err(anyhow!("reason {tick}"))));
        let lines: Vec<_> = attempts
            .filter_map(|(now, attempt)| complaints.judge("swim", "it stays", &attempt, now))
            .collect();
        assert_eq!(lines, [Line::Failure("cannot swim, so it stays: reason 0".to_owned())]);
    }

    /// Fails when timeouts that somebody changes each second fill the log.
    #[test]
    fn news_of_each_second_is_logged_once_a_minute() {
        let mut complaints = Complaints::default();
        let seconds = (0..=120).map(Duration::from_secs);
        let logged: Vec<_> = seconds.filter(|now| complaints.is_due("more", *now)).collect();
        assert_eq!(logged, [0, 60, 120].map(Duration::from_secs));
    }

    #[test]
    fn the_end_of_a_failure_is_logged_once() {
        let mut complaints = Complaints::default();
        tick(&mut complaints, 0..1, false);
        assert_eq!(tick(&mut complaints, 1..120, true), [], "not over yet");
        let ends = ["can swim again", "can fly again"].map(|text| Line::End(text.to_owned()));
        assert_eq!(tick(&mut complaints, 120..1000, true), ends);
        assert_eq!(tick(&mut complaints, 1000..1001, false), failures(), "news again");
    }

    #[test]
    fn a_failure_that_comes_and_goes_is_neither_over_nor_news() {
        let mut complaints = Complaints::default();
        assert_eq!(tick(&mut complaints, 0..1, false), failures());
        assert_eq!(tick(&mut complaints, 1..30, true), []);
        assert_eq!(tick(&mut complaints, 30..31, false), []);
        assert_eq!(tick(&mut complaints, 31..150, true), []);
    }
}
