//! `ctguard config`: check, show and compare the configuration.

use std::{
    collections::BTreeSet,
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use ctguard_kernel::{
    lock,
    maps::{Entry, ListKind},
    net::{self, Refusal, Resolved, lacks_members, resolve},
};
use ctguard_settings::{Settings, StartKey, Takes, default_file};

use super::{
    CliError, Code, Context,
    in_use::{configuration_in_use, state_in_use},
};
use crate::{
    config::{Config, DEFAULT_PATH, Origin, in_toml_array},
    daemon::{Configuration, feed_changes, waiting_changes},
    feeds::feeds_status,
    foreign::{Foreign, unused},
    interfaces::{Interfaces, Plan, interfaces_of_daemon, memberless},
    terminal::{Terminal, complain},
};

const EXAMPLES: &str = "\
Examples:
  ctguard config default > /etc/ctguard/ctguard.toml
  ctguard config check
  ctguard config show --origin
  ctguard config diff             what would `ctguard reload` change?";

/// Check, show and compare the configuration
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    action: ConfigAction,
}

#[derive(Debug, Subcommand)]
enum ConfigAction {
    /// Say whether the files can be used; exit status 78 if not
    Check(FileArg),
    /// Show what the files and the defaults say
    Show {
        #[command(flatten)]
        file: FileArg,
        /// Also show where each value comes from
        #[arg(long)]
        origin: bool,
    },
    /// Show what a reload would change; exit status 1 if anything
    Diff {
        #[command(flatten)]
        file: FileArg,
        /// Directory where the daemon keeps what is in force [default: the running daemon's,
        /// or /var/lib/ctguard]
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
    },
    /// Print a configuration with every key, its default and its meaning
    Default,
}

