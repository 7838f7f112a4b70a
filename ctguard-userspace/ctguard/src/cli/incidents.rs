//! `ctguard incidents`: what happened while a class was not calm.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, builder::RangedU64ValueParser};

use super::{CliError, Code, Context, in_use::state_in_use};
use crate::{
    daemon::incidents_path,
    files::FileError,
    incidents::{Incident, IncidentsReport, MOST, write_incidents},
    terminal::{Terminal, write_json},
};

/// More are too much to read.
const SHOWN: usize = 10;

/// Show floods and other times of pressure: when, how bad, from whom, and what was done
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctguard incidents --last 1\n  \
    ctguard incidents --json | jq '.incidents[-1].peak_fill_ratio'")]
pub(super) struct IncidentsArgs {
    /// Show the newest N incidents [default: 10, and with --json all that are kept]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    last: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Directory where the daemon keeps them [default: the running daemon's, or /var/lib/ctguard]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

pub(super) fn run(args: &IncidentsArgs, context: &Context) -> Result<Code, CliError> {
    let incidents = kept(&state_in_use(args.state.as_deref(), context))?;
    let incidents = newest(&incidents, args.last, args.json);
    let mut out = Terminal::stdout();
    if args.json {
        write_json(&mut out, &IncidentsReport::new(incidents))
    } else {
        write_incidents(incidents, &mut out)
    }
    .map_err(CliError::Output)?;
    Ok(Code::Done)
}

/// Those that the daemon keeps in a state directory, the oldest first.
pub(super) fn kept(state: &Path) -> Result<Vec<Incident>, CliError> {
    let Some(path) = incidents_path(state) else { return Ok(Vec::new()) };
    match fs::read(&path) {
        Ok(bytes) => Ok(serde_json::from_slice::<Vec<Incident>>(&bytes)
            .map_err(|error| FileError::new("read", &path)(error.into()))?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(FileError::new("read", &path)(error).into()),
    }
}

fn newest<T>(all: &[T], last: Option<usize>, is_json: bool) -> &[T] {
    let most = last.unwrap_or(if is_json { MOST } else { SHOWN });
    &all[all.len().saturating_sub(most)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_ten_and_programs_all_unless_they_ask_for_a_number() {
        let all: Vec<_> = (0..MOST).collect();
        assert_eq!(newest(&all, None, false), &all[MOST - SHOWN..]);
        assert_eq!(newest(&all, None, true), all);
        assert_eq!(newest(&all, Some(2), true), [MOST - 2, MOST - 1]);
        assert_eq!(newest(&all[..3], None, false), [0, 1, 2]);
    }
}
