//! `ctguard events`: what the daemon did, and the numbers that it followed from.

use std::{
    io::{self, Write},
    path::PathBuf,
    thread,
    time::Duration,
};

use clap::Args;

use super::{CliError, Code};
use crate::{
    event_file::EventFile,
    events::Event,
    report::event_text,
    terminal::{Terminal, write_json_line},
};

/// How soon a new event is shown.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Show what the daemon did since the last boot, and why
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctguard events\n  ctguard events --last 0 --follow\n  \
    ctguard events --json | jq 'select(.event == \"stage\") | .fill_ratio'")]
pub(super) struct EventsArgs {
    /// Show the newest N events
    #[arg(long, value_name = "N", default_value_t = 50)]
    last: usize,
    /// Go on printing new events until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Print one JSON object per event
    #[arg(long)]
    json: bool,
    /// Accepted like by other verbs, but events are one file for the network namespace
    #[arg(long, id = "pin_path", hide = true)]
    _pin_path: Option<PathBuf>,
}

pub(super) fn run(args: &EventsArgs) -> Result<Code, CliError> {
    let file =
        EventFile::of_this_namespace().map_err(CliError::cannot("read the network namespace"))?;
    // Who may only read sees what there is.
    let _ = file.settle();
    let (events, mut at) = file.last(args.last)?;
    let mut out = Terminal::stdout();
    if events.is_empty() && args.last > 0 && !args.json && !args.follow {
        writeln!(out, "no events: no guard has run in this network namespace since the last boot")
            .map_err(CliError::Output)?;
    }
    write(&mut out, &events, args.json).map_err(CliError::Output)?;
    if !args.follow {
        return Ok(Code::Done);
    }
    loop {
        thread::sleep(LOOK_INTERVAL);
        write(&mut out, &file.since(&mut at)?, args.json).map_err(CliError::Output)?;
    }
}

fn write(out: &mut impl Write, events: &[Event], json: bool) -> io::Result<()> {
    for event in events {
        if json {
            write_json_line(out, event)?;
        } else {
            writeln!(out, "{} {}", event.time, event_text(&event.what))?;
        }
    }
    out.flush()
}
