//! Network namespaces: made and removed, entered by threads and commands.

use std::{fs::File, ops::Deref, process::Command, thread};

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::exec;

const DIRECTORY: &str = "/run/netns";
const PREFIX: &str = "ctg-";

/// A network namespace of the lab, removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    handle: Handle,
}

/// The name of a namespace, by which it is entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    name: String,
}

impl Deref for Namespace {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Namespace {
    /// Makes `ctg-<pid>-<role>` with its loopback up.
    pub fn create(role: &str) -> Result<Self> {
        let name = format!("{PREFIX}{}-{role}", std::process::id());
        exec::run(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { handle: Handle { name } };
        namespace.ip(&["link set lo up"])?;
        Ok(namespace)
    }
}

impl Handle {
    /// The name that `ip -n` takes.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs in this network namespace, and in no other mount namespace (as
    /// `ip netns exec` would have it: a bpffs mounted there dies with the command).
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={DIRECTORY}/{}", self.name)).arg("--").arg(program);
        command
    }

    /// Runs lines of `ip` commands, given without the word `ip`.
    pub fn ip(&self, lines: &[impl AsRef<str>]) -> Result<()> {
        let lines: Vec<&str> = lines.iter().map(AsRef::as_ref).collect();
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-batch", "-"]);
        exec::run_with_input(&mut command, &lines.join("\n"))
            .with_context(|| format!("cannot configure namespace {}", self.name))?;
        Ok(())
    }

    /// Writes sysctls of this namespace, which die with it.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (key, value) in settings {
                let path = crate::sysctl::path(key);
                std::fs::write(&path, value)
                    .with_context(|| format!("cannot set {key} to {value}"))?;
            }
            Ok(())
        })
    }

    /// Runs `job` on a thread of its own inside the namespace.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter()?;
                job()
            });
            inside.join().map_err(|_| anyhow!("a thread in namespace {} panicked", self.name))?
        })
    }

    /// Starts a thread inside the namespace; it ends on its own.
    pub fn spawn<T: Send + 'static>(
        &self,
        thread_name: &str,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<thread::JoinHandle<Result<T>>> {
        let namespace = self.open()?;
        let builder = thread::Builder::new().name(thread_name.to_owned());
        let handle = builder.spawn(move || {
            enter(&namespace)?;
            job()
        });
        handle.with_context(|| format!("cannot start thread {thread_name}"))
    }

    fn enter(&self) -> Result<()> {
        enter(&self.open()?)
    }

    fn open(&self) -> Result<File> {
        let path = format!("{DIRECTORY}/{}", self.name);
        File::open(&path).with_context(|| format!("cannot open {path}"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let removed = exec::run(Command::new("ip").args(["netns", "del", &self.name]));
        if let Err(error) = removed {
            eprintln!("ctguard-lab: cannot remove namespace {}: {error:#}", self.name);
        }
    }
}

/// Removes the namespaces of labs whose process is gone: what a SIGKILL leaves behind.
pub fn remove_orphans() {
    let Ok(entries) = std::fs::read_dir(DIRECTORY) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse().ok());
        let Some(pid) = pid else { continue };
        if !is_alive(pid) {
            let _ = exec::run(Command::new("ip").args(["netns", "del", &name]));
        }
    }
}

fn is_alive(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// Moves this thread into the namespace, for good.
fn enter(namespace: &File) -> Result<()> {
    use std::os::fd::AsFd as _;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .context("cannot enter a network namespace")
}
