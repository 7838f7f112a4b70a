//! `cargo xtask clients`: real clients make their first contact through a flooded, guarded router.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{debian, exec, lab, packages, privilege, workspace};

const BINARY: &str = "ctguard-clients";
/// Adds packages to a root, see there.
const INSTALL: &str = include_str!("clients/install.sh");
/// Of the Python packages, the version that the root has.
const PYTHON: &str = "3.11";

/// Clients that are crates, each with a program of its name in `tests/clients/rust`.
const CRATES: [&str; 2] = ["quinn", "smoltcp"];

/// What the clients' trial is asked; `--help` as well is its own to answer.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Passed on to the trial; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    pass_on: Vec<String>,
}

/// Makes the root that holds the clients, and tries them.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    privilege::require_root("clients")?;
    let binary = lab::build_binary(BINARY)?;
    let told = ["-h", "--help", "-V", "--version", "--packages"];
    if !options.pass_on.iter().any(|option| told.contains(&option.as_str())) {
        make_root(&binary)?;
    }
    let mut command = Command::new(binary);
    exec::run(command.args(&options.pass_on).current_dir(workspace::root()?))?;
    Ok(ExitCode::SUCCESS)
}

/// A Debian root below the target directory, with the packages that the catalogue names and what
/// `tests/clients` holds. Nothing but debootstrap and pip is installed on the machine itself.
fn make_root(binary: &Path) -> Result<()> {
    packages::ensure(packages::DEBIAN_ROOT)?;
    packages::ensure(packages::CLIENTS)?;
    let root = debian::root(&workspace::target()?.join("clients/root"), &[])?;
    let names = exec::output(Command::new(binary).arg("--packages"))?;
    let installed = root.join("opt/packages");
    if fs::read_to_string(&installed).ok().as_ref() != Some(&names) {
        eprintln!("xtask: installing clients and servers into {}", root.display());
        let mut install = Command::new("unshare");
        install.args(["--mount", "--", "sh", "-c", INSTALL, "install"]).arg(&root);
        exec::run_quietly(install.args(names.lines()))?;
        let mut pip = Command::new("pip3");
        pip.args(["install", "--quiet", "--upgrade", "--only-binary=:all:"]);
        pip.args(["--python-version", PYTHON, "--target"]).arg(root.join("opt/python"));
        exec::run_quietly(pip.arg("aioquic"))?;
        fs::write(&installed, &names)
            .with_context(|| format!("cannot write {}", installed.display()))?;
    }
    let mut copy = Command::new("cp");
    copy.arg("-rT").arg(workspace::root()?.join("tests/clients")).arg(root.join("opt/clients"));
    exec::run_quietly(&mut copy)?;
    build_crates(&root)?;
    let mut prepare = Command::new("chroot");
    exec::run_quietly(prepare.arg(&root).args(["sh", "/opt/clients/prepare.sh"]))
}

/// Builds the clients that are crates, each beside a file with the version of its crate. The root
/// may have an older C library than this machine, so they have theirs with them.
fn build_crates(root: &Path) -> Result<()> {
    let crates = workspace::root()?.join("tests/clients/rust");
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let built = workspace::target()?.join("clients/cargo");
    let mut cargo = exec::cargo()?;
    cargo.args(["build", "--quiet", "--release", "--locked", "--target", &target, "--target-dir"]);
    cargo.arg(&built).current_dir(&crates).env("RUSTFLAGS", "-Ctarget-feature=+crt-static");
    exec::run(&mut cargo)?;
    let programs = root.join("opt/clients/bin");
    fs::create_dir_all(&programs).with_context(|| format!("cannot make {}", programs.display()))?;
    for name in CRATES {
        let program = built.join(&target).join("release").join(name);
        exec::run_quietly(Command::new("cp").arg(program).arg(&programs))?;
        let mut ask = exec::cargo()?;
        ask.args(["pkgid", name]).current_dir(&crates);
        let id = exec::output(&mut ask)?;
        let version = id.rsplit(['@', '#']).next().unwrap_or_default();
        let path = programs.join(format!("{name}.version"));
        fs::write(&path, version).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
