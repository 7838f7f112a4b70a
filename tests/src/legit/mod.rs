//! Legitimate traffic: real sockets on both sides of the router, and how their users fare.
//!
//! Order of a run: servers listen, established exchanges open, then new flows start at a steady
//! rate, are waited for, and the established ones are asked whether they lived.

mod clients;
mod established;
mod servers;

use std::{
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{addresses::Family, netns::Handle, router::Network};

pub use clients::{Flow, FlowKind, Outcome, PATIENCE};
pub use established::Exchanges;

/// Established exchanges that the load holds open, both sides together.
pub const ESTABLISHED: u32 = 2 * (established::TCP_EXCHANGES + established::UDP_EXCHANGES);

/// How long a side may take for what needs no waiting.
const SOON: Duration = Duration::from_secs(15);

/// How many new flows start, and when.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// The first flows start here; times of flows count from it.
    pub zero: Instant,
    /// For so long new flows start.
    pub lasts: Duration,
    /// New flows a second, both sides together.
    pub per_second: f64,
}

/// Where a client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Far,
    Inside,
}

/// The load of both sides, its established exchanges open.
#[derive(Debug)]
pub struct Load {
    sites: Vec<Site>,
}

/// What became of the load.
#[derive(Debug, Default)]
pub struct Fared {
    /// Every new flow.
    pub flows: Vec<Flow>,
    /// The established exchanges.
    pub established: Exchanges,
}

impl Load {
    /// Starts all servers, then opens the established exchanges.
    pub fn open(network: &Network, family: Family) -> Result<Self> {
        let sites = vec![
            Site::start(&network.far, Side::Far, family)?,
            Site::start(&network.inside, Side::Inside, family)?,
        ];
        let load = Self { sites };
        load.answered("start its servers", SOON)?;
        load.command(|| Command::Open)?;
        load.answered("open its established exchanges", SOON)?;
        Ok(load)
    }

    /// Lets new flows start by the schedule; returns at once.
    pub fn start(&self, schedule: Schedule) -> Result<()> {
        self.command(|| Command::Load(schedule))
    }

    /// Waits until the last flow has succeeded or failed, at most `patience`.
    pub fn finish(self, patience: Duration) -> Result<Fared> {
        self.answered("end its flows", patience)?;
        let mut fared = Fared::default();
        for Site { commands, thread, .. } in self.sites {
            drop(commands);
            let ended = thread.join().map_err(|_| anyhow!("a thread of the load panicked"))??;
            fared.flows.extend(ended.flows);
            fared.established.add(ended.established);
        }
        Ok(fared)
    }

    fn command(&self, command: impl Fn() -> Command) -> Result<()> {
        for site in &self.sites {
            site.commands.send(command()).ok().context("a side of the load has ended early")?;
        }
        Ok(())
    }

    fn answered(&self, what: &str, patience: Duration) -> Result<()> {
        for site in &self.sites {
            match site.answers.recv_timeout(patience) {
                Ok(answer) => answer.with_context(|| format!("the load cannot {what}"))?,
                Err(_) => bail!("the load did not {what} within {patience:?}"),
            }
        }
        Ok(())
    }
}

enum Command {
    Open,
    Load(Schedule),
}

/// One side's thread: it serves until the sender of its commands is dropped.
#[derive(Debug)]
struct Site {
    commands: UnboundedSender<Command>,
    answers: mpsc::Receiver<Result<()>>,
    thread: JoinHandle<Result<Fared>>,
}

impl Site {
    fn start(namespace: &Handle, side: Side, family: Family) -> Result<Self> {
        let (commands, orders) = unbounded_channel();
        let (answer, answers) = mpsc::channel();
        let name = match side {
            Side::Far => "lab-far",
            Side::Inside => "lab-inside",
        };
        let thread = namespace.spawn(name, move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("cannot start the load's runtime")?;
            runtime.block_on(live(side, family, orders, answer))
        })?;
        Ok(Self { commands, answers, thread })
    }
}

async fn live(
    side: Side,
    family: Family,
    mut orders: UnboundedReceiver<Command>,
    answer: mpsc::Sender<Result<()>>,
) -> Result<Fared> {
    let mut fared = Fared::default();
    let mut exchanges = None;
    // Nobody hears an answer when the run was given up; then the orders end too.
    let _ = answer.send(servers::serve(side, family).await);
    while let Some(order) = orders.recv().await {
        let done = match order {
            Command::Open => {
                established::open(side, family).await.map(|open| exchanges = Some(open))
            }
            Command::Load(schedule) => {
                let flows = clients::load(side, family, schedule).await;
                if let Some(open) = exchanges.take() {
                    fared.established = open.close().await;
                }
                flows.map(|flows| fared.flows = flows)
            }
        };
        let _ = answer.send(done);
    }
    Ok(fared)
}
