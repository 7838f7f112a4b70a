//! `ctguard metrics`: print metrics for Prometheus, or serve them.

use std::io::Write as _;

use clap::Args;
use tokio::runtime::Builder;

use super::{CliError, Code, Context, context::require_privileges, logging, status};
use crate::{
    metrics::{Format, Listen, serve, write},
    report::StatusReport,
    signals::Stop,
    terminal::Terminal,
};

/// Print metrics for Prometheus, or serve them over HTTP
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctguard metrics --listen 127.0.0.1:9751\n  \
    ctguard metrics --listen unix:/run/ctguard-metrics.sock\n  \
    ctguard metrics > ctguard.prom.new && mv ctguard.prom.new ctguard.prom\n\n\
    docs/metrics.md has all metrics, and packaging/prometheus/ alerts.")]
pub(super) struct MetricsArgs {
    /// Serve them over HTTP at this address, under /metrics, until Ctrl-C
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<Listen>,
    /// Print OpenMetrics instead of the format that Prometheus has had before
    #[arg(long, conflicts_with = "listen")]
    openmetrics: bool,
}

pub(super) fn run(args: &MetricsArgs, context: &Context) -> Result<Code, CliError> {
    let Some(listen) = &args.listen else {
        let format = if args.openmetrics { Format::OpenMetrics } else { Format::Prometheus };
        let text = write(&read(context)?, format);
        // Labels are escaped already.
        let mut out = Terminal::stdout();
        text.lines().try_for_each(|line| writeln!(out, "{line}")).map_err(CliError::Output)?;
        return Ok(Code::Done);
    };
    require_privileges()?;
    logging::start(false).map_err(CliError::cannot("log"))?;
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(CliError::cannot("serve metrics"))?;
    runtime
        .block_on(async {
            let mut stop = Stop::catch()?;
            // Each scrape opens the maps again, because a guard may come and go.
            let context = context.clone();
            serve(listen, &mut stop, move || read(&context).map_err(|it| it.sentence())).await
        })
        .map_err(CliError::cannot("serve metrics"))?;
    Ok(Code::Done)
}

fn read(context: &Context) -> Result<StatusReport, CliError> {
    status::read(context, &context.maps()?)
}
