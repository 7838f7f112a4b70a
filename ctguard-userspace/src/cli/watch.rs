//! `ctguard tune --watch`: looks at the table after a change, and says whether it helped.

use std::{
    io::{self, Write},
    time::{Duration, Instant, SystemTime},
};

use serde::Serialize;
use tokio::runtime::Builder;

use super::{CliError, Context};
use crate::{
    host::Host,
    maps::GuardMaps,
    signals::Stop,
    tune::{self, Interval, JOURNAL, Reading, TuneError, Verdict, Watch, Watched, interval_of},
};

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
    /// What was applied was taken back.
    reverted: bool,
}

/// Watches for so long, or until a signal, and judges all that was watched since the change.
pub(super) fn watch(
    host: &Host,
    span: Duration,
    context: &Context,
    out: &mut impl Write,
    is_shown: bool,
) -> Result<Watched, CliError> {
    if !tune::is_applied(host)? {
        return Err(TuneError::NothingApplied.into());
    }
    let runtime = Builder::new_current_thread().enable_all().build().map_err(CliError::MainLoop)?;
    runtime.block_on(async {
        let mut stop = Stop::catch().map_err(CliError::MainLoop)?;
        let refused = || if host.is_this() { refused(context) } else { None };
        let mut watch = Watch::begin(read(host)?, refused());
        if is_shown {
            let span = humantime::format_duration(span);
            writeln!(out, "watching for {span}; Ctrl-C ends it early").map_err(CliError::Output)?;
            out.flush().map_err(CliError::Output)?;
        }
        let began = Instant::now();
        let (mut kept, mut shown) = (began, began);
        loop {
            let left = span.saturating_sub(began.elapsed());
            let asked = tokio::select! {
                biased;
                () = stop.requested() => true,
                () = tokio::time::sleep(left.min(LOOK)) => false,
            };
            let now = read(host)?;
            watch.see(now);
            let is_over = asked || began.elapsed() >= span;
            if !is_over && kept.elapsed() < interval_of(span) {
                continue;
            }
            let at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
            let interval = watch.end(now, refused(), kept.elapsed(), at);
            kept = Instant::now();
            tune::keep(host, &interval)?;
            if is_shown && (is_over || shown.elapsed() >= span / SHOWN) {
                shown = kept;
                show(&interval, out).map_err(CliError::Output)?;
            }
            if is_over {
                return Ok(tune::judge(host)?);
            }
        }
    })
}

fn read(host: &Host) -> Result<Reading, TuneError> {
    Reading::take(host)?.ok_or(TuneError::NotLoaded)
}

/// What the guard has refused so far; none where none is loaded, or it cannot be asked.
fn refused(context: &Context) -> Option<u64> {
    Some(GuardMaps::open(&context.pins).ok()?.totals().ok()?.refused())
}

fn show(interval: &Interval, out: &mut impl Write) -> io::Result<()> {
    let Interval { at, count, max, dropped, .. } = interval;
    write!(out, "  {at}  {count} entries of {max}, {dropped} dropped")?;
    if let Some(refused) = interval.refused {
        write!(out, ", {refused} refused by the guard")?;
    }
    writeln!(out)?;
    out.flush()
}

/// What was watched, for people.
pub(super) fn text(watched: &Watched, out: &mut impl Write) -> io::Result<()> {
    let Watched { peak, max, max_before, dropped, early_dropped, because, .. } = watched;
    let span = humantime::format_duration(watched.span());
    writeln!(out, "watched for {span}, kept in {JOURNAL}:")?;
    writeln!(out, "  {peak} entries at most, of {max}; the maximum was {max_before} before")?;
    writeln!(out, "  {dropped} new flows dropped for a full table")?;
    writeln!(out, "  {early_dropped} entries thrown away to make room")?;
    if let Some(refused) = watched.refused {
        writeln!(out, "  {refused} new flows refused by the guard")?;
    }
    if let Some(before) = &watched.before {
        let uptime = humantime::format_duration(Duration::from_secs(before.uptime_seconds));
        let reading = &before.reading;
        writeln!(
            out,
            "  before: {} entries, and in {uptime} {} dropped and {} thrown away",
            reading.count, reading.dropped, reading.early_dropped
        )?;
    }
    let verdict = match watched.verdict {
        Verdict::Helped => "it helped",
        Verdict::NotEnough => "it is not enough",
        Verdict::Undecided => "it made no difference so far",
        Verdict::DidNotHelp => "it did not help",
    };
    writeln!(out, "{verdict}: {because}")
}

/// The same as JSON.
pub(super) fn json(watched: &Watched, reverted: bool, out: &mut impl Write) -> io::Result<()> {
    let report = WatchReport { schema_version: 1, watched, reverted };
    serde_json::to_writer_pretty(&mut *out, &report)?;
    writeln!(out)
}
