//! `ctguard run`: load, attach, and steer until told to stop.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use log::{info, warn};
use sd_notify::NotifyState;

use super::{CliError, Code, Context, context::require_privileges, logging};
use crate::daemon::{Guard, MainLoop, StartOptions, dismantle};
use ctguard_kernel::{
    bpf::{DetectionChoice, ModeChoice},
    conntrack::Table,
};
use ctguard_settings::{Assignment, Value};

/// Guard interfaces until Ctrl-C (SIGINT) or SIGTERM
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctguard run -i wan0\n  \
    ctguard run -i wan0 -i lan0 --set target=80% --set interface.lan0.source.tcp.rate=500/s\n  \
    ctguard run -i wan0 --on-exit keep")]
pub(super) struct RunArgs {
    /// Interface to guard; repeat it for more
    #[arg(short, long = "interface", required = true, value_name = "IF")]
    interfaces: Vec<String>,
    /// Where the XDP program runs
    #[arg(long, value_name = "MODE", default_value = "auto")]
    mode: ModeArg,
    /// How to distinguish new flows from known ones
    #[arg(long, value_name = "METHOD", default_value = "auto")]
    new_flow_detection: DetectionArg,
    /// What happens to the guard when the daemon ends
    #[arg(long, value_name = "ACTION", default_value = "detach")]
    on_exit: OnExit,
    /// Setting to start with (see `ctguard set --help`); repeat it for more
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    /// Directory where the daemon keeps the list of regular sources across restarts
    #[arg(long, default_value = "/var/lib/ctguard", value_name = "DIR")]
    state: PathBuf,
    /// Print some of the program's decisions, a few per second
    #[arg(long)]
    trace: bool,
    /// Watch leaving packets with a clsact filter, as on kernels before 6.6
    #[arg(long, hide = true)]
    egress_filter: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    /// In the driver if it supports XDP, else in the network stack
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
    let main_loop = MainLoop::prepare().map_err(CliError::cannot("start the main loop"))?;
    let (mut guard, waits) = main_loop.start(&StartOptions {
        pins: context.pins.clone(),
        interfaces: args.interfaces.clone(),
        mode: match args.mode {
            ModeArg::Auto => ModeChoice::Auto,
            ModeArg::Native => ModeChoice::Native,
            ModeArg::Generic => ModeChoice::Generic,
        },
        detection: match args.new_flow_detection {
            DetectionArg::Auto => DetectionChoice::Auto,
            DetectionArg::Conntrack => DetectionChoice::Conntrack,
            DetectionArg::FlowCache => DetectionChoice::FlowCache,
        },
        assignments,
        trace: args.trace,
        egress_by_filter: args.egress_filter,
        state: Some(args.state.clone()),
    })?;
    announce(&guard);
    let ended = main_loop.run(&mut guard, waits);
    leave(guard, args.on_exit)?;
    ended.map(|()| Code::Done).map_err(CliError::Daemon)
}

fn leave(guard: Guard, on_exit: OnExit) -> Result<(), CliError> {
    let Guard { pins, lock, programs, maps, .. } = guard;
    drop((programs, maps));
    if on_exit == OnExit::Keep {
        info!("the program goes on with the fallback rate; to remove it: ctguard detach");
        return Ok(());
    }
    let done = dismantle(&pins).map_err(CliError::cannot("remove the guard"));
    lock.remove();
    done
}

/// Says that the guard holds, to people and to systemd.
fn announce(guard: &Guard) {
    let interfaces = guard.interfaces.iter();
    let interfaces = interfaces.map(|it| format!("{} ({})", it.name, it.mode.name()));
    let interfaces: Vec<_> = interfaces.collect();
    let target = Value::Ratio(guard.maps.policy().target_ppm);
    info!("guarding {}, {}, target {target}", interfaces.join(", "), describe(&guard.table));
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
