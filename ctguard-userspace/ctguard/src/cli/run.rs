//! `ctguard run`: load, attach, and steer until told to stop.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use log::{info, warn};
use sd_notify::NotifyState;

use super::{CliError, Code, Context, context::require_privileges, in_use::DEFAULT_STATE, logging};
use crate::config::Config;
use crate::daemon::{Configuration, Guard, MainLoop, StartOptions, dismantle, note_exempting};
use crate::sentence::sentence;
use ctguard_kernel::{
    bpf::{DetectionChoice, ModeChoice, dies_with_container},
    conntrack::Table,
    net::Stations,
};
use ctguard_layout::Policy;
use ctguard_settings::{Assignment, StartKey, Value};

/// Guard interfaces until Ctrl-C (SIGINT) or SIGTERM
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctguard run -i wan0\n  \
    ctguard run -i wan0 -i lan0 --set target=80% --set interface.lan0.source.tcp.rate=500/s\n  \
    ctguard run -i wan0 --on-exit keep\n  \
    ctguard run                       guard what /etc/ctguard/ctguard.toml names\n\n\
    What the command line says goes before what the configuration says.")]
pub(super) struct RunArgs {
    /// Interface to guard; repeat it for more [default: those of the configuration]
    #[arg(short, long = "interface", value_name = "IF")]
    interfaces: Vec<String>,
    /// Configuration, if not /etc/ctguard/ctguard.toml; conf.d/*.toml beside it is read too
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Where the XDP program runs [default: auto]
    #[arg(long, value_name = "MODE")]
    mode: Option<ModeArg>,
    /// How to distinguish new flows from known ones [default: auto]
    #[arg(long, value_name = "METHOD")]
    new_flow_detection: Option<DetectionArg>,
    /// What happens to the guard when the daemon ends [default: detach]
    #[arg(long, value_name = "ACTION")]
    on_exit: Option<OnExit>,
    /// Setting to start with (see `ctguard set --help`); repeat it for more
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    /// Directory where the daemon keeps regular sources and the lists across reboots
    #[arg(long, default_value = DEFAULT_STATE, value_name = "DIR")]
    pub(super) state: PathBuf,
    /// Print some of the program's decisions, a few per second
    #[arg(long)]
    trace: bool,
    /// Watch leaving packets with a clsact filter, as on kernels before 6.6
    #[arg(long, hide = true)]
    egress_filter: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    /// In the driver if it supports XDP, else, and on a veth, in the network stack
    Auto,
    /// In the driver, or fail
    Native,
    /// In the network stack: works everywhere, but slower
    Generic,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DetectionArg {
    /// Ask conntrack if the kernel supports it, else use the flow cache
    Auto,
    /// Ask conntrack (Linux 5.18 or newer), or fail
    Conntrack,
    /// Use the flow cache only
    FlowCache,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnExit {
    /// Remove the guard
    Detach,
    /// Leave the program attached; it then admits new flows at the fallback rate
    Keep,
}

pub(super) fn run(args: &RunArgs, context: &Context) -> Result<Code, CliError> {
    let assignments =
        args.assignments.iter().map(|text| text.parse()).collect::<Result<Vec<Assignment>, _>>()?;
    require_privileges()?;
    logging::start(args.trace).map_err(CliError::cannot("start the main loop"))?;
    let read = Config::read(args.config.as_deref());
    let config = read.and_then(|config| config.settings(&args.interfaces).map(|_| config));
    let config = config.or_else(|error| {
        // A name that is mistyped says nothing about the file that was used last.
        if args.config.as_ref().is_some_and(|named| error.is_missing(named)) {
            return Err(error);
        }
        let last_good = Configuration::last_good_of(args.config.as_deref(), &args.state);
        if last_good.is_some() {
            warn!("using the configuration that was in force last: {}", sentence(&error));
        }
        last_good.ok_or(error)
    })?;
    let mode = chosen(args.mode, &config, StartKey::Mode, ModeArg::Auto);
    let detection =
        chosen(args.new_flow_detection, &config, StartKey::NewFlowDetection, DetectionArg::Auto);
    let on_exit = chosen(args.on_exit, &config, StartKey::OnExit, OnExit::Detach);
    let main_loop = MainLoop::prepare().map_err(CliError::cannot("start the main loop"))?;
    let (mut guard, waits) = main_loop.start(&StartOptions {
        pins: context.pins.clone(),
        interfaces: args.interfaces.clone(),
        file: args.config.clone(),
        config,
        mode: match mode {
            ModeArg::Auto => ModeChoice::Auto,
            ModeArg::Native => ModeChoice::Native,
            ModeArg::Generic => ModeChoice::Generic,
        },
        detection: match detection {
            DetectionArg::Auto => DetectionChoice::Auto,
            DetectionArg::Conntrack => DetectionChoice::Conntrack,
            DetectionArg::FlowCache => DetectionChoice::FlowCache,
        },
        assignments,
        decided: decided(args),
        trace: args.trace,
        egress_by_filter: args.egress_filter,
        state: Some(args.state.clone()),
    })?;
    if dies_with_container() {
        warn!(
            "this is a container: its end removes the pinned guard as well, and nothing is guarded until the \
             next start; to keep it, run ctguard on the host"
        );
    }
    note_exempting(&guard, guard.around.exempting.as_deref());
    announce(&guard);
    let ended = main_loop.run(&mut guard, waits);
    leave(guard, on_exit)?;
    ended.map(|()| Code::Done).map_err(CliError::Daemon)
}

fn decided(args: &RunArgs) -> Vec<StartKey> {
    let keys = [
        (StartKey::Mode, args.mode.is_some()),
        (StartKey::NewFlowDetection, args.new_flow_detection.is_some()),
        (StartKey::OnExit, args.on_exit.is_some()),
    ];
    keys.into_iter().filter_map(|(key, is_decided)| is_decided.then_some(key)).collect()
}

/// The command line's choice, or the configuration's, or the default.
fn chosen<T: ValueEnum>(arg: Option<T>, config: &Config, key: StartKey, default: T) -> T {
    let configured = || T::from_str(config.word(key)?, false).ok();
    arg.or_else(configured).unwrap_or(default)
}

fn leave(guard: Guard, on_exit: OnExit) -> Result<(), CliError> {
    let Guard { pins, lock, programs, maps, outside, .. } = guard;
    drop((programs, maps));
    if on_exit == OnExit::Keep {
        info!("the program goes on with the fallback rate; to remove it: ctguard detach");
        return Ok(());
    }
    let done = outside.run(move || dismantle(&pins));
    let done = done.map_err(CliError::cannot("remove the guard"));
    lock.remove();
    done
}

/// Says that the guard holds, to people and to systemd.
fn announce(guard: &Guard) {
    let interfaces = guard.interfaces.iter();
    let interfaces = interfaces.map(|it| format!("{} ({})", it.name, it.mode.name()));
    let interfaces: Vec<_> = interfaces.collect();
    let target = Value::Ratio(guard.maps.policy().target_ppm);
    for interface in guard.interfaces.iter().filter(|it| it.stations != Stations::All) {
        info!("{}: {}", interface.name, interface.stations);
    }
    for link in &guard.around.links {
        let own = guard.interfaces.iter().find(|it| it.ifindex == link.index);
        if own.is_some_and(|own| own.mode.loses_answers(link)) {
            warn!(
                "{name} is a veth in native mode: a challenged client behind it waits until it repeats its \
                 SYN, unless {name}'s peer has an XDP program too; to change it: ctguard detach --stop, then \
                 start with --mode generic",
                name = link.name
            );
        }
    }
    let is_dry = guard.maps.policy().has(Policy::DRY_RUN);
    let dry_run = if is_dry { "; DRY RUN: nothing is dropped" } else { "" };
    let interfaces =
        if interfaces.is_empty() { "nothing yet".to_owned() } else { interfaces.join(", ") };
    let table = describe(&guard.table);
    info!("guarding {interfaces}, {table}, target {target}{dry_run}");
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
        warn!("cannot tell the service manager: {error}");
    }
}

fn describe(table: &Table) -> String {
    if !table.is_there() {
        return "conntrack not loaded yet, so only ceilings apply".to_owned();
    }
    match table.max() {
        Ok(0) => {
            "table without a maximum (nf_conntrack_max is 0), so only ceilings apply".to_owned()
        }
        Ok(max) => format!("table {max}"),
        Err(error) => format!("table unknown ({error})"),
    }
}

#[cfg(test)]
mod tests {
    use ctguard_settings::Takes;

    use super::*;

    #[test]
    fn a_configuration_takes_the_words_of_the_command_line() {
        for (key, args) in [
            (StartKey::Mode, of::<ModeArg>()),
            (StartKey::NewFlowDetection, of::<DetectionArg>()),
            (StartKey::OnExit, of::<OnExit>()),
        ] {
            let Takes::Word(configured) = key.takes() else { panic!("{key:?} takes no word") };
            assert_eq!(configured, args);
        }
    }

    fn of<T: ValueEnum>() -> Vec<String> {
        let values = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        values.map(|value| value.get_name().to_owned()).collect()
    }
}
