//! The Debian root that holds clients and servers: `cargo xtask clients` makes it.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{exec, netns::Handle};

const ENTER: &str = include_str!("enter.sh");

/// A root directory with the packages of the catalogue.
#[derive(Clone, Debug)]
pub(super) struct Root(PathBuf);

/// Processes in a root and a network namespace; all of them end when this is dropped.
#[derive(Debug)]
pub(super) struct Inmate(Child);

impl Root {
    /// The root at `path`.
    pub(super) fn at(path: &Path) -> Result<Self> {
        ensure!(
            path.join("opt/clients").is_dir(),
            "{} is no root with clients: cargo xtask clients makes one",
            path.display()
        );
        Ok(Self(path.canonicalize().context("cannot find the root")?))
    }

    /// Starts a shell script in a copy of the root and in the namespace, its output into `output`.
    pub(super) fn start(
        &self,
        namespace: &Handle,
        script: &str,
        variables: &[(&str, &str)],
        output: [Stdio; 2],
    ) -> Result<Inmate> {
        let [out, errors] = output;
        let mut command = self.command(namespace, script);
        command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(out).stderr(errors);
        Ok(Inmate(command.spawn().context("cannot start a client or server")?))
    }

    /// Runs a shell script to its end and returns what it printed.
    pub(super) fn run(&self, namespace: &Handle, script: &str) -> Result<String> {
        exec::run(&mut self.command(namespace, script))
    }

    /// The death of the lab, or of `unshare`, is that of every process below.
    fn command(&self, namespace: &Handle, script: &str) -> Command {
        let entered = namespace.command("unshare");
        let mut tied = Command::new("setpriv");
        tied.args(["--pdeathsig", "KILL", "--"]).arg(entered.get_program());
        tied.args(entered.get_args()).args(["--mount", "--pid", "--fork", "--kill-child"]);
        tied.args(["--", "sh", "-c", ENTER, "enter"]).arg(&self.0).arg(script);
        tied
    }
}

impl Inmate {
    /// Waits for its end.
    pub(super) fn succeeds(&mut self) -> Result<bool> {
        Ok(self.0.wait().context("cannot wait for a client")?.success())
    }
}

impl Drop for Inmate {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
