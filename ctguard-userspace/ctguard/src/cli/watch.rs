//! `ctguard tune --watch`: watches the table after a change, and says whether it helped.

use std::{
    io::{self, Write},
    time::{Duration, Instant, SystemTime},
};

use serde::Serialize;
use tokio::runtime::Builder;

use super::{CliError, Context};
use crate::signals::{Asked, Stop};
use ctguard_audit::{
    host::Host,
    tune::{
        Applied, Interval, JOURNAL, Journal, Reading, Reverted, TuneError, Verdict, Watch, Watched,
        interval_of,
    },
};
use ctguard_kernel::maps::GuardMaps;

/// How often the table is read: a flood fills it in seconds.
const LOOK: Duration = Duration::from_secs(1);
/// How many lines a watch shows.
const SHOWN: u32 = 20;

/// What is printed as JSON at the end.
#[derive(Serialize)]
pub(super) struct WatchReport<'a> {
    pub(super) schema_version: u32,
    #[serde(flatten)]
    pub(super) watched: &'a Watched,
    /// What was reverted, and what was not.
    pub(super) reverted: &'a [Reverted],
}

/// How a watch ended.
pub(super) struct Ended {
    pub(super) watched: Watched,
    /// The machine or the terminal went away.
    pub(super) cut_short: bool,
    /// A revert would revert only what was watched.
    pub(super) is_only_change: bool,
}

/// Watches for this long, or until a signal, and judges all watches since the change.
///
/// If output fails, it goes on without output.
pub(super) fn watch(
    host: &Host,
    span: Duration,
    context: &Context,
    out: &mut impl Write,
    mut is_shown: bool,
) -> Result<Ended, CliError> {
    let applied = Applied::last(host)?;
    let mut journal = Journal::open(host)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::cannot("start the main loop"))?;
    runtime.block_on(async {
        let mut stop = Stop::catch().map_err(CliError::cannot("start the main loop"))?;
        let refused = || if host.is_this() { refused(context) } else { None };
        let read = || Reading::take(host).map_err(TuneError::from);
        let start = read()?.ok_or(TuneError::NotLoaded)?;
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
            // Conntrack may be unloaded for a while.
            if let Some(now) = read()? {
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
            // With a full disk the interval still counts.
            let _ = journal.add(interval);
            let lapsed = applied.lapsed(host)?;
            if is_over || lapsed.is_some() {
                let watched = applied.judge(journal.intervals());
                return Ok(Ended {
                    watched: watched.unless_lapsed(lapsed),
                    cut_short: asked == Some(Asked::End),
                    is_only_change: applied.is_only(),
                });
            }
        }
    })
}

/// What the guard has refused so far; none without a guard that can be read.
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
    let words = ["dropped", "evicted", "refused by the guard"];
    for (number, what) in
        [interval.dropped, interval.early_dropped, interval.refused].iter().zip(words)
    {
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
    writeln!(out, "watched for {} (journal: {JOURNAL}):", watched.span())?;
    writeln!(out, "  at most {peak} entries of {max}")?;
    let losses = [
        (watched.dropped, "new flows dropped because the table was full"),
        (watched.early_dropped, "entries evicted to make room"),
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
        Some(count) => write!(out, "  before the change: {count} entries of {}", before.max)?,
        None => write!(out, "  before the change: a maximum of {}", before.max)?,
    }
    match before.lost_per_second {
        Some(lost) => writeln!(out, ", {lost:.0} lost per second")?,
        None => writeln!(out)?,
    }
    let verdict = match watched.verdict {
        Verdict::Helped => "it helped",
        Verdict::NotEnough => "it was not enough",
        Verdict::Undecided => "it is too early to say",
        Verdict::DidNotHelp => "it did not help",
        Verdict::NotInForce => "the change is no longer in force",
    };
    writeln!(out, "{verdict}: {because}")
}
