//! What stands on the guarded interface: nothing, ctguard, or the guard that cannot be beaten.

use std::{
    ffi::OsString,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    daemon::{self, Daemon},
    exec,
    netns::Handle,
    object::{self, Attached, Program},
    product, regulars,
    router::WAN,
};

/// What a run puts on the guarded interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    None,
    /// ctguard.
    Ctguard(Orders),
    /// A program that drops exactly the flood, by its port.
    Ideal,
}

/// How ctguard is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orders {
    /// Its binary.
    pub binary: PathBuf,
    /// `KEY=VALUE` settings for `ctguard run --set`.
    pub settings: Vec<String>,
    /// Interfaces of the router that it guards.
    pub interfaces: Vec<&'static str>,
    /// Addresses on its allow list.
    pub allowed: Vec<IpAddr>,
    /// Addresses that it knows for regulars.
    pub regulars: Vec<IpAddr>,
}

impl Orders {
    /// The ctguard under test on [`WAN`], with all defaults.
    pub fn on_wan() -> Result<Self> {
        Ok(Self {
            binary: product::binary()?,
            settings: Vec::new(),
            interfaces: vec![WAN],
            allowed: Vec::new(),
            regulars: Vec::new(),
        })
    }
}

/// A guard at its post; leaves when dropped.
#[derive(Debug)]
pub enum Standing {
    /// Nothing there.
    None,
    /// A running ctguard.
    Ctguard(Box<Ctguard>),
    /// A program of the lab.
    Ideal(Attached),
}

impl Guard {
    /// Puts the guard on the router's outer interface; ready when this returns.
    pub fn start(&self, router: &Handle, flood_port: u16, log: &Path) -> Result<Standing> {
        match self {
            Self::None => Ok(Standing::None),
            Self::Ideal => {
                let program = Program::DropPort(flood_port);
                Ok(Standing::Ideal(router.run(|| object::attach(program, WAN))?))
            }
            Self::Ctguard(orders) => {
                let guard = Ctguard::start(orders, router.clone(), log)?;
                Ok(Standing::Ctguard(Box::new(guard)))
            }
        }
    }

    /// Whether it guards the interface.
    #[must_use]
    pub fn covers(&self, interface: &str) -> bool {
        match self {
            Self::None => false,
            Self::Ideal => interface == WAN,
            Self::Ctguard(orders) => orders.interfaces.contains(&interface),
        }
    }
}

impl Standing {
    /// What `ctguard status --json` says, if it is ctguard.
    pub fn status(&self) -> Result<Option<Value>> {
        self.asker().map(|asker| asker.status()).transpose()
    }

    /// The guard's daemon, if it is ctguard and lives.
    #[must_use]
    pub fn daemon(&self) -> Option<&Daemon> {
        match self {
            Self::None | Self::Ideal(_) => None,
            Self::Ctguard(guard) => guard.daemon.as_ref(),
        }
    }

    /// Who asks ctguard from other threads.
    #[must_use]
    pub fn asker(&self) -> Option<Asker> {
        match self {
            Self::None | Self::Ideal(_) => None,
            Self::Ctguard(guard) => Some(guard.asker.clone()),
        }
    }

    /// Kills the daemon, if it is ctguard; what is pinned guards on.
    pub fn kill(&mut self) -> Result<()> {
        match self {
            Self::None | Self::Ideal(_) => Ok(()),
            Self::Ctguard(guard) => guard.daemon.take().map_or(Ok(()), Daemon::kill),
        }
    }

    /// Starts a daemon in place of one that was killed, if it is ctguard.
    pub fn start_again(&mut self) -> Result<()> {
        if let Self::Ctguard(guard) = self {
            guard.daemon = Some(Daemon::start(&guard.command, &guard.log)?);
        }
        Ok(())
    }
}

/// Commands of ctguard in the router's namespace.
#[derive(Clone, Debug)]
pub struct Asker {
    binary: PathBuf,
    router: Handle,
}

impl Asker {
    /// `ctguard status --json`.
    pub fn status(&self) -> Result<Value> {
        let text = self.ask(&["status", "--json"])?;
        serde_json::from_str(&text).context("`ctguard status --json` is not JSON")
    }

    /// Runs a command of ctguard and returns what it wrote.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        exec::run(self.router.command(&self.binary.to_string_lossy()).args(arguments))
    }
}

/// ctguard in the router's namespace; what it leaves on the machine goes with it.
#[derive(Debug)]
pub struct Ctguard {
    /// None while it is killed.
    daemon: Option<Daemon>,
    command: Command,
    log: PathBuf,
    asker: Asker,
    pins: PathBuf,
}

impl Ctguard {
    fn start(orders: &Orders, router: Handle, log: &Path) -> Result<Self> {
        let binary = &orders.binary;
        if !binary.is_file() {
            bail!("{} does not exist; cargo build --release", binary.display());
        }
        let binary = binary.canonicalize().context("cannot find ctguard")?;
        let asker = Asker { binary, router };
        let mut command = asker.router.command(&asker.binary.to_string_lossy());
        command.args(arguments(orders, &asker, log)?);
        let pins = daemon::pins(&asker.router)?;
        fs::write(log, "").with_context(|| format!("cannot write {}", log.display()))?;
        let daemon = Some(Daemon::start(&command, log)?);
        let guard = Self { daemon, command, log: log.to_owned(), asker, pins };
        for address in &orders.allowed {
            guard.asker.ask(&["allow", "add", &address.to_string()])?;
        }
        Ok(guard)
    }
}

/// The arguments of `ctguard`; what it starts with lies beside its log.
fn arguments(orders: &Orders, asker: &Asker, log: &Path) -> Result<Vec<OsString>> {
    let mut arguments: Vec<OsString> = vec!["run".into()];
    for interface in &orders.interfaces {
        arguments.extend(["-i".into(), interface.into()]);
    }
    for setting in &orders.settings {
        arguments.extend(["--set".into(), setting.into()]);
    }
    // A ctguard that remembers nothing can be tried as well.
    if asker.ask(&["run", "--help"])?.contains("--state") {
        let directory = log.with_file_name("state");
        if directory.exists() {
            fs::remove_dir_all(&directory)
                .with_context(|| format!("cannot empty {}", directory.display()))?;
        }
        regulars::write(&directory, &asker.router, &orders.regulars)?;
        let directory = directory.canonicalize().context("cannot find the state's directory")?;
        arguments.extend(["--state".into(), directory.into()]);
    }
    Ok(arguments)
}

impl Drop for Ctguard {
    fn drop(&mut self) {
        let stopped = self.daemon.take().map(Daemon::stop);
        if let Some(Err(error)) = &stopped {
            eprintln!("ctguard-lab: ctguard does not end on SIGTERM, and is detached: {error:#}");
        }
        if !matches!(stopped, Some(Ok(_))) {
            let _ = self.asker.ask(&["detach"]);
        }
        daemon::remove_files(&self.pins);
    }
}
