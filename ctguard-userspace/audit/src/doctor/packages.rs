//! Machines with the real files of Debian's packages, which `cargo xtask test` unpacks: nothing is
//! wrong with them.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use super::testing::Machine;

/// Where each package lies unpacked in a directory of its name.
const VARIABLE: &str = "CTGUARD_UNPACKED";
/// What every machine has.
const BASE: [&str; 3] = ["systemd", "procps", "kmod"];
type Added = (&'static str, &'static str, &'static [(&'static str, &'static str)]);
/// What a machine may have besides, a program of it that runs, and a file that enables it.
const ADDED: &[Added] = &[
    ("ufw", "", &[("/etc/ufw/ufw.conf", "ENABLED=yes\nLOGLEVEL=low\n")]),
    ("firewalld", "firewalld", &[]),
    ("shorewall", "", &[("/etc/default/shorewall", "startup=1\n")]),
    ("nftables", "", &[]),
    ("libvirt-daemon-system", "libvirtd", &[]),
    ("conntrackd", "conntrackd", &[]),
    ("keepalived", "keepalived", &[]),
    ("tuned", "tuned", &[("/etc/tuned/active_profile", "virtual-guest\n")]),
    ("netfilter-persistent", "", &[]),
    ("iptables-persistent", "", &[]),
    ("ferm", "", &[]),
    ("arno-iptables-firewall", "", &[]),
    ("lxc", "", &[]),
    ("frr", "zebra", &[]),
    ("bird2", "bird", &[]),
    ("fail2ban", "fail2ban-server", &[]),
    ("network-manager", "NetworkManager", &[]),
    ("cloud-init", "", &[]),
    ("ipvsadm", "", &[]),
];

fn unpacked() -> Option<PathBuf> {
    let directory = env::var_os(VARIABLE).map(PathBuf::from);
    if directory.is_none() {
        assert!(env::var_os("CI").is_none(), "the packages' files may not be skipped in CI");
        println!("skipped: real packages: cargo xtask test unpacks them");
    }
    directory
}

/// A machine with `/usr` merged, as Debian has it since 12.
fn machine(test: &str, packages: &Path) -> Machine {
    let machine = Machine::healthy(test);
    fs::create_dir_all(machine.host().path("/usr/lib")).unwrap();
    symlink("usr/lib", machine.host().path("/lib")).unwrap();
    machine.write("/etc/sysctl.d/90-own.conf", "net.netfilter.nf_conntrack_max = 262144\n");
    for base in BASE {
        install(&machine, &packages.join(base));
    }
    machine
}

fn install(machine: &Machine, package: &Path) {
    for (from, to) in [("lib", "/usr/lib"), ("usr/lib", "/usr/lib"), ("etc", "/etc")] {
        let (from, to) = (package.join(from).join("."), machine.host().path(to));
        if from.is_dir() {
            let mut copy = Command::new("cp");
            assert!(copy.arg("-a").arg(from).arg(to).status().unwrap().success());
        }
    }
}

#[test]
fn nothing_is_wrong_with_the_files_of_packages_one_by_one_and_together() {
    let Some(packages) = unpacked() else { return };
    let all = machine("packages-all", &packages);
    let mut false_findings = 0;
    for (at, (name, process, files)) in ADDED.iter().enumerate() {
        let one = machine("packages-one", &packages);
        for machine in [&one, &all] {
            install(machine, &packages.join(name));
            if !process.is_empty() {
                machine.write(&format!("/proc/{}/comm", 700 + at), &format!("{process}\n"));
            }
            for (path, text) in *files {
                machine.write(path, text);
            }
        }
        let found = one.audit().findings;
        let wrong = found.iter().filter(|it| it.severity != super::Severity::Note);
        for finding in wrong {
            println!("{name}: {} {:?}", finding.what, finding.read);
            false_findings += 1;
        }
    }
    let found = all.found();
    println!("{} packages, {false_findings} false findings, together {found:?}", ADDED.len());
    assert!(false_findings == 0 && found.is_empty());
}
