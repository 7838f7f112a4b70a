//! The thread that reads one feed, as long as it is wanted.

use std::{
    io,
    time::{Duration, Instant},
};

use ctguard_kernel::{bpf::monotonic, maps::Entry};
use ctguard_settings::{Feed, FeedSource};

use super::{
    crowdsec,
    files::{Files, Look},
    nft,
    stop::{Stop, Wait},
    watch::Watch,
};

/// Files are looked at as often even if nothing tells of a change, as on a network file system.
const POLL: Duration = Duration::from_secs(30);
/// Who replaces several files is given time.
const QUIET: Duration = Duration::from_millis(100);

/// Between two attempts that fail.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// Reading takes no more than a twentieth of a processor.
const IDLE_FACTOR: u32 = 20;

/// What a read of a feed found.
#[derive(Debug)]
pub(super) enum Reading {
    /// It says what it said before.
    Same,
    Read {
        /// None leaves what it said before. Their ends are milliseconds of the monotonic clock; 0 is never.
        entries: Option<Vec<Entry>>,
        /// What it says beside, which is no prefix or nothing to deny.
        ignored: u64,
        /// What is no fault, and good to know.
        note: Option<String>,
        fault: Option<String>,
    },
}

impl Reading {
    pub(super) fn failed(fault: String) -> Self {
        Self::Read { entries: None, ignored: 0, note: None, fault: Some(fault) }
    }
}

/// Reads `feed`, tells what it says, and again when it changes, until it is stopped.
pub(super) fn follow(feed: &Feed, stop: &Stop, mut tell: impl FnMut(Reading)) {
    let followed = match &feed.source {
        FeedSource::File(path) => {
            follow_files(Files::new(path, false), || Watch::on(path), stop, &mut tell)
        }
        FeedSource::Directory(path) => {
            follow_files(Files::new(path, true), || Watch::on(path), stop, &mut tell)
        }
        FeedSource::Nftables { family, table, set } => {
            poll(feed.every, stop, &mut tell, || nft::read(family, table, set, stop))
        }
        FeedSource::Crowdsec { host, port, key_file } => {
            let mut client = crowdsec::Client::default();
            poll(feed.every, stop, &mut tell, || Some(client.read(host, *port, key_file)))
        }
    };
    if let Err(error) = followed {
        tell(Reading::failed(format!("cannot follow it: {error}")));
    }
}

/// Reads again and again; less often what takes long, or fails.
fn poll(
    every: Duration,
    stop: &Stop,
    tell: &mut impl FnMut(Reading),
    mut read: impl FnMut() -> Option<Reading>,
) -> io::Result<()> {
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let Some(reading) = read() else { return Ok(()) };
        let has_failed = matches!(reading, Reading::Read { fault: Some(_), .. });
        failures = if has_failed { failures + 1 } else { 0 };
        tell(reading);
        let pause = pause(every, failures, began.elapsed());
        if stop.wait(None, pause)? == Wait::Stopped {
            return Ok(());
        }
    }
}

fn pause(every: Duration, failures: u32, took: Duration) -> Duration {
    let backed_off = every.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    let every = if failures > 1 { backed_off.min(LONGEST_PAUSE.max(every)) } else { every };
    every.max(took.saturating_mul(IDLE_FACTOR))
}

fn follow_files(
    mut files: Files,
    watch: impl Fn() -> io::Result<Watch>,
    stop: &Stop,
    tell: &mut impl FnMut(Reading),
) -> io::Result<()> {
    // Before the first look, so that no change is missed; the directories on the way may be others later.
    let mut watching = watch()?;
    loop {
        let mut most = POLL;
        match files.look() {
            Look::Same => tell(match files.fault() {
                None => Reading::Same,
                Some(fault) => Reading::failed(fault.to_owned()),
            }),
            Look::Unsettled => most = QUIET,
            Look::Changed => {
                let entry = |prefix| Entry { prefix, expires_at: 0 };
                tell(Reading::Read {
                    entries: files.has_content().then(|| files.prefixes().map(entry).collect()),
                    ignored: 0,
                    note: None,
                    fault: files.fault().map(str::to_owned),
                });
                watching = watch()?;
                // What happened until it watched.
                most = QUIET;
            }
        }
        match stop.wait(Some(watching.fd()), most)? {
            Wait::Stopped => return Ok(()),
            Wait::TimedOut => {}
            Wait::Ready => {
                watching.drain();
                if stop.wait(None, QUIET)? == Wait::Stopped {
                    return Ok(());
                }
            }
        }
    }
}

/// `left` from now on, as [`Reading::Read`] has it.
pub(super) fn end_after(left: Duration) -> u64 {
    let millis = monotonic().saturating_add(left).as_millis();
    u64::try_from(millis).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_or_takes_long_is_read_less_often() {
        let [second, ten] = [1, 10].map(Duration::from_secs);
        let soon = Duration::from_millis(1);
        assert_eq!(
            [0, 1, 2, 3].map(|it| pause(ten, it, soon)),
            [10, 10, 20, 40].map(Duration::from_secs)
        );
        assert_eq!(pause(ten, 1000, soon), LONGEST_PAUSE);
        assert_eq!(pause(2 * LONGEST_PAUSE, 9, soon), 2 * LONGEST_PAUSE);
        assert_eq!(pause(ten, 0, second), 20 * second);
    }
}
