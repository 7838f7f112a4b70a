//! What the distribution's packages are needed for, and their installation.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{exec, privilege, workspace};

/// A package of Debian and Ubuntu, and how to tell that what it holds is there.
pub(crate) struct Package {
    name: &'static str,
    probe: Probe,
    why: &'static str,
}

enum Probe {
    Program(&'static str),
    File(&'static str),
}

/// What the kernel tests and the lab call.
pub(crate) const KERNEL_TESTS: &[Package] = &[
    program("ethtool", "ethtool", "to set offloads of test interfaces"),
    program("kmod", "modprobe", "to compare with what it reads of modprobe.d"),
    program("systemd", "systemd-analyze", "to compare with what it reads of sysctl.d"),
    program("iproute2", "ip", "for network namespaces and veth pairs"),
    program("nftables", "nft", "for masquerade and filters of the test router"),
    program("strace", "strace", "to kill ctguard at each of its system calls"),
    program("tshark", "tshark", "to show what ctguard captured"),
    Package {
        name: "fonts-dejavu-core",
        probe: Probe::File("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"),
        why: "for the text in the lab's picture",
    },
    Package {
        name: "libsqlite3-0",
        probe: Probe::File("/usr/lib/x86_64-linux-gnu/libsqlite3.so.0"),
        why: "for crowdsec, whose package is only unpacked",
    },
];

/// What the benchmark compares ctguard with, and measures by.
pub(crate) const BENCHMARK: &[Package] = &[
    program("xdp-tools", "xdp-filter", "to compare ctguard with xdp-filter"),
    program("iptables", "iptables", "to compare ctguard with hashlimit"),
    program("iperf3", "iperf3", "to measure throughput"),
];

/// What tries other kernels.
pub(crate) const VIRTUAL_MACHINES: &[Package] =
    &[program("qemu-system-x86", "qemu-system-x86_64", "to boot other kernels")];

/// What makes a Debian root and its disk.
pub(crate) const DEBIAN_ROOT: &[Package] = &[
    program("debootstrap", "debootstrap", "to make a Debian root"),
    program("e2fsprogs", "mke2fs", "to put it on a disk's image"),
];

/// What makes packages of ctguard.
pub(crate) const PACKAGING: &[Package] = &[
    program("dpkg-dev", "dpkg-deb", "to make a package for Debian"),
    program("rpm", "rpmbuild", "to make a package for distributions with RPM"),
];

/// What brings clients into such a root that Debian has no package of.
pub(crate) const CLIENTS: &[Package] =
    &[program("python3-pip", "pip3", "to get clients in Python")];

/// What has files that doctor reads; unpacked and never installed.
pub(crate) const FOR_DOCTOR: &[&str] = &[
    "systemd",
    "procps",
    "kmod",
    "ufw",
    "firewalld",
    "shorewall",
    "nftables",
    "libvirt-daemon-system",
    "conntrackd",
    "keepalived",
    "tuned",
    "netfilter-persistent",
    "iptables-persistent",
    "ferm",
    "arno-iptables-firewall",
    "lxc",
    "frr",
    "bird2",
    "fail2ban",
    "network-manager",
    "cloud-init",
    "ipvsadm",
];

/// A compiler with `core` for eBPF.
pub(crate) const EBPF_COMPILER: &[&str] = &["rustc-web", "libstd-rust-web-dev-bpf"];

/// Installs those of `packages` that are missing, after saying so.
pub(crate) fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<_> = packages.iter().filter(|package| !package.is_present()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    let reasons: Vec<_> =
        missing.iter().map(|package| format!("{} ({})", package.name, package.why)).collect();
    install(&names, &reasons.join(", "))
}

/// Installs the packages `names`, after saying so in the words of `reasons`.
pub(crate) fn install(names: &[&str], reasons: &str) -> Result<()> {
    let by_hand = || format!("install {} by hand", names.join(", "));
    if exec::find("apt-get").is_none() {
        bail!("there is no apt-get here: {}", by_hand());
    }
    let mut apt = apt_get()?;
    if !are_available(names)? {
        bail!("apt-get has no {}, or only in exchange for others: {}", names.join(", "), by_hand());
    }
    eprintln!("xtask: installing from the distribution: {reasons}");
    let apt =
        apt.args(["install", "--yes", "--no-install-recommends", NO_REMOVE, WAIT]).args(names);
    // Its messages are worth reading only when it fails.
    exec::run_quietly(apt).with_context(by_hand)
}

/// Whether apt can install all of `names`, if need be after fetching its lists.
pub(crate) fn are_available(names: &[&str]) -> Result<bool> {
    if exec::find("apt-get").is_none() {
        return Ok(false);
    }
    let simulate = || {
        let mut apt = Command::new("apt-get");
        exec::succeeds(apt.args(["install", "--simulate", NO_REMOVE]).args(names))
    };
    if simulate() {
        return Ok(true);
    }
    // The lists may be missing, as in most container images.
    refresh()?;
    Ok(simulate())
}

/// Fetches apt's lists.
pub(crate) fn refresh() -> Result<()> {
    eprintln!("xtask: refreshing the distribution's list of packages");
    exec::run_quietly(apt_get()?.arg("update")).context("cannot refresh the list of packages")
}

/// Some packages replace others that their owner may want to keep.
const NO_REMOVE: &str = "--no-remove";
/// For another apt, for so many seconds.
const WAIT: &str = "-oDPkg::Lock::Timeout=300";

fn apt_get() -> Result<Command> {
    let mut apt =
        privilege::as_root("env").context("run this as root once, to install packages")?;
    apt.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    Ok(apt)
}

const fn program(name: &'static str, program: &'static str, why: &'static str) -> Package {
    Package { name, probe: Probe::Program(program), why }
}

impl Package {
    fn is_present(&self) -> bool {
        match self.probe {
            Probe::Program(program) => exec::find(program).is_some(),
            Probe::File(path) => std::path::Path::new(path).exists(),
        }
    }
}

/// Where the package `name` lies unpacked, below the target directory and never installed;
/// downloaded unless it was before.
pub(crate) fn unpacked(name: &str) -> Result<PathBuf> {
    let all = workspace::target()?.join("kernels/packages");
    let directory = all.join(name);
    if directory.is_dir() {
        return Ok(directory);
    }
    eprintln!("xtask: downloading {name}");
    // Another xtask may do the same meanwhile.
    let ours = |name: &str| all.join(format!("{name}-{}", std::process::id()));
    let (download, unpacking) = (ours("download"), ours("unpacking"));
    for fresh in [&download, &unpacking] {
        workspace::remove_directory(fresh)?;
        fs::create_dir_all(fresh).with_context(|| format!("cannot make {}", fresh.display()))?;
    }
    exec::run_quietly(Command::new("apt-get").current_dir(&download).args(["download", name]))?;
    let archive = one_in(&download, |_| true)?;
    exec::run_quietly(Command::new("dpkg").arg("-x").arg(archive).arg(&unpacking))?;
    if let Err(error) = fs::rename(&unpacking, &directory)
        && !directory.is_dir()
    {
        return Err(error).with_context(|| format!("cannot make {}", directory.display()));
    }
    workspace::remove_directory(&unpacking)?;
    workspace::remove_directory(&download)?;
    Ok(directory)
}

/// Where each of these packages lies unpacked in a directory of its name.
pub(crate) fn unpacked_all(names: &[&str]) -> Result<PathBuf> {
    let mut all = None;
    for name in names {
        all = unpacked(name)?.parent().map(Path::to_owned);
    }
    all.context("no packages to unpack")
}

/// The one file of a directory that `is_it`, by its name.
pub(crate) fn one_in(directory: &Path, is_it: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let found = paths.find(|path| path.file_name().is_some_and(|it| is_it(&it.to_string_lossy())));
    found.with_context(|| format!("{} lacks what a package has there", directory.display()))
}
