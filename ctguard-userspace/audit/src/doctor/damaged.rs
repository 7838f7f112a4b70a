//! Machines of which a file is damaged, or not what it used to be.

use std::fs;

use super::testing::{HEALTHY, Machine};

/// Audits, each of which reads all the files.
const AUDITS: usize = 1_000;

/// Files that a healthy server does not have.
const OTHERS: &[(&str, &str)] = &[
    (
        "/etc/modprobe.d/conntrack.conf",
        "options nf_conntrack hashsize=65536 # x\ninstall nf-conntrack /bin/true\nsoftdep a pre: b\n",
    ),
    (
        "/etc/sysctl.d/90-own.conf",
        "-net/netfilter/nf_conntrack_max=0x40000\nnet.*.forwarding = 1\n",
    ),
    ("/etc/ufw/ufw.conf", "ENABLED=yes\n"),
    ("/etc/default/ufw", "IPT_SYSCTL=/etc/sysctl.conf\n"),
    ("/proc/cmdline", "quiet nf_conntrack.hashsize=6 sysctl.net.ipv4.ip_forward=1\n"),
    ("/proc/700/comm", "kube-proxy\n"),
    ("/proc/700/cmdline", "kube-proxy\0--conntrack-max-per-core=32768\0--config=/etc/k.conf\0"),
    ("/etc/k.conf", "conntrack:\n  maxPerCore: 32768\n  min: 131072\n"),
    ("/proc/net/udp", "sl local_address\n 1: 0100007F:0035 00000000:0000 07 00000000:00000000\n"),
    ("/lib/modules/6.12.0/modules.dep", "kernel/net/nf_conntrack.ko.zst: kernel/lib/x.ko.zst\n"),
];

#[test]
fn no_damaged_file_is_a_crash() {
    let machine = Machine::healthy("damaged");
    let files: Vec<_> = HEALTHY.iter().chain(OTHERS).collect();
    for (path, text) in &files {
        machine.write(path, text);
    }
    let contents: Vec<_> = files.iter().map(|(_, text)| text.as_bytes()).collect();
    ctguard_damage::for_each_damage!(AUDITS, |damaged| {
        let (path, text) = *files[damaged.which(files.len())];
        let _restored = Restored { machine: &machine, path, text };
        fs::write(machine.host().path(path), damaged.of(&contents)).unwrap();
        machine.audit();
    });
}

/// A file that is whole again in the end, even after a crash: the next damage is of another.
struct Restored<'m> {
    machine: &'m Machine,
    path: &'m str,
    text: &'m str,
}

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        self.machine.write(self.path, self.text);
    }
}
