//! `ctguard enforce`: end the dry run, with open eyes.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use ctguard_control::sources::SourceScope;
use ctguard_layout::Policy;

use super::{
    CliError, Code, Context, in_use::configuration_in_use, operator, save, set, status, why,
};
use crate::{
    holders::AboveLimit,
    plural::packets,
    report::{CounterReport, StatusReport, above_lines, above_text, pause_text},
    terminal::{Terminal, complain},
};
use ctguard_kernel::{
    lock,
    maps::{Entry, GuardMaps, ListKind},
};
use ctguard_settings::Assignment;

/// End the dry run: refuse what is above a limit from now on
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctguard enforce           show whom it would hit, then ask\n  \
    ctguard enforce --yes     do not ask\n\n\
    It refuses while your own SSH source would be cut off. If the configuration asks for a dry run, it\n\
    also writes dry-run = false into conf.d/90-saved.toml beside it, so that the next start and the\n\
    next reload enforce too. `ctguard set dry-run=on` and `ctguard save` undo it."
)]
pub(super) struct EnforceArgs {
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Configuration [default: the daemon's, or /etc/ctguard/ctguard.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &EnforceArgs, context: &Context) -> Result<Code, CliError> {
    let mut maps = context.maps()?;
    if !args.yes && !io::stdin().is_terminal() {
        return Err(CliError::NobodyToAsk);
    }
    let report = status::read(context, &maps)?;
    if !maps.settings().policy.has(Policy::DRY_RUN) {
        say(&format!("there is no dry run{}", pause_note(&report)))?;
        return Ok(Code::Done);
    }
    spare_the_operator(&maps, &report, context)?;
    summary(&report).iter().try_for_each(|line| say(line))?;
    if !args.yes && !confirm()? {
        complain(format_args!("nothing was changed"));
        return Ok(Code::No);
    }
    let assignment: Assignment = "dry-run=off".parse()?;
    let (changes, _) = set::apply(std::slice::from_ref(&assignment), &mut maps, context)?;
    changes.iter().try_for_each(|change| say(&change.to_string()))?;
    let file = args.config.clone().or_else(|| configuration_in_use(context));
    if let Some(path) = save::keep(file.as_deref(), &assignment)? {
        complain(format_args!("written to {}", path.display()));
    }
    warn_of_command_line(context);
    say(&format!("limits are in force{}", pause_note(&report)))?;
    Ok(Code::Done)
}

fn pause_note(report: &StatusReport) -> String {
    let pause = report.pause.as_ref();
    pause.map_or_else(String::new, |pause| {
        format!("; the guard is {}, which `ctguard pause --end` ends", pause_text(pause))
    })
}

/// Whom the limits would have refused since the guard was loaded, and whom they would refuse now.
fn summary(report: &StatusReport) -> Vec<String> {
    let mut lines = counted_lines(&report.counters);
    let above = report.holders.iter();
    lines.extend(above.flat_map(|holders| above_lines(&holders.above_limits, true)));
    lines
}

fn counted_lines(counters: &CounterReport) -> Vec<String> {
    let mut lines = Vec::new();
    let denied = counters.denied_packets();
    for (class, counters) in counters.classes.iter() {
        let refused = counters.refused_flows();
        if refused > 0 {
            let seen = counters.seen;
            lines.push(format!("{class}: {refused} of {seen} new flows would have been refused"));
        }
        if counters.challenged > 0 {
            lines.push(format!(
                "{class}: {} new flows would have been challenged: a client gets in when it answers, or \
                 comes again",
                counters.challenged
            ));
        }
    }
    if lines.is_empty() {
        lines.push(
            "no new flow would have been refused or challenged since the guard was loaded"
                .to_owned(),
        );
    }
    if denied > 0 {
        lines.push(format!("the deny list would have dropped {}", packets(denied)));
    }
    lines
}

/// # Errors
/// If the operator's own connection comes from a source that would be refused.
fn spare_the_operator(
    maps: &GuardMaps,
    report: &StatusReport,
    context: &Context,
) -> Result<(), CliError> {
    let (now, _) = context.now(maps)?;
    let lists = [maps.lists.entries(ListKind::Allow)?, maps.lists.entries(ListKind::Deny)?];
    let lists = lists.map(|mut list| {
        list.retain(|entry| entry.is_live(now.0));
        list
    });
    let above = report.holders.as_ref().map_or(&[][..], |holders| &holders.above_limits);
    for client in operator::clients() {
        if let Some((why, mend)) = why_cut_off(client, &lists, above) {
            return Err(CliError::CutOff { client, why, mend });
        }
        if let Some(verdict) = why::refusal_of_syn(client, maps, now)? {
            let (why, mend) =
                (format!("its next SYN is {verdict}"), format!("ctguard allow add {client}"));
            return Err(CliError::CutOff { client, why, mend });
        }
    }
    Ok(())
}

/// What would refuse the client, and the command that mends it. The deny list comes before the allow
/// list, as in the data path.
fn why_cut_off(
    client: IpAddr,
    [allow, deny]: &[Vec<Entry>; 2],
    above: &[AboveLimit],
) -> Option<(String, String)> {
    let in_list = |list: &[Entry]| {
        let holds = list.iter().filter(|entry| entry.prefix.contains(&client));
        holds.max_by_key(|entry| entry.prefix.prefix_len()).map(|entry| entry.prefix)
    };
    if let Some(prefix) = in_list(deny) {
        let why = format!("the deny list has {prefix}");
        return Some((why, format!("ctguard deny del {prefix}")));
    }
    if in_list(allow).is_some() {
        return None;
    }
    let source = SourceScope::from(client);
    let own = above.iter().find(|above| above.source.parse() == Ok(source))?;
    Some((above_text(own, true), format!("ctguard allow add {client}")))
}

fn confirm() -> Result<bool, CliError> {
    let mut out = Terminal::stdout();
    write!(out, "Enforce the limits now? [y/N] ")
        .and_then(|()| out.flush())
        .map_err(CliError::Output)?;
    drop(out);
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(CliError::cannot("read the answer"))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// What the command line says goes before all files.
fn warn_of_command_line(context: &Context) {
    let daemon = lock::daemon_of(context.pins.path()).and_then(|daemon| daemon.pid);
    let words = daemon.and_then(|pid| {
        std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).ok()
    });
    let words = words.unwrap_or_default();
    if String::from_utf8_lossy(&words).split('\0').any(|word| word.contains("dry-run=")) {
        complain(format_args!(
            "warning: the daemon was started with --set dry-run, so a reload or restart of it brings the \
             dry run back"
        ));
    }
}

fn say(text: &str) -> Result<(), CliError> {
    writeln!(Terminal::stdout(), "{text}").map_err(CliError::Output)
}

#[cfg(test)]
mod tests {
    use ctguard_layout::{Class, Counter, Outcome};

