//! Machines with which nothing is wrong: what distributions and programs set by themselves, and what
//! their manuals advise.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use super::testing::Machine;
use crate::host::sysctl_path;

type Files = &'static [(&'static str, &'static str)];

/// A name, conntrack's maximum, buckets of its hash, and files.
type Sound = (&'static str, &'static str, &'static str, Files);

const SYSTEMD: (&str, &str) = ("/usr/lib/systemd/systemd", "");
const FORWARDS: (&str, &str) = ("/proc/sys/net/ipv4/ip_forward", "1\n");
const FIREWALLD: (&str, &str) = ("/proc/700/comm", "firewalld\n");
/// What firewalld's package has in `modprobe.d`, and the settings that an operator relies on.
const AT_LOAD: (&str, &str) = (
    "/usr/lib/modprobe.d/firewalld-sysctls.conf",
    "install nf_conntrack /usr/sbin/modprobe --ignore-install nf_conntrack $CMDLINE_OPTS && \
     /usr/sbin/sysctl --quiet --pattern 'net[.]netfilter[.]nf_conntrack.*' --system\n",
);
const OWN: (&str, &str) =
    ("/etc/sysctl.d/90-own.conf", "net.netfilter.nf_conntrack_max = 262144\n");

/// Timeouts of the kernel.
const DEFAULTS: [(&str, &str); 12] = [
    ("tcp_timeout_established", "432000"),
    ("tcp_timeout_syn_sent", "120"),
    ("tcp_timeout_syn_recv", "60"),
    ("tcp_timeout_fin_wait", "120"),
    ("tcp_timeout_close_wait", "60"),
    ("tcp_timeout_time_wait", "120"),
    ("tcp_timeout_unacknowledged", "300"),
    ("udp_timeout", "30"),
    ("udp_timeout_stream", "120"),
    ("generic_timeout", "600"),
    ("icmp_timeout", "30"),
    ("tcp_loose", "1"),
];

const SOUND: &[Sound] = &[
    (
        "Debian 12",
        "262144",
        "262144",
        &[
            SYSTEMD,
            ("/proc/sys/kernel/osrelease", "6.1.0-28-amd64\n"),
            ("/etc/sysctl.conf", "# kernel.domainname = example.com\n"),
            ("/etc/modules", "# names of kernel modules\n"),
            ("/usr/lib/sysctl.d/50-pid-max.conf", "kernel.pid_max = 4194304\n"),
        ],
    ),
    (
        "Debian 13, which has no sysctl.conf, and nftables",
        "262144",
        "262144",
        &[
            SYSTEMD,
            ("/proc/sys/kernel/osrelease", "6.12.48+deb13-amd64\n"),
            (
                "/usr/lib/sysctl.d/50-default.conf",
                "-net.ipv4.conf.all.rp_filter\nnet.ipv4.conf.*.rp_filter = 2\n",
            ),
            ("/etc/modules-load.d/conntrack.conf", "nf_conntrack\n"),
            OWN,
        ],
    ),
    (
        "Ubuntu 22.04 with ufw",
        "262144",
        "262144",
        &[
            SYSTEMD,
            ("/proc/sys/kernel/osrelease", "5.15.0-119-generic\n"),
            ("/etc/sysctl.conf", "# settings\n"),
            ("/etc/ufw/ufw.conf", "ENABLED=yes\nLOGLEVEL=low\n"),
            ("/etc/default/ufw", "IPT_SYSCTL=/etc/ufw/sysctl.conf\nIPT_MODULES=\"\"\n"),
            (
                "/etc/ufw/sysctl.conf",
                "net/ipv4/conf/all/accept_redirects=0\nnet/netfilter/nf_conntrack_max=262144\n",
            ),
        ],
    ),
    (
        "Ubuntu 24.04 with ufw off and a file for it",
        "262144",
        "262144",
        &[
            SYSTEMD,
            ("/proc/sys/kernel/osrelease", "6.8.0-45-generic\n"),
            ("/etc/ufw/ufw.conf", "ENABLED=no\n"),
            ("/etc/ufw/sysctl.conf", "net/netfilter/nf_conntrack_max=65536\n"),
            ("/usr/lib/modprobe.d/blacklist-oss.conf", "blacklist snd_pcm_oss\n"),
            ("/proc/701/comm", "NetworkManager\n"),
        ],
    ),
    (
        "Fedora with firewalld",
        "262144",
        "262144",
        &[
            SYSTEMD,
            FIREWALLD,
            AT_LOAD,
            OWN,
            ("/proc/sys/kernel/osrelease", "6.11.4-301.fc41.x86_64\n"),
        ],
    ),
    (
        "RHEL 8 with firewalld",
        "262144",
        "65536",
        &[
            SYSTEMD,
            FIREWALLD,
            AT_LOAD,
            ("/proc/sys/kernel/osrelease", "4.18.0-553.el8_10.x86_64\n"),
            ("/etc/sysctl.conf", "net.netfilter.nf_conntrack_max = 262144\n# last\n"),
            ("/proc/net/stat/nf_conntrack", "entries insert_failed drop\n400 5 5\n"),
        ],
    ),
    (
        "RHEL 9 with firewalld and tuned",
        "262144",
        "65536",
        &[
            SYSTEMD,
            FIREWALLD,
            AT_LOAD,
            OWN,
            ("/proc/sys/kernel/osrelease", "5.14.0-427.el9.x86_64\n"),
            ("/proc/702/comm", "tuned\n"),
            ("/etc/tuned/active_profile", "throughput-performance\n"),
            ("/usr/lib/tuned/throughput-performance/tuned.conf", "[sysctl]\nvm.swappiness=10\n"),
        ],
    ),
    (
        "CentOS 7",
        "65536",
        "16384",
        &[
            SYSTEMD,
            ("/proc/sys/kernel/osrelease", "3.10.0-1160.el7.x86_64\n"),
            ("/etc/modules-load.d/conntrack.conf", "nf_conntrack_ipv4\n"),
            (
                "/etc/sysctl.d/a.conf",
                "net.ipv4.netfilter.ip_conntrack_max = 65536\nnet.nf_conntrack_max = 65536\n",
            ),
            ("/proc/sys/net/ipv4/netfilter/ip_conntrack_max", "65536\n"),
            ("/proc/net/stat/nf_conntrack", "entries searched insert_failed drop\n400 0 9 0\n"),
            ("/proc/sys/net/core/somaxconn", "128\n"),
        ],
    ),
    (
        "openSUSE",
        "262144",
        "262144",
        &[
            SYSTEMD,
            FIREWALLD,
            ("/proc/sys/kernel/osrelease", "6.4.0-150600.23-default\n"),
            ("/usr/lib/sysctl.d/50-default.conf", "net.ipv4.icmp_echo_ignore_broadcasts = 1\n"),
            ("/usr/lib/modules-load.d/x.conf", "# none\n"),
        ],
    ),
    (
        "Alpine, a router",
        "262144",
        "262144",
        &[
            ("/sbin/openrc", ""),
            FORWARDS,
            ("/proc/sys/kernel/osrelease", "6.6.58-0-lts\n"),
            ("/etc/modules", "af_packet\nipv6\nnf_conntrack\n"),
            ("/usr/lib/sysctl.d/00-alpine.conf", "net.ipv4.tcp_syncookies = 1\n"),
            (
                "/etc/sysctl.conf",
                "# content of this file\nnet.netfilter.nf_conntrack_tcp_timeout_established = 7440\n",
            ),
            ("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", "7440\n"),
        ],
    ),
    (
        "OpenWrt",
        "16384",
        "16384",
        &[
            ("/etc/openwrt_release", "DISTRIB_ID='OpenWrt'\n"),
            ("/sbin/procd", ""),
            FORWARDS,
            ("/proc/sys/net/ipv6/conf/all/forwarding", "1\n"),
            ("/proc/sys/kernel/osrelease", "6.6.93\n"),
            ("/proc/meminfo", "MemTotal: 247000 kB\nMemAvailable: 150000 kB\n"),
            ("/etc/modules.d/nf-conntrack", "nf_conntrack\nnf_defrag_ipv4\n"),
            (
                "/etc/sysctl.d/11-nf-conntrack.conf",
                "net.netfilter.nf_conntrack_acct=1\nnet.netfilter.nf_conntrack_checksum=0\n\
                 net.netfilter.nf_conntrack_tcp_timeout_established=7440\n\
                 net.netfilter.nf_conntrack_udp_timeout=60\n\
                 net.netfilter.nf_conntrack_udp_timeout_stream=180\n",
            ),
            ("/etc/sysctl.conf", "# Defaults are configured in /etc/sysctl.d/*\n"),
            ("/proc/sys/net/netfilter/nf_conntrack_acct", "1\n"),
            ("/proc/sys/net/netfilter/nf_conntrack_checksum", "0\n"),
            ("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", "7440\n"),
            ("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", "60\n"),
            ("/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream", "180\n"),
        ],
    ),
    (
        "Proxmox VE with its firewall",
        "262144",
        "65536",
        &[
            SYSTEMD,
            ("/proc/sys/kernel/osrelease", "6.8.12-4-pve\n"),
            ("/proc/703/comm", "pve-firewall\n"),
            ("/etc/pve/firewall/cluster.fw", "[OPTIONS]\n\nenable: 1\n"),
            ("/usr/lib/sysctl.d/pve-firewall.conf", "net.bridge.bridge-nf-call-iptables = 0\n"),
        ],
    ),
    (
        "a node of Kubernetes",
        "131072",
        "32768",
        &[
            SYSTEMD,
            FORWARDS,
            ("/proc/sys/kernel/osrelease", "6.1.0-28-cloud-amd64\n"),
            ("/proc/704/comm", "kube-proxy\n"),
            (
                "/proc/704/cmdline",
                "/usr/local/bin/kube-proxy\0--config=/var/lib/kube-proxy/config.conf\0",
            ),
            ("/etc/modules-load.d/k8s.conf", "overlay\nbr_netfilter\n"),
            (
                "/etc/sysctl.d/k8s.conf",
                "net.bridge.bridge-nf-call-iptables = 1\nnet.ipv4.ip_forward = 1\n",
            ),
            ("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", "86400\n"),
            ("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait", "3600\n"),
        ],
    ),
    (
        "a container of LXC",
        "262144",
        "262144",
        &[
            SYSTEMD,
            ("/proc/sys/kernel/osrelease", "6.8.12-4-pve\n"),
            // The host's.
            (
                "/proc/cmdline",
                "quiet sysctl.net.netfilter.nf_conntrack_max=524288 \
                 sysctl.net.netfilter.nf_conntrack_tcp_timeout_established=86400\n",
            ),
            (
                "/proc/self/mounts",
                "proc /proc/sys/net proc rw,nosuid 0 0\nproc /proc/sys proc ro,nosuid 0 0\n",
            ),
        ],
    ),
];

fn machine((name, max, buckets, files): &Sound) -> Machine {
    let machine = Machine::healthy("sound");
    machine.remove("/etc/modules-load.d/conntrack.conf");
    machine.remove("/etc/sysctl.conf");
    for (key, value) in DEFAULTS {
        machine.write(&sysctl_path(&format!("net.netfilter.nf_conntrack_{key}")), value);
    }
    machine.write("/proc/sys/net/netfilter/nf_conntrack_max", max);
    machine.write("/proc/sys/net/nf_conntrack_max", max);
    machine.write("/proc/sys/net/netfilter/nf_conntrack_buckets", buckets);
    for (path, text) in *files {
        machine.write(path, text);
    }
    let path = |path: &str| machine.host().path(path);
    // As Debian until 12, Ubuntu and Red Hat have it.
    if path("/etc/sysctl.conf").exists() && files.contains(&SYSTEMD) {
        machine.write("/etc/sysctl.d/README", "");
        symlink("../sysctl.conf", path("/etc/sysctl.d/99-sysctl.conf")).unwrap();
    }
    if name.contains("container") {
        for key in
            ["nf_conntrack_max", "netfilter/nf_conntrack_max", "netfilter/nf_conntrack_buckets"]
        {
            let file = path(&format!("/proc/sys/net/{key}"));
            fs::set_permissions(file, fs::Permissions::from_mode(0o444)).unwrap();
        }
        machine.remove("/dev/kmsg");
    }
    machine
}

#[test]
fn nothing_is_wrong_with_a_machine_as_it_is_delivered() {
    for sound in SOUND {
        let found: Vec<_> = machine(sound)
            .audit()
            .findings
            .into_iter()
            .filter(|finding| finding.severity != super::Severity::Note)
            .collect();
        assert!(found.is_empty(), "{}: {found:?}", sound.0);
    }
}

/// Fails when none of the fixtures is examined for what the machine is.
#[test]
fn the_same_machines_are_told_of_what_breaks_on_them() {
    for sound in SOUND {
        let machine = machine(sound);
        let line = "net.netfilter.nf_conntrack_tcp_timeout_last_ack = lots\n";
        machine.write("/etc/sysctl.d/95-typo.conf", line);
        machine.write("/proc/sys/net/netfilter/nf_conntrack_count", sound.1);
        let found = machine.checks();
        assert!(found.contains(&"fill") && found.contains(&"wrong-line"), "{}: {found:?}", sound.0);
    }
}
