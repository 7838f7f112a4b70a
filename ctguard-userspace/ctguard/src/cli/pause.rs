//! `ctguard pause`: drop nothing for a while.
//!
//! The daemon ends a pause that is over. In case it is killed, the command leaves a process behind
//! that ends the pause in its place.

use std::{
    io::Write as _,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, SystemTime},
};

use clap::Args;
use ctguard_layout::Policy;

use super::{CliError, Code, Context, lists::parse_span, record::record};
use crate::{
    events::What,
    report::{PauseReport, event_text, pause_text},
    terminal::{Terminal, complain},
};
use ctguard_kernel::{
    lock,
    maps::{GuardMaps, OpenError, Pause},
};

/// How soon the process behind sees that a pause was ended, or that the guard is gone.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A daemon takes a second to end a pause.
const PATIENCE: Duration = Duration::from_secs(3);

/// Drop nothing for a while, then go on as before
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctguard pause 10m       everything passes for ten minutes\n  \
    ctguard pause --end     limits are in force again\n\n\
    It is a dry run that ends by itself, also if the daemon is killed in the meantime: ctguard decides\n\
    and counts as always, and the programs stay attached. A second pause replaces the first. The\n\
    setting dry-run stays as it is, and a reload does not end a pause. `ctguard detach` removes the\n\
    guard instead."
)]
pub(super) struct PauseArgs {
    /// How long, such as 10m or 2h; a day at most
    #[arg(value_name = "TIME", required_unless_present_any = ["end", "follow"])]
    span: Option<String>,
    /// End the pause now; exit status 1 if there is none
    #[arg(long, conflicts_with = "span")]
    end: bool,
    /// Wait until the pause is over, and end it if no daemon has
    #[arg(long, hide = true, conflicts_with_all = ["span", "end"])]
    follow: bool,
}

pub(super) fn run(args: &PauseArgs, context: &Context) -> Result<Code, CliError> {
    match &args.span {
        Some(text) => begin(parse(text)?, context),
        None if args.end => end(context),
        None => follow(context),
    }
}

fn parse(text: &str) -> Result<Duration, CliError> {
    let span = parse_span("pause", text)?;
    let problem = if span > Pause::LONGEST {
        "longer than a day; ctguard set dry-run=on lasts until you end it"
    } else if span < Duration::from_secs(1) {
        "shorter than a second"
    } else {
        return Ok(span);
    };
    Err(CliError::Span { of: "pause", text: text.to_owned(), problem: problem.to_owned() })
}

fn begin(span: Duration, context: &Context) -> Result<Code, CliError> {
    let mut maps = context.maps()?;
    let (now, per_second) = context.now(&maps)?;
    let pause = Pause::until(now, per_second, span);
    let writing = lock::for_writing(context.pins.path())?;
    maps.settings_writer(writing).set_pause(Some(pause));
    let left = pause.left(now, per_second);
    let until = end_of(left);
    record(What::Paused { until: until.clone() });
    let dry_run_after = maps.settings().policy.has(Policy::DRY_RUN);
    if let Err(error) = leave_behind(context) {
        complain(format_args!(
            "warning: if the daemon is killed, the pause lasts until its next start: {error}"
        ));
    }
    let text = pause_text(&PauseReport { until, left_seconds: left.as_secs(), dry_run_after });
    let then = if dry_run_after { "; then the dry run goes on" } else { "" };
    say(&format!("{text}: nothing is dropped{then}; to end it now: ctguard pause --end"))
}

fn end(context: &Context) -> Result<Code, CliError> {
    let mut maps = context.maps()?;
    let writing = lock::for_writing(context.pins.path())?;
    let writer = maps.settings_writer(writing);
    if writer.pause().is_none() {
        drop(writer);
        complain(format_args!("there is no pause"));
        return Ok(Code::No);
    }
    writer.set_pause(None);
    let what = ended(&maps);
    let text = event_text(&what);
    record(what);
    say(&text)
}

/// When something that lasts so long ends: RFC 3339, UTC.
pub(super) fn end_of(left: Duration) -> String {
    humantime::format_rfc3339_seconds(SystemTime::now() + left).to_string()
}

fn ended(maps: &GuardMaps) -> What {
    What::PauseEnded { dry_run: maps.policy().has(Policy::DRY_RUN) }
}

fn leave_behind(context: &Context) -> std::io::Result<()> {
    let mut behind = Command::new(std::env::current_exe()?);
    behind.args(["pause", "--follow", "--pin-path"]).arg(context.pins.path());
    behind.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // It outlives the command and what a terminal sends to that.
    behind.current_dir("/").process_group(0).spawn().map(drop)
}

fn follow(context: &Context) -> Result<Code, CliError> {
    let mut over = false;
    loop {
        let mut maps = match context.maps() {
            Err(CliError::Open(OpenError::NoGuard { .. })) => return Ok(Code::Done),
            maps => maps?,
        };
        let Some(pause) = maps.pause() else { return Ok(Code::Done) };
        let (now, per_second) = context.now(&maps)?;
        let left = pause.left(now, per_second);
        if over && left.is_zero() {
            let writing = lock::for_writing(context.pins.path())?;
            if maps.settings_writer(writing).end_pause_if_over(now) {
                record(ended(&maps));
            }
            return Ok(Code::Done);
        }
        drop(maps);
        over = left.is_zero();
        thread::sleep(if over { PATIENCE } else { left.min(LOOK_INTERVAL) });
    }
}

fn say(text: &str) -> Result<Code, CliError> {
    writeln!(Terminal::stdout(), "{text}").map_err(CliError::Output)?;
    Ok(Code::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_pause_may_last_is_said_where_it_is_too_long_or_too_short() {
        assert_eq!(parse("10m").unwrap(), Duration::from_mins(10));
        assert_eq!(parse("1day").unwrap(), Pause::LONGEST);
        for (text, told) in [
            ("25h", "pause 25h: longer than a day; ctguard set dry-run=on lasts"),
            ("20ms", "pause 20ms: shorter than a second"),
            ("0s", "pause 0s: it must not be zero"),
            ("ten", "pause ten: "),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.sentence().starts_with(told), "{}", error.sentence());
            assert_eq!(error.code(), Code::Usage);
        }
    }
}
