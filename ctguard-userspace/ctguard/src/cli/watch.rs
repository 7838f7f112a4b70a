//! `ctguard tune --watch`: looks at the table after a change, and says whether it helped.

use std::{
    io::{self, Write},
    time::{Duration, Instant, SystemTime},
};

use serde::Serialize;
use tokio::runtime::Builder;

use super::{CliError, Context};
use crate::{
    report::write_json,
    signals::{Asked, Stop},
};
use ctguard_audit::{
    host::Host,
    tune::{
        Applied, Interval, JOURNAL, Journal, Reading, Reverted, TuneError, Verdict, Watch, Watched,
        interval_of,
    },
};
use ctguard_kernel::maps::GuardMaps;

/// A flood fills a table in seconds.
const LOOK: Duration = Duration::from_secs(1);
/// Lines that are shown while it lasts.
const SHOWN: u32 = 20;

/// What is printed as JSON when it has ended.
#[derive(Serialize)]
struct WatchReport<'a> {
    schema_version: u32,
    #[serde(flatten)]
    watched: &'a Watched,
    /// What was taken back, and what was left.
    reverted: &'a [Reverted],
}

/// How a watch ended.
pub(super) struct Ended {
    pub(super) watched: Watched,
    /// By the machine or the terminal that goes, not by its time or by somebody.
    pub(super) cut_short: bool,
    /// To take back all is to take back what was watched.
    pub(super) is_only_change: bool,
}

/// Watches for so long, or until a signal, and judges all that was watched since the change.
///
/// Output that fails ends only the showing.
pub(super) fn watch(
    host: &Host,
    span: Duration,
    context: &Context,
    out: &mut impl Write,
    mut is_shown: bool,
) -> Result<Ended, CliError> {
    let applied = Applied::last(host)?;
    let mut journal = Journal::open(host).map_err(TuneError::from)?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(CliError::MainLoop)?;
    runtime.block_on(async {
        let mut stop = Stop::catch().map_err(CliError::MainLoop)?;
        let refused = || if host.is_this() { refused(context) } else { None };
        let start = read(host)?.ok_or(TuneError::NotLoaded)?;
        let mut watch = Watch::begin(start, refused());
        is_shown = is_shown && begin(span, out).is_ok();
        let began = Instant::now();
        let (mut kept, mut shown) = (began, began);
        loop {
            let left = span.saturating_sub(began.elapsed());
            let asked = tokio::select! {
                biased;
                asked = stop.requested() => Some(asked),
                () = tokio::time::sleep(left.min(LOOK)) => None,
            };
            // Without conntrack there is nothing to see; it may come back.
            if let Some(now) = read(host)? {
                watch.see(now);
            }
            let is_over = asked.is_some() || began.elapsed() >= span;
            if !is_over && kept.elapsed() < interval_of(span) {
                continue;
            }
            let at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
            let interval = watch.end(refused(), kept.elapsed(), at);
            kept = Instant::now();
            if is_shown && (is_over || shown.elapsed() >= span / SHOWN) {
                shown = kept;
                is_shown = show(&interval, out).is_ok();
            }
            // What a full disk does not take is judged all the same.
            let _ = journal.add(interval);
            let lapsed = applied.lapsed(host)?;
            if is_over || lapsed.is_some() {
                let watched = applied.judge(journal.intervals());
                return Ok(Ended {
                    watched: match lapsed {
                        Some(why) => watched.not_in_force(why),
                        None => watched,
                    },
                    cut_short: asked == Some(Asked::End),
                    is_only_change: applied.is_only(),
                });
            }
        }
    })
}

fn read(host: &Host) -> Result<Option<Reading>, TuneError> {
    Ok(Reading::take(host)?)
}

/// What the guard has refused so far; none where none is loaded, or it cannot be asked.
fn refused(context: &Context) -> Option<u64> {
    Some(GuardMaps::open(&context.pins).ok()?.totals().ok()?.refused())
}

fn begin(span: Duration, out: &mut impl Write) -> io::Result<()> {
    let span = humantime::format_duration(span);
    writeln!(out, "watching for {span}; Ctrl-C ends it early")?;
    out.flush()
}

fn show(interval: &Interval, out: &mut impl Write) -> io::Result<()> {
    let Interval { at, count, max, .. } = interval;
    write!(out, "  {at}  {count} entries of {max}")?;
    for (number, what) in [
        (interval.dropped, "dropped"),
        (interval.early_dropped, "evicted early"),
        (interval.refused, "refused by the guard"),
    ] {
        if let Some(number) = number {
            write!(out, ", {number} {what}")?;
        }
    }
    writeln!(out)?;
    out.flush()
}

/// What was watched, for people.
pub(super) fn text(watched: &Watched, out: &mut impl Write) -> io::Result<()> {
    let Watched { peak, max, before, because, .. } = watched;
    writeln!(out, "watched for {}, kept in {JOURNAL}:", watched.span())?;
    writeln!(out, "  {peak} entries at most, of {max}")?;
    let losses = [
        (watched.dropped, "new flows dropped because the table was full"),
        (watched.early_dropped, "entries evicted early to make room"),
        (watched.refused, "new flows refused by the guard"),
    ];
    for (number, what) in losses {
        if let Some(number) = number {
            writeln!(out, "  {number} {what}")?;
        }
    }
    if watched.dropped.is_none() {
        writeln!(out, "  this kernel does not count what it drops")?;
    }
    match before.count {
        Some(count) => write!(out, "  just before the change: {count} entries of {}", before.max)?,
        None => write!(out, "  just before the change: a maximum of {}", before.max)?,
    }
    match before.lost_per_second {
        Some(lost) => writeln!(out, ", {lost:.0} lost per second")?,
        None => writeln!(out)?,
    }
    let verdict = match watched.verdict {
        Verdict::Helped => "it helped",
        Verdict::NotEnough => "it is not enough",
        Verdict::Undecided => "too early to say",
        Verdict::DidNotHelp => "it did not help",
        Verdict::NotInForce => "it is no longer in force",
    };
    writeln!(out, "{verdict}: {because}")
}

/// The same as JSON.
pub(super) fn json(
    watched: &Watched,
    reverted: &[Reverted],
    out: &mut impl Write,
) -> io::Result<()> {
    write_json(out, &WatchReport { schema_version: 1, watched, reverted })
}
