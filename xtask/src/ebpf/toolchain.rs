//! A compiler with `core` for eBPF and a linker of the same LLVM: found, or installed.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::record::Versions;
use crate::{exec, packages, workspace};

const TARGET: &str = "bpfel-unknown-none";
const LINKER_VERSION: &str = "0.13.0";

/// BTF comes of debug information; v3 is the instruction set of Linux 5.1 and later.
pub(super) const FLAGS: [&str; 3] = ["-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3"];

/// The functions that aya's macros make are public and undocumented; no object depends on this.
const SILENCED: [&str; 2] = ["-Amissing_docs", "-Aunreachable_pub"];

/// What builds eBPF objects here.
pub(super) struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compiler {
    /// Debian's, which has `core` for eBPF precompiled.
    Distribution,
    /// Rustup's nightly, which compiles `core` itself.
    Nightly,
}

impl Toolchain {
    /// The toolchain that is here, if it is whole.
    pub(super) fn find() -> Result<Option<Self>> {
        for compiler in Compiler::present() {
            if let Some(linker) = find_linker(compiler, compiler.llvm_major()?)? {
                return Ok(Some(Self { compiler, linker }));
            }
        }
        Ok(None)
    }

    /// The toolchain that is here, after installing what it lacks.
    pub(super) fn set_up() -> Result<Self> {
        if let Some(toolchain) = Self::find()? {
            return Ok(toolchain);
        }
        let compiler = match Compiler::present().first() {
            Some(compiler) => *compiler,
            None => install_compiler()?,
        };
        let linker = install_linker(compiler.llvm_major()?)?;
        Ok(Self { compiler, linker })
    }

    pub(super) fn versions(&self) -> Result<Versions> {
        Ok(Versions {
            rustc: exec::output(self.compiler.rustc().arg("--version"))?,
            bpf_linker: exec::output(Command::new(&self.linker).arg("--version"))?,
        })
    }

    /// Builds all eBPF programs and returns the directory they are in.
    pub(super) fn build(&self) -> Result<PathBuf> {
        // Kept apart from host builds, which other flags would throw away.
        let directory = workspace::target()?.join("ebpf");
        let mut cargo = self.compiler.cargo()?;
        cargo
            .args(["build", "--package", "ctguard-program", "--package", "ctguard-lab-program"])
            .args(["--features", "ctguard-program/bpf,ctguard-lab-program/bpf", "--bins"])
            .args(["--profile", "bpf", "--target", TARGET])
            .arg("--target-dir")
            .arg(&directory)
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker)
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags()?.join("\x1f"));
        exec::run(&mut cargo).context("cannot build the eBPF objects")?;
        Ok(directory.join(TARGET).join("bpf"))
    }

    /// The flags with which an object is the same wherever it is built.
    fn flags(&self) -> Result<Vec<String>> {
        let mut replaced = vec![(workspace::root()?, "ctguard".to_owned())];
        for registry in registries()? {
            replaced.push((registry, "registry".to_owned()));
        }
        let sysroot = exec::output(self.compiler.rustc().args(["--print", "sysroot"]))?;
        replaced.push((Path::new(&sysroot).join("lib/rustlib/src/rust"), "rust".to_owned()));

        let remapping = |(from, to): &(PathBuf, String)| {
            format!("--remap-path-prefix={}=/{to}", from.display())
        };
        let flags = FLAGS.iter().chain(&SILENCED).map(ToString::to_string);
        Ok(flags.chain(replaced.iter().map(remapping)).collect())
    }
}

impl Compiler {
    /// The compilers here that can make eBPF objects, the one to prefer first.
    fn present() -> Vec<Self> {
        let mut all = vec![Self::Distribution, Self::Nightly];
        all.retain(|compiler| compiler.has_core());
        all
    }

    fn has_core(self) -> bool {
        match self {
            Self::Distribution => {
                let libraries = exec::quiet_output(self.rustc().args([
                    "--print",
                    "target-libdir",
                    "--target",
                    TARGET,
                ]));
                libraries.is_some_and(|directory| Path::new(&directory).is_dir())
            }
            Self::Nightly => {
                let sysroot = exec::quiet_output(self.rustc().args(["--print", "sysroot"]));
                sysroot.is_some_and(|root| {
                    Path::new(&root).join("lib/rustlib/src/rust/library/core").is_dir()
                })
            }
        }
    }

