//! Without root.

use std::process::Command;

use anyhow::{Result, ensure};
use ctguard_tests::{
    product::{self, Site, WAN},
    require,
};

/// `nobody` on every distribution.
const NOBODY: &str = "65534";

/// Fails when a command without privileges does anything, or does not say what it lacks.
#[test]
fn without_root_commands_say_what_they_lack() -> Result<()> {
    if !require::root("without_root_commands_say_what_they_lack") {
        return Ok(());
    }
    let site = Site::build()?;
    let copied = readable_copy(&site)?;
    let _daemon = site.guard()?;
    let verbs: [&[&str]; 8] = [
        &["run", "-i", WAN],
        &["status"],
        &["status", "--json"],
        &["get"],
        &["set", "target=50%"],
        &["deny", "add", "192.0.2.1"],
        &["allow", "list"],
        &["detach"],
    ];
    for verb in verbs {
        let mut command = site.guarded().command("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]);
        command.arg(copied.path()).args(verb);
        let answer = product::answer(&mut command)?;
        let line = answer.refusal(4)?;
        ensure!(line.contains("root") || line.contains("CAP_"), "{verb:?}: {line}");
    }
    ensure!(site.succeed(&["get", "target"])?.trim() == "85%", "nothing changed");
    ensure!(site.xdp(WAN)?.is_some());
    Ok(())
}

/// A copy of the binary where anybody may run it: the repository may lie in somebody's home.
fn readable_copy(site: &Site) -> Result<Copied> {
    let path = std::env::temp_dir().join(format!("{}-binary", site.guarded().name()));
    std::fs::copy(product::binary()?, &path)?;
    let ran = Command::new("chmod").arg("755").arg(&path).status()?;
    ensure!(ran.success());
    Ok(Copied(path))
}

struct Copied(std::path::PathBuf);

impl Copied {
    fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
