//! Real clients: each makes its first contact through a guarded router, without and with a flood.

mod asked;
mod catalogue;
mod contact;
pub mod docs;
mod rack;
mod results;
mod root;

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, anyhow, ensure};

use asked::{Asked, Watch};
pub use catalogue::{Catalogue, Client, Protocol};
use contact::Fate;
use rack::Rack;
use results::Met;
pub use results::Results;
use root::Root;

use crate::{
    exec,
    guard::Orders,
    lab::{self, Signals},
    netns,
    router::WAN,
    sysctl::{self, HostSysctl},
};

/// Entries that the router's table takes, as in the lab.
const TABLE: &str = "16384";
/// Servers as clients address them: the router.
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Between two first contacts of one client, so that none waits for another's CPU.
const APART: Duration = Duration::from_millis(300);

/// What is tried.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Names of clients; all where there are none.
    pub only: Vec<String>,
    /// What they open with.
    pub protocols: Vec<Protocol>,
    /// Packets a second of the flood.
    pub rate: u32,
    /// The root that holds them.
    pub root: PathBuf,
    /// Results, logs.
    pub out: PathBuf,
    /// The `ctguard` to try.
    pub ctguard: PathBuf,
    /// Settings for it.
    pub settings: Vec<String>,
}

/// Lets clients make their first contacts, and returns what they and those of earlier calls met.
pub fn run(trial: &Trial, progress: &(dyn Fn(&str) + Sync)) -> Result<Results> {
    ensure!(rustix::process::geteuid().is_root(), "network namespaces need root");
    exec::require_tools()?;
    let catalogue = Catalogue::read()?;
    let root = Root::at(&trial.root)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let _signals = Signals::register(&interrupted)?;
    let _lock = lab::lock(progress, &interrupted)?;
    netns::remove_orphans();
    sysctl::restore_orphans();
    let _table = HostSysctl::set("net.netfilter.nf_conntrack_max", TABLE)?;
    let _hash = HostSysctl::set("net.netfilter.nf_conntrack_buckets", TABLE)?;

    let path = trial.out.join("results.json");
    let mut results = Results::read(&path)?;
    for &protocol in &trial.protocols {
        let clients = catalogue.clients(&trial.only, &[protocol])?;
        if clients.is_empty() {
            continue;
        }
        // A thread of its own, so that the caller keeps its CPUs.
        let met = thread::scope(|scope| {
            let all = scope.spawn(|| {
                meet(trial, &root, &catalogue, (protocol, &clients), progress, &interrupted)
            });
            all.join().map_err(|_| anyhow!("the thread of the clients panicked"))?
        })?;
        for (client, met) in clients.iter().zip(met) {
            results.note(&client.name, met);
        }
        results.write(&path)?;
    }
    Ok(results)
}

/// All clients of one protocol: first on a calm day, then in one flood.
fn meet(
    trial: &Trial,
    root: &Root,
    catalogue: &Catalogue,
    (protocol, clients): (Protocol, &[&Client]),
    progress: &(dyn Fn(&str) + Sync),
    interrupted: &AtomicBool,
) -> Result<Vec<Met>> {
    let orders = Orders {
        binary: trial.ctguard.clone(),
        settings: trial.settings.clone(),
        interfaces: vec![WAN],
        allowed: Vec::new(),
        regulars: Vec::new(),
    };
    let servers = catalogue.servers(clients);
    let mut rack = Rack::build(root, &servers, orders, &trial.out.join("ctguard.log"))?;
    let versions = clients.iter().map(|client| rack.version(client, root));
    let versions = versions.collect::<Result<Vec<_>>>()?;
    let all = |rack: &mut Rack, weather: &str| -> Result<Vec<(Vec<Fate>, Asked)>> {
        let mut fates = Vec::new();
        for client in clients {
            ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");
            let (met, asked) = contacts(rack, client, root)?;
            progress(&format!("{}, {weather}: {}", client.name, results::told(&met, true)));
            fates.push((met, asked));
        }
        Ok(fates)
    };
    let calm = all(&mut rack, "no flood")?;
    let flood = rack.flood(protocol, trial.rate)?;
    let flooded = all(&mut rack, &format!("{} at {}/s", protocol.flood(), trial.rate))?;
    let stage = rack.stage(protocol)?;
    // A flood that failed explains why the guard left.
    flood.stop()?;
    ensure!(
        stage == "challenge",
        "the guard left the challenge for {stage} before the last client"
    );

    let met = versions.into_iter().zip(calm).zip(flooded);
    let met =
        met.map(|((version, (calm, _)), (flooded, asked))| Met { version, calm, flooded, asked });
    Ok(met.collect())
}

/// First contacts of a client from as many new addresses as there are slots, and when the first of
/// them asked.
fn contacts(rack: &mut Rack, client: &Client, root: &Root) -> Result<(Vec<Fate>, Asked)> {
    let newcomers = rack.newcomers()?;
    let (namespace, first) = newcomers[0];
    let watch = Watch::start(root, namespace)?;
    let fates = thread::scope(|scope| {
        let contacts: Vec<_> = newcomers
            .iter()
            .enumerate()
            .map(|(slot, (namespace, address))| {
                thread::sleep(APART);
                scope.spawn(move || {
                    let (slot, address) = (slot.to_string(), address.to_string());
                    let server = SERVER.to_string();
                    let variables =
                        [("SLOT", &*slot), ("ADDRESS", &*address), ("SERVER", &*server)];
                    contact::make(client, root, namespace, &variables)
                })
            })
            .collect();
        contacts
            .into_iter()
            .map(|contact| contact.join().map_err(|_| anyhow!("a contact panicked"))?)
            .collect::<Result<Vec<_>>>()
    })?;
    Ok((fates, watch.asked(first, SERVER)))
}