#[derive(Args, Debug)]
struct FileArg {
    /// File to read, with conf.d/*.toml beside it [default: /etc/ctguard/ctguard.toml; for diff, what the
    /// daemon reads]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

impl FileArg {
    /// What the files say, and what they do to the settings of the interfaces that they name.
    fn read(&self) -> Result<(Config, Settings), CliError> {
        let config = Config::read(self.file.as_deref())?;
        if !config.is_there() {
            let path = self.file.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
            complain(format_args!("there is no {}; all is default", path.display()));
        }
        let settings = config.settings(&[])?;
        Ok((config, settings))
    }
}

pub(super) fn run(args: &ConfigArgs, context: &Context) -> Result<Code, CliError> {
    match &args.action {
        ConfigAction::Check(file) => check(file, context),
        ConfigAction::Show { file, origin } => show(file, *origin),
        ConfigAction::Diff { file, state } => diff(file, state.as_deref(), context),
        ConfigAction::Default => {
            print(&default_file().lines().map(str::to_owned).collect::<Vec<_>>())
        }
    }
}

/// Judges the names as a reload does, or a start where no daemon runs.
fn check(file: &FileArg, context: &Context) -> Result<Code, CliError> {
    let (config, settings) = file.read()?;
    if config.interfaces().is_empty() {
        complain(format_args!("warning: no interface is named, so a start needs -i"));
    }
    let links = net::links().map_err(CliError::cannot("read the interfaces"))?;
    let names = config.interfaces();
    let daemon = lock::daemon_of(context.pins.path()).and_then(|_| interfaces_of_daemon());
    let refusal = if let Some(daemon) = daemon {
        Plan::new(&links, &daemon, names).err()
    } else {
        Plan::of_start(&links, names, |_| false).refusal_of_start(false, false).cloned()
    };
    if let Some(refusal) = refusal {
        return Err(config.refused(refusal).into());
    }
    let mut absent = Vec::new();
    for name in config.interfaces() {
        let refusal = match resolve(&links, name) {
            Ok(Resolved { link, .. }) => {
                let is_own = settings.interfaces.iter().any(|own| own.name == *name);
                if !is_own && config.has_settings_of(name) {
                    complain(format_args!("warning: {}", unused(name, &link.name)));
                }
                if lacks_members(&links, &link) {
                    let memberless = memberless(&link.name);
                    complain(format_args!("warning: {memberless}; a start waits for one"));
                }
                continue;
            }
            Err(refusal) => refusal,
        };
        absent.push(name.clone());
        let is_missing = matches!(refusal, Refusal::Unknown { .. });
        let waits = if is_missing {
            "a start waits for it to appear"
        } else {
            "the daemon waits until it can be guarded"
        };
        complain(format_args!("warning: {refusal}; {waits}"));
    }
    if !absent.is_empty() {
        let guarded: Vec<_> = settings.interfaces.iter().map(|own| &own.name[..]).collect();
        for passed_over in config.passed_over(&guarded, &absent) {
            complain(format_args!("warning: {passed_over}"));
        }
    }
    let files = config.files.iter().map(|file| format!("{}: can be used", file.display()));
    print(&files.collect::<Vec<_>>())
}

fn show(file: &FileArg, with_origin: bool) -> Result<Code, CliError> {
    let (config, settings) = file.read()?;
    let mut lines = Vec::new();
    let mut say = |key: &str, value: &str, origin: Option<&Origin>| {
        let origin = origin.map_or_else(|| "default".to_owned(), ToString::to_string);
        let origin = if with_origin { format!("  ({origin})") } else { String::new() };
        lines.push(format!("{key} {value}{origin}"));
    };
    for key in StartKey::ALL {
        match key.takes() {
            Takes::Names => {
                let names = config.interfaces();
                let names = if names.is_empty() { "none".to_owned() } else { names.join(" ") };
                say(key.name(), &names, config.start_origin(key));
            }
            Takes::Word(words) => {
                let word = config.word(key).or(words.first().copied()).unwrap_or_default();
                say(key.name(), word, config.start_origin(key));
            }
            Takes::Command => {
                let hook = config.hook();
                let shown = if hook.is_empty() { "none".to_owned() } else { in_toml_array(hook) };
                say(key.name(), &shown, config.start_origin(key));
            }
            Takes::Prefixes => {
                let kind = if key == StartKey::Deny { ListKind::Deny } else { ListKind::Allow };
                for (prefix, origin) in config.list(kind) {
                    say(key.name(), &prefix.to_string(), Some(origin));
                }
            }
        }
    }
    for (name, text, origin) in config.feed_settings() {
        say(&name, text, Some(origin));
    }
    for key in settings.keys() {
        let value = settings.get(&key)?;
        say(&key.to_string(), &value.to_string(), config.origin(&key));
    }
    print(&lines)
}

fn diff(file: &FileArg, state: Option<&Path>, context: &Context) -> Result<Code, CliError> {
    let file = file.file.clone().or_else(|| configuration_in_use(context));
    let (config, settings) = FileArg { file }.read()?;
    let maps = context.maps()?;
    let running = maps.settings();
    let mut lines = Vec::new();
    let guarded: Vec<_> = running.interfaces.iter().map(|own| &own.name[..]).collect();
    let daemon = lock::daemon_of(context.pins.path()).and_then(|_| interfaces_of_daemon());
    let next = if config.interfaces().is_empty() {
        let mut next = Settings::of_new_guard(guarded);
        let Interfaces { held, waiting } = daemon.unwrap_or_default();
        let named: Vec<_> = held.into_iter().flat_map(|it| it.names).collect();
        config.apply_to(&mut next, Foreign::of(&named, !waiting.is_empty()))?;
        next
    } else if let Some(daemon) = daemon {
        let there = net::links().map_err(CliError::cannot("read the interfaces"))?;
        let plan = match Plan::new(&there, &daemon, config.interfaces()) {
            Ok(plan) => plan,
            Err(refusal) => {
                complain(format_args!("a reload would be refused: {refusal}"));
                return Ok(Code::No);
            }
        };
        lines.extend(plan.added.iter().map(|link| format!("guarding {}", link.name)));
        let gone = plan.leaving(&daemon.held);
        lines.extend(gone.map(|it| format!("no longer guarding {}", it.name)));
        lines.extend(waiting_changes(&daemon.waiting, &plan, config.interfaces()));
        let mut next =
            plan.settings(&daemon.held, |it| maps.interface_settings(it.ifindex, &it.name));
        config.apply_to(&mut next, Foreign::of(&[], plan.is_unsure()))?;
        next.interfaces.retain(|own| !plan.absent.contains(&own.name));
        next
    } else {
        let wanted: Vec<_> = settings.interfaces.iter().map(|own| &own.name[..]).collect();
        let new = wanted.iter().filter(|name| !guarded.contains(name));
        lines.extend(new.map(|name| format!("guarding {name}")));
        let gone = guarded.iter().filter(|name| !wanted.contains(name));
        lines.extend(gone.map(|name| format!("no longer guarding {name}")));
        settings
    };
    lines.extend(running.changes_to(&next).iter().map(ToString::to_string));
    let former = Configuration::last_good(&state_in_use(state, context)).unwrap_or_default();
    for kind in [ListKind::Allow, ListKind::Deny] {
        let entries = maps.lists.entries(kind)?;
        let permanent = entries.iter().filter(|entry| entry.expires_at == 0);
        let there: BTreeSet<_> = permanent.map(|Entry { prefix, .. }| *prefix).collect();
        let new = config.list(kind).keys().filter(|prefix| !there.contains(prefix));
        lines.extend(new.map(|prefix| format!("{} + {prefix}", kind.name())));
        // What commands added stays.
        let gone = former.list(kind).keys().filter(|prefix| there.contains(prefix));
        let gone = gone.filter(|prefix| !config.list(kind).contains_key(prefix));
        lines.extend(gone.map(|prefix| format!("{} - {prefix}", kind.name())));
    }
    let followed = feeds_status().feeds;
    let followed = followed.iter().map(|feed| (&feed.name[..], feed.settings.clone()));
    lines.extend(feed_changes(&followed.collect(), config.feeds()));
    print(&lines)?;
    Ok(if lines.is_empty() { Code::Done } else { Code::No })
}

fn print(lines: &[String]) -> Result<Code, CliError> {
    let mut out = Terminal::stdout();
    lines.iter().try_for_each(|line| writeln!(out, "{line}")).map_err(CliError::Output)?;
    Ok(Code::Done)
}
