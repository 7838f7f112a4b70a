//! The programs that run in the guest: ctguard as it is shipped, its tests, and the host's own tools,
//! with the libraries of all of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{exec, workspace};

/// What the tests call.
const TOOLS: [&str; 6] = ["ethtool", "ip", "nft", "nsenter", "setpriv", "tc"];

/// Where programs are on this machine.
pub(super) struct Programs {
    /// The guest's only process.
    pub(super) init: PathBuf,
    pub(super) ctguard: PathBuf,
    /// The verdict tests.
    pub(super) verdicts: PathBuf,
    /// Tools that the tests call.
    pub(super) tools: Vec<PathBuf>,
    /// Libraries that all of these want at the same path in the guest.
    pub(super) libraries: Vec<PathBuf>,
}

/// Builds what is ours and finds the rest.
pub(super) fn build() -> Result<Programs> {
    let ctguard = ctguard()?;
    eprintln!("xtask: building the guest's tests");
    // Of the whole workspace, as `cargo xtask test` builds them.
    let mut cargo = exec::cargo()?;
    cargo.args(["build", "--workspace", "--bin", "ctguard-guest", "--test", "verdicts"]);
    let messages = exec::output(cargo.arg("--message-format=json-render-diagnostics"))?;
    let built = |name: &str| {
        let built = executable(&messages, name);
        stripped(&built.with_context(|| format!("cargo built no {name}"))?)
    };
    let (init, verdicts) = (built("ctguard-guest")?, built("verdicts")?);

    let tools = TOOLS.map(|tool| exec::find(tool).with_context(|| format!("there is no {tool}")));
    let tools = tools.into_iter().collect::<Result<Vec<_>>>()?;
    let libraries = libraries(tools.iter().chain([&init, &ctguard, &verdicts]))?;
    Ok(Programs { init, ctguard, verdicts, tools, libraries })
}

/// Builds ctguard alone.
pub(crate) fn ctguard() -> Result<PathBuf> {
    eprintln!("xtask: building ctguard");
    exec::run(exec::cargo()?.args(["build", "--release", "--package", "ctguard"]))?;
    workspace::release_binary("ctguard")
}

/// A copy without what debuggers need, for a guest has little memory.
fn stripped(program: &Path) -> Result<PathBuf> {
    let directory = workspace::target()?.join("kernels");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let copy = directory.join(program.file_name().unwrap_or_default());
    exec::run(Command::new("strip").arg("-o").arg(&copy).arg(program))?;
    Ok(copy)
}

/// The executable of the target `name`, from cargo's messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_it = message.pointer("/target/name")? == name;
        is_it.then(|| message.get("executable")?.as_str().map(PathBuf::from)).flatten()
    })
}

fn libraries<'p>(programs: impl Iterator<Item = &'p PathBuf>) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for program in programs {
        let told = exec::output(Command::new("ldd").arg(program))?;
        libraries.extend(told.lines().filter_map(library).map(Path::to_owned));
    }
    libraries.sort();
    libraries.dedup();
    Ok(libraries)
}

/// The file in a line of `ldd`; the kernel's own object has none.
fn library(line: &str) -> Option<&Path> {
    line.split_whitespace().find(|word| word.starts_with('/')).map(Path::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_where_ldd_found_it() {
        let line = "\tlibmnl.so.0 => /lib/x86_64-linux-gnu/libmnl.so.0 (0x00007f7f8a3e0000)";
        assert_eq!(library(line), Some(Path::new("/lib/x86_64-linux-gnu/libmnl.so.0")));
        let loader = "\t/lib64/ld-linux-x86-64.so.2 (0x00007f7f8a5d2000)";
        assert_eq!(library(loader), Some(Path::new("/lib64/ld-linux-x86-64.so.2")));
        assert_eq!(library("\tlinux-vdso.so.1 (0x00007ffd0b9fe000)"), None);
    }

    #[test]
    fn a_program_is_the_one_that_cargo_tells() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"ctguard_tests"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"verdicts"},"executable":"/t/verdicts-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "verdicts"), Some(PathBuf::from("/t/verdicts-1")));
        assert_eq!(executable(messages, "ctguard_tests"), None);
    }
}