    use super::*;

    fn listed(prefix: &str) -> Vec<Entry> {
        vec![Entry { prefix: prefix.parse().unwrap(), expires_at: 0 }]
    }

    fn above(source: &str) -> AboveLimit {
        AboveLimit {
            source: source.to_owned(),
            class: "tcp".to_owned(),
            flows_per_second: 150.0,
            refused_per_second: 100.0,
            limit: "ceiling".to_owned(),
            limit_per_second: 50.0,
            burst: 200.0,
        }
    }

    /// Fails when more flows are said to be refused than were seen.
    #[test]
    fn packets_of_denied_sources_are_not_counted_among_refused_flows() {
        let lines = |counted: &[(Outcome, Class, u64)]| {
            counted_lines(&CounterReport::by(|counter| {
                let of =
                    |(outcome, class, _): &&(_, _, _)| counter == Counter::Flows(*outcome, *class);
                counted.iter().filter(of).map(|(_, _, number)| number).sum()
            }))
        };
        assert_eq!(
            lines(&[(Outcome::Denied, Class::Other, 5)]),
            [
                "no new flow would have been refused or challenged since the guard was loaded",
                "the deny list would have dropped 5 packets"
            ]
        );
        assert_eq!(
            lines(&[
                (Outcome::Admitted, Class::Tcp, 3),
                (Outcome::RefusedSource, Class::Tcp, 2),
                (Outcome::Denied, Class::Tcp, 7),
                (Outcome::Denied, Class::Other, 5),
            ]),
            [
                "tcp: 2 of 5 new flows would have been refused",
                "the deny list would have dropped 12 packets"
            ]
        );
    }

    #[test]
    fn the_deny_list_cuts_off_whom_the_allow_list_has() {
        let lists = [listed("192.0.2.0/24"), listed("192.0.2.7/32")];
        let (why, mend) = why_cut_off("192.0.2.7".parse().unwrap(), &lists, &[]).unwrap();
        assert_eq!(why, "the deny list has 192.0.2.7/32");
        assert_eq!(mend, "ctguard deny del 192.0.2.7/32");
        assert_eq!(why_cut_off("192.0.2.8".parse().unwrap(), &lists, &[]), None);
    }

    #[test]
    fn a_source_above_its_limit_is_cut_off_unless_it_is_allowed() {
        let client = "2001:db8:7:1::9".parse().unwrap();
        let others = [above("198.51.100.7"), above("2001:db8:7:2::/64")];
        let none = [Vec::new(), Vec::new()];
        assert_eq!(why_cut_off(client, &none, &others), None);
        let own = [above("2001:db8:7:1::/64")];
        let (why, mend) = why_cut_off(client, &none, &own).unwrap();
        assert!(why.ends_with("its ceiling of 50/s would refuse 100/s"), "{why}");
        assert_eq!(mend, "ctguard allow add 2001:db8:7:1::9");
        assert_eq!(why_cut_off(client, &[listed("2001:db8::/32"), Vec::new()], &own), None);
    }
}
