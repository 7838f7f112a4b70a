//! The binary that packages hold: static, with musl, so that it runs on every distribution.
//!
//! Rustup has its standard library ready-made, the distribution its source; the latter needs no
//! download for each architecture, and the same compiler builds the eBPF objects.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::directory;
use crate::{exec, packages, workspace};

/// A processor that packages are built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    pub(super) const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// As Debian names it.
    pub(super) const fn deb(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As RPM and the kernel name it.
    pub(super) const fn rpm(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    fn target(self) -> String {
        format!("{}-unknown-linux-musl", self.rpm())
    }

    fn compiler(self) -> String {
        format!("{}-linux-gnu-gcc", self.rpm())
    }

    const fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Amd64 => &["rust-web-src", "gcc"],
            Self::Arm64 => &["rust-web-src", "gcc-aarch64-linux-gnu", "qemu-user"],
        }
    }
}

/// Builds it, and has it tell its version.
pub(super) fn build(architecture: Architecture) -> Result<PathBuf> {
    let (target, compiler) = (architecture.target(), architecture.compiler());
    install(architecture)?;
    let libraries = directory()?.join(format!("musl-{}", architecture.deb()));
    let musl = musl(architecture)?;
    let linker = linker(&libraries, &musl, &compiler)?;

    eprintln!("xtask: building ctguard and the standard library for {target}");
    let variable = |name: &str| format!("CARGO_TARGET_{}_{name}", environment_name(&target));
    let flags = [
        "-Clink-self-contained=no".to_owned(),
        "-Ctarget-feature=+crt-static".to_owned(),
        "-Crelocation-model=static".to_owned(),
    ];
    let mut cargo = exec::cargo()?;
    cargo
        .args(["build", "--release", "--package", "ctguard", "--target", &target])
        .arg("-Zbuild-std=std,panic_abort")
        .arg("--target-dir")
        .arg(directory()?.join("build"))
        .env("RUSTC", "/usr/bin/rustc")
        .env("RUSTC_BOOTSTRAP", "1")
        .env(variable("LINKER"), &linker)
        .env_remove("RUSTFLAGS")
        .env(variable("RUSTFLAGS"), flags.join(" "));
    exec::run(&mut cargo).context("cannot build the static binary")?;
    let binary = directory()?.join("build").join(&target).join("release/ctguard");

    let told = match architecture {
        Architecture::Amd64 => exec::output(Command::new(&binary).arg("--version"))?,
        Architecture::Arm64 => {
            exec::output(Command::new("qemu-aarch64").arg(&binary).arg("--version"))?
        }
    };
    eprintln!("xtask: {} is {told}", binary.display());
    Ok(binary)
}

fn install(architecture: Architecture) -> Result<()> {
    let wanted = architecture.packages();
    let missing =
        |package: &&str| !exec::succeeds(Command::new("dpkg-query").args(["--show", package]));
    if wanted.iter().any(missing) {
        packages::install(wanted, &format!("{} (to build a static binary)", wanted.join(", ")))?;
    }
    Ok(())
}

/// Where the C library lies unpacked. Apt looks for it in lists of its own, for this machine need not
/// know other architectures.
fn musl(architecture: Architecture) -> Result<PathBuf> {
    let unpacked = directory()?.join(format!("musl-dev-{}", architecture.deb()));
    let libraries = unpacked.join(format!("usr/lib/{}-linux-musl", architecture.rpm()));
    if libraries.join("libc.a").is_file() {
        return Ok(libraries);
    }
    let state = directory()?.join(format!("apt-{}", architecture.deb()));
    for fresh in [&unpacked, &state] {
        workspace::remove_directory(fresh)?;
    }
    for needed in ["lists/partial", "archives/partial"] {
        let needed = state.join(needed);
        fs::create_dir_all(&needed).with_context(|| format!("cannot make {}", needed.display()))?;
    }
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.current_dir(&state);
        for option in [
            format!("APT::Architecture={}", architecture.deb()),
            format!("APT::Architectures={}", architecture.deb()),
            format!("Dir::State::Lists={}", state.join("lists").display()),
            format!("Dir::Cache={}", state.display()),
            "Dir::State::status=/dev/null".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ] {
            apt.arg("-o").arg(option);
        }
        exec::run_quietly(apt.args(arguments))
    };
    eprintln!("xtask: downloading musl-dev for {}", architecture.deb());
    apt(&["update"])?;
    apt(&["download", "musl-dev"])?;
    let archive = packages::one_in(&state, |name| name.starts_with("musl-dev_"))?;
    exec::run_quietly(Command::new("dpkg-deb").arg("-x").arg(archive).arg(&unpacked))?;
    Ok(libraries)
}

/// The compiler driver with musl's start files and C library in the place of its own: a script, for
/// rustc takes one program.
fn linker(directory: &Path, musl: &Path, compiler: &str) -> Result<PathBuf> {
    workspace::remove_directory(directory)?;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    // The standard library asks for LLVM's unwinder. GCC's has the same functions, and calls one that
    // only glibc has: without its answer, a backtrace is empty. A panic unwinds nothing here.
    let unwinder = exec::output(Command::new(compiler).arg("-print-file-name=libgcc_eh.a"))?;
    let link = directory.join("libunwind.a");
    symlink(&unwinder, &link).with_context(|| format!("cannot make {}", link.display()))?;
    let source = directory.join("find-object.c");
    fs::write(&source, "int _dl_find_object(void *pc, void *found) { return -1; }\n")
        .with_context(|| format!("cannot write {}", source.display()))?;
    let object = directory.join("find-object.o");
    exec::run(Command::new(compiler).arg("-O").arg("-c").arg(&source).arg("-o").arg(&object))?;
    let musl = musl.display();
    let script = format!(
        "#!/bin/sh\nexec {compiler} -static -nostartfiles -nostdlib {musl}/crt1.o {musl}/crti.o \
         -L{} -L{musl} \"$@\" -Wl,--start-group -lc -lgcc -lunwind -Wl,--end-group {object} {musl}/crtn.o\n",
        directory.display(),
        object = object.display()
    );
    let path = directory.join("linker");
    fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
    exec::run(Command::new("chmod").arg("755").arg(&path))?;
    Ok(path)
}

fn environment_name(target: &str) -> String {
    target.to_uppercase().replace('-', "_")
}
