//! Legitimate traffic: real sockets on both sides of the router, and how their users fare.
//!
//! Order of a run: servers listen, established exchanges open, then new flows start at a steady
//! rate, at first of clients that are known and in the flood of strangers as well, answers from the far side are counted all the while, and at last the established
//! exchanges are asked whether they lived.

mod answers;
mod clients;
mod day;
mod established;
mod groups;
mod held;
mod office;
mod servers;

use std::{
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{addresses::Family, netns::Handle, router::Network};

use held::Held;

pub use answers::Answers;
pub use clients::{Flow, FlowKind, Outcome, PATIENCE};
pub use day::Day;

/// Flows and exchanges that were asked in the end have had their time after so long.
pub const ENDS_IN: Duration =
    Duration::from_secs(PATIENCE.as_secs() + 2 * established::BROKEN_AFTER.as_secs());
pub use established::Exchanges;
pub use groups::{Group, SOURCES, regulars};

/// Established exchanges that the load holds open, both sides and the held connections of known
/// clients together.
pub const ESTABLISHED: u32 =
    2 * (established::TCP_EXCHANGES + established::UDP_EXCHANGES) + held::CONNECTIONS;

/// Flows from inside whose answers are counted.
pub const ANSWERED: u32 = answers::FLOWS as u32;

/// How long a side may take for what needs no waiting.
const SOON: Duration = Duration::from_secs(15);

/// How many new flows start, and when.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// The first flows start here; times of flows count from it.
    pub zero: Instant,
    /// For so long new flows start.
    pub lasts: Duration,
    /// When the flood begins and ends, from `zero`; where none is, the same time of a flood.
    pub flood: (Duration, Duration),
    /// New flows a second of the far clients.
    pub per_second: f64,
    /// Those of a single inside client, which then is alone.
    pub neighbour: Option<f64>,
    /// Some of the known clients are regulars, and all hold a connection.
    pub favours: bool,
    /// What else a calm day brings.
    pub day: Option<Day>,
}

impl Schedule {
    fn inside_per_second(&self) -> f64 {
        self.neighbour.unwrap_or(self.per_second * INSIDE_SHARE)
    }
}

/// What is open before new flows start.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// Known clients hold a connection each.
    pub favours: bool,
    /// Connections of an office; none if there is none.
    pub office: u32,
}

/// The inside opens so many flows for each one of the far side.
pub const INSIDE_SHARE: f64 = 0.2;

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
    /// Answers to flows from inside.
    pub answers: Answers,
    /// The connections of an office.
    pub office: Exchanges,
}

impl Load {
    /// Starts all servers, then opens the established exchanges.
    pub fn open(network: &Network, family: Family, opening: Opening) -> Result<Self> {
        let sites = vec![
            Site::start(&network.far, Side::Far, family)?,
            Site::start(&network.inside, Side::Inside, family)?,
        ];
        let load = Self { sites };
        load.answered("start its servers", SOON)?;
        load.command(|| Command::Open(opening))?;
        load.answered("open its established exchanges", SOON + office::opens_in(opening.office))?;
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
            fared.office.add(ended.office);
            fared.answers.add(ended.answers);
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
    Open(Opening),
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
    let (served, serving) = match serve(side, family).await {
        Ok(served) => (served, Ok(())),
        Err(error) => (None, Err(error)),
    };
    // Nobody hears an answer when the run was given up; then the orders end too.
    let _ = answer.send(serving);
    while let Some(order) = orders.recv().await {
        let done = match order {
            Command::Open(opening) => {
                open(side, family, opening).await.map(|open| exchanges = Some(open))
            }
            Command::Load(schedule) => {
                let asked = async {
                    match side {
                        Side::Far => Ok(Answers::default()),
                        Side::Inside => answers::ask(family, schedule).await,
                    }
                };
                let day = async {
                    match schedule.day {
                        Some(day) if side == Side::Far => day::live(day, family, schedule).await,
                        Some(_) | None => Ok((Vec::new(), Exchanges::default())),
                    }
                };
                let usual = clients::load(side, family, schedule);
                let (flows, asked, day) = tokio::join!(usual, asked, day);
                if let Some((open, held, office)) = exchanges.take() {
                    fared.established = open.close().await;
                    if let Some(held) = held {
                        fared.established.add(held.close().await);
                    }
                    if let Some(office) = office {
                        fared.office = office.close().await;
                    }
                }
                flows.and_then(|flows| {
                    (fared.flows, fared.answers) = (flows, asked?);
                    let (flows, kept) = day?;
                    fared.flows.extend(flows);
                    fared.office.add(kept);
                    Ok(())
                })
            }
        };
        let _ = answer.send(done);
    }
    // The orders end when both sides have had their answers.
    if let Some(served) = served {
        fared.answers.add(served.count()?);
    }
    Ok(fared)
}

/// Opens the established exchanges of a side, and on the far one what known clients hold and an
/// office.
async fn open(
    side: Side,
    family: Family,
    opening: Opening,
) -> Result<(established::Open, Option<Held>, Option<established::Open>)> {
    let exchanges = established::open(side, family).await?;
    if side == Side::Inside {
        return Ok((exchanges, None, None));
    }
    let held = if opening.favours { Some(held::open(family).await?) } else { None };
    let office =
        if opening.office > 0 { Some(office::open(family, opening.office).await?) } else { None };
    Ok((exchanges, held, office))
}

/// Starts the servers of a side; those that count their answers are on the far one.
async fn serve(side: Side, family: Family) -> Result<Option<answers::Served>> {
    servers::serve(side, family).await?;
    match side {
        Side::Far => answers::serve(family).await.map(Some),
        Side::Inside => Ok(None),
    }
}