    fn rustc(self) -> Command {
        match self {
            Self::Distribution => Command::new("/usr/bin/rustc"),
            Self::Nightly => {
                let mut rustc = Command::new("rustup");
                rustc.args(["run", "nightly", "rustc"]);
                rustc
            }
        }
    }

    fn cargo(self) -> Result<Command> {
        let mut cargo = match self {
            Self::Distribution => {
                let mut cargo = exec::cargo()?;
                // The precompiled `core` needs no nightly; unstable features of aya-ebpf do.
                cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
            Self::Nightly => {
                let mut cargo = Command::new("rustup");
                cargo.args(["run", "nightly", "cargo", "-Zbuild-std=core"]);
                cargo.current_dir(workspace::root()?).env_remove("CARGO").env_remove("RUSTC");
                cargo
            }
        };
        cargo.env_remove("RUSTFLAGS");
        Ok(cargo)
    }

    fn llvm_major(self) -> Result<u32> {
        let version = exec::output(self.rustc().arg("-vV"))?;
        llvm_major(&version).context("rustc does not tell its LLVM version")
    }
}

fn install_compiler() -> Result<Compiler> {
    if packages::are_available(packages::EBPF_COMPILER)? {
        packages::install(
            packages::EBPF_COMPILER,
            &format!("{} (rustc with `core` for eBPF)", packages::EBPF_COMPILER.join(", ")),
        )?;
        if Compiler::Distribution.has_core() {
            return Ok(Compiler::Distribution);
        }
    }
    bail!(
        "there is no compiler for eBPF here: run \
         `rustup toolchain install nightly --component rust-src`, then this again"
    );
}

/// Where this repository keeps its own linker.
fn tools(llvm: u32) -> Result<PathBuf> {
    Ok(workspace::target()?.join("tools").join(format!("llvm-{llvm}")))
}

fn find_linker(compiler: Compiler, llvm: u32) -> Result<Option<PathBuf>> {
    let own = tools(llvm)?.join("bin/bpf-linker");
    let version = exec::quiet_output(Command::new(&own).arg("--version"));
    if version.is_some_and(|version| version.ends_with(LINKER_VERSION)) {
        return Ok(Some(own));
    }
    // Published builds of the linker are made for rustup's nightly.
    Ok((compiler == Compiler::Nightly).then(|| exec::find("bpf-linker")).flatten())
}

fn install_linker(llvm: u32) -> Result<PathBuf> {
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    if !prefix.join("include/llvm-c/Core.h").exists() {
        let package = format!("llvm-{llvm}-dev");
        packages::install(&[&package], &format!("{package} (bpf-linker is built with it)"))
            .context("bpf-linker can also be had with `cargo binstall bpf-linker`")?;
    }
    let tools = tools(llvm)?;
    eprintln!("xtask: building bpf-linker {LINKER_VERSION} in {}, about a minute", tools.display());
    let mut cargo = exec::cargo()?;
    cargo
        .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--quiet"])
        .args(["--no-default-features", "--features", &format!("llvm-{llvm}")])
        .arg("--root")
        .arg(&tools)
        .env("LLVM_PREFIX", prefix)
        // A directory of its own: cargo would put it into a temporary one and lose it on failure.
        .env("CARGO_TARGET_DIR", workspace::target()?.join("tools/build"));
    exec::run(&mut cargo).context("cannot build bpf-linker")?;
    Ok(tools.join("bin/bpf-linker"))
}

/// The directories that cargo unpacks crates into, one a registry.
fn registries() -> Result<Vec<PathBuf>> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home =
        home.or_else(|| Some(env::home_dir()?.join(".cargo"))).context("no home directory")?;
    let Ok(entries) = fs::read_dir(home.join("registry/src")) else {
        return Ok(Vec::new());
    };
    let mut directories: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    directories.sort();
    Ok(directories)
}

fn llvm_major(version: &str) -> Option<u32> {
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    llvm.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_version_is_read_from_what_rustc_tells() {
        assert_eq!(llvm_major("release: 1.96.0\nLLVM version: 22.1.8"), Some(22));
        assert_eq!(llvm_major("release: 1.96.0"), None);
    }
}
