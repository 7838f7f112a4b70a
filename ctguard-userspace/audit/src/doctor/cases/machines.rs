//! The machines, and what is wrong with each.

pub(super) type Files = &'static [(&'static str, &'static str)];

/// A name, files of the healthy machine that differ, and all that is wrong.
pub(super) type Case = (&'static str, Files, &'static [&'static str]);

const SYSTEMD: (&str, &str) = ("/usr/lib/systemd/systemd", "");
const NO_LIST: (&str, &str) = ("/etc/modules-load.d/conntrack.conf", "");
pub(super) const OLD_MAX: &str = "/proc/sys/net/nf_conntrack_max";
const FIREWALLD: (&str, &str) = (
    "/etc/modprobe.d/firewalld-sysctls.conf",
    "install nf_conntrack /usr/sbin/modprobe --ignore-install nf_conntrack $CMDLINE_OPTS && \
     /usr/sbin/sysctl --quiet --pattern 'net[.]netfilter[.]nf_conntrack.*' --system\n",
);

pub(super) const CASES: &[Case] = &[
    (
        "hashsize with blanks",
        &[(
            "/etc/modprobe.d/nf_conntrack_hashsize.conf",
            "options nf_conntrack hashsize = 262144\n",
        )],
        &["hash-option"],
    ),
    (
        "hashsize with blanks behind the other parameter of its name",
        &[(
            "/etc/modprobe.d/a.conf",
            "options nf_conntrack expect_hashsize=4096 hashsize = 262144\n",
        )],
        &["hash-option"],
    ),
    (
        "hashsize with dashes, blanks and an initial tab",
        &[("/etc/modprobe.d/a.conf", "\toptions nf-conntrack  hashsize= 262144\n")],
        &["hash-option"],
    ),
    (
        "hashsize with dashes",
        &[("/etc/modprobe.d/a.conf", "options nf-conntrack hashsize=65536\n")],
        &["hash-drift"],
    ),
    (
        "a dash in the list of modules",
        &[
            NO_LIST,
            ("/etc/modules-load.d/a.conf", "nf-conntrack\n"),
            ("/etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_max = 262144\n"),
        ],
        &[],
    ),
    (
        "hexadecimal",
        &[
            ("/etc/modprobe.d/a.conf", "options nf_conntrack hashsize=0x40000\n"),
            ("/etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_max = 0x40000\n"),
        ],
        &[],
    ),
    (
        "the module has no such parameter",
        &[("/etc/modprobe.d/a.conf", "options nf_conntrack nf_conntrack_max=65535\n")],
        &["unknown-parameter"],
    ),
    (
        "a good parameter and an unknown one",
        &[(
            "/etc/modprobe.d/a.conf",
            "options nf_conntrack hashsize=262144 nf_conntrack_max=65535\n",
        )],
        &["unknown-parameter"],
    ),
    (
        "a good parameter and an unknown one with dashes",
        &[(
            "/etc/modprobe.d/a.conf",
            "options nf_conntrack hashsize=262144 nf-conntrack-max=65535\n",
        )],
        &["unknown-parameter"],
    ),
    (
        "a hash behind the other parameter of its name, with a dash",
        &[(
            "/etc/modprobe.d/a.conf",
            "options nf_conntrack expect-hashsize=4096 hashsize=131072\n",
        )],
        &["hash-drift"],
    ),
    (
        "a good parameter and an unknown one at the start of a line that goes on",
        &[(
            "/etc/modprobe.d/a.conf",
            "options nf_conntrack acct=1 \\\nnf_conntrack_max=65535\\\n hashsize=262144\n",
        )],
        &["unknown-parameter"],
    ),
    (
        "a hash on a line that goes on",
        &[(
            "/etc/modprobe.d/a.conf",
            "options nf_conntrack acct=1 \\\n hashsize=131072\\\n tstamp=1\n",
        )],
        &["hash-drift"],
    ),
    (
        "the sysctl overrides the option",
        &[
            ("/etc/modprobe.d/a.conf", "options nf_conntrack hashsize=65536\n"),
            ("/etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_buckets = 262144\n"),
        ],
        &[],
    ),
    (
        "Proxmox VE's firewall",
        &[
            ("/proc/77/comm", "pve-firewall\n"),
            ("/etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_max = 1048576\n"),
        ],
        &["undone"],
    ),
    (
        "Proxmox VE's firewall, not enabled",
        &[
            ("/proc/77/comm", "pve-firewall\n"),
            ("/etc/pve/firewall/cluster.fw", "[OPTIONS]\n\nenable: 0\n"),
            ("/etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_max = 1048576\n"),
        ],
        &["drift"],
    ),
    (
        "kube-proxy",
        &[
            ("/proc/77/comm", "kube-proxy\n"),
            ("/etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_max = 1000000\n"),
            ("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait", "3600\n"),
        ],
        &["undone"],
    ),
    (
        "firewalld",
        &[
            SYSTEMD,
            NO_LIST,
            FIREWALLD,
            ("/etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_max = 262144\n"),
        ],
        &[],
    ),
    (
        "firewalld, and the name that its pattern does not match",
        &[SYSTEMD, NO_LIST, FIREWALLD, ("/etc/sysctl.d/a.conf", "net.nf_conntrack_max = 262144\n")],
        &["too-early"],
    ),
    (
        "OpenWrt",
        &[
            ("/etc/openwrt_release", ""),
            NO_LIST,
            ("/etc/modules.d/nf-conntrack", "nf_conntrack\n"),
            ("/etc/sysctl.d/11-nf-conntrack.conf", "net.netfilter.nf_conntrack_max=262144\n"),
        ],
        &[],
    ),
    (
        "OpenWrt without its list of modules",
        &[
            ("/etc/openwrt_release", ""),
            NO_LIST,
            ("/etc/sysctl.d/11-nf-conntrack.conf", "net.netfilter.nf_conntrack_max=262144\n"),
        ],
        &["too-early"],
    ),
    (
        "a hash that the kernel rounded up",
        &[
            ("/etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_buckets = 1000000\n"),
            ("/proc/sys/net/netfilter/nf_conntrack_buckets", "1000448\n"),
        ],
        &[],
    ),
    (
        "both names of the maximum",
        &[
            ("/etc/sysctl.d/10-old.conf", "net.nf_conntrack_max = 65536\n"),
            ("/etc/sysctl.d/90-new.conf", "net.netfilter.nf_conntrack_max = 262144\n"),
        ],
        &[],
    ),
    (
        "a file whose maximum the table has outgrown",
        &[
            ("/etc/sysctl.d/a.conf", "net.nf_conntrack_max = 65536 # ours\n"),
            ("/proc/sys/net/netfilter/nf_conntrack_count", "100000\n"),
        ],
        &["drift"],
    ),
    (
        "a module of an old kernel",
        &[
            ("/proc/sys/kernel/osrelease", "3.10.0-1160.el7.x86_64\n"),
            NO_LIST,
            ("/etc/modules-load.d/a.conf", "nf_conntrack_ipv4\n"),
            ("/etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_max = 262144\n"),
        ],
        &[],
    ),
    (
        "the same module on a new kernel",
        &[("/etc/modules-load.d/old.conf", " nf_conntrack_ipv4\n")],
        &["gone-module"],
    ),
    (
        "a balancer that needs conntrack",
        &[
            ("/proc/sys/kernel/osrelease", "6.8.0\n"),
            (
                "/lib/modules/6.8.0/modules.dep",
                "kernel/net/netfilter/ipvs/ip_vs.ko.zst: kernel/net/netfilter/nf_conntrack.ko.zst\n\
                 kernel/net/netfilter/nf_conntrack.ko.zst:\n",
            ),
            NO_LIST,
            ("/etc/modules-load.d/ipvs.conf", "ip_vs\n"),
            ("/etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_max = 262144\n"),
        ],
        &[],
    ),
    (
        "parameters in the list of modules",
        &[SYSTEMD, NO_LIST, ("/etc/modules-load.d/a.conf", "nf_conntrack hashsize=262144\n")],
        &["module-line"],
    ),
    (
        "forwarding by interface",
        &[
            ("/proc/sys/net/ipv4/conf/wan0/forwarding", "1\n"),
            ("/proc/sys/net/ipv4/conf/lan0/forwarding", "1\n"),
            ("/proc/net/ip_tables_names", "nat\n"),
            ("/proc/sys/net/netfilter/nf_conntrack_max", "7680\n"),
            (OLD_MAX, "7680\n"),
            ("/proc/sys/net/netfilter/nf_conntrack_buckets", "7680\n"),
            ("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", "432000\n"),
        ],
        &["small-table", "timeout"],
    ),
    (
        "UDP entries that stay an hour",
        &[("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", "3600\n")],
        &["timeout"],
    ),
    (
        "a sysctl that is no number",
        &[("/etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_max = 256k\n")],
        &["wrong-line"],
    ),
    (
        "advice for ip_conntrack",
        &[("/etc/sysctl.conf", "# ours\nnet.ipv4.netfilter.ip_conntrack_max = 65536\n")],
        &["wrong-line"],
    ),
    (
        "the hash by a script alone",
        &[("/etc/rc.local", "echo 262144 > /sys/module/nf_conntrack/parameters/hashsize\n")],
        &["hash-script"],
    ),
    (
        "a hash of long chains",
        &[("/proc/sys/net/netfilter/nf_conntrack_buckets", "16384\n")],
        &["hash"],
    ),
    (
        "a hash too wide",
        &[("/proc/sys/net/netfilter/nf_conntrack_max", "16384\n"), (OLD_MAX, "16384\n")],
        &["hash-wide"],
    ),
    (
        "a table nearly full",
        &[("/proc/sys/net/netfilter/nf_conntrack_count", "240000\n")],
        &["fill"],
    ),
    (
        "a table that memory does not bear",
        &[("/proc/meminfo", "MemTotal: 4194304 kB\nMemAvailable: 131072 kB\n")],
        &["memory"],
    ),
    (
        "no maximum",
        &[("/proc/sys/net/netfilter/nf_conntrack_max", "0\n"), (OLD_MAX, "0\n")],
        &["no-maximum"],
    ),
    (
        "a timeout that breaks idle connections",
        &[("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", "600\n")],
        &["timeout"],
    ),
    ("no SYN cookies", &[("/proc/sys/net/ipv4/tcp_syncookies", "0\n")], &["syn-cookies"]),
    (
        "a maximum that was raised without hash and list of modules",
        &[
            NO_LIST,
            ("/etc/sysctl.d/98-awp-conntrack.conf", "net.netfilter.nf_conntrack_max = 262144\n"),
            ("/proc/sys/net/netfilter/nf_conntrack_buckets", "7680\n"),
        ],
        &["hash", "too-early"],
    ),
    (
        "settings that came before conntrack",
        &[
            SYSTEMD,
            NO_LIST,
            ("/etc/sysctl.d/90-omr.conf", "net.netfilter.nf_conntrack_max = 524288\n"),
            ("/proc/sys/net/netfilter/nf_conntrack_max", "65536\n"),
            (OLD_MAX, "65536\n"),
        ],
        &["drift", "too-early"],
    ),
    (
        "a tuning script of CentOS 7 on a new kernel",
        &[
            (
                "/etc/sysctl.conf",
                "net.ipv4.tcp_syncookies = 1\nnet.nf_conntrack_max = 262144\n\
                 net.netfilter.nf_conntrack_max = 262144\n\
                 net.netfilter.nf_conntrack_tcp_timeout_established = 180\n",
            ),
            ("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", "180\n"),
        ],
        &["timeout"],
    ),
    (
        "a mixture of old and new names",
        &[("/etc/sysctl.conf", "# chef\nnet.netfilter.ip_conntrack_max = 193608\n")],
        &["wrong-line"],
    ),
    (
        "a list of old modules on Red Hat's 4.18",
        &[
            ("/proc/sys/kernel/osrelease", "4.18.0-240.el8.x86_64\n"),
            ("/etc/modules-load.d/99-replicated-ipvs.conf", "ip_vs\nnf_conntrack_ipv4\n"),
        ],
        &["gone-module"],
    ),
    (
        "a hash of an eighth of the maximum",
        &[("/proc/sys/net/netfilter/nf_conntrack_buckets", "32768\n")],
        &["hash"],
    ),
    (
        "modprobe runs a script that sets the maximum",
        &[(
            "/etc/modprobe.d/nf_conntrack.conf",
            "install nf_conntrack /sbin/modprobe --ignore-install nf_conntrack ; echo 262144 > \
             /proc/sys/net/nf_conntrack_max\n",
        )],
        &[],
    ),
    (
        "both hashes by options",
        &[(
            "/etc/modprobe.d/nf_conntrack.conf",
            "options nf_conntrack expect_hashsize=262144 hashsize=262144\n",
        )],
        &[],
    ),
    (
        "kube-proxy in a cluster that lowers what sysctl.d sets",
        &[
            ("/proc/77/comm", "k3s-server\n"),
            ("/etc/modules-load.d/nf.conf", "nf_conntrack\n"),
            ("/etc/sysctl.d/nf.conf", "net.netfilter.nf_conntrack_max=1000000\n"),
        ],
        &["undone"],
    ),
    (
        "kube-proxy that is told to leave the maximum alone",
        &[
            ("/proc/77/comm", "kube-proxy\n"),
            ("/proc/77/cmdline", "kube-proxy\0--config\0/var/lib/kube-proxy/config.conf\0"),
            ("/var/lib/kube-proxy/config.conf", "conntrack:\n  maxPerCore: 0\n  min: null\n"),
            ("/etc/sysctl.d/nf.conf", "net.netfilter.nf_conntrack_max=1000000\n"),
        ],
        &["drift"],
    ),
    (
        "a file that takes the maximum away",
        &[("/etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_max = 0\n")],
        &["drift"],
    ),
    (
        "a file with a maximum beyond the memory",
        &[("/etc/sysctl.d/a.conf", "net.nf_conntrack_max = 100000000\n")],
        &["drift"],
    ),
    (
        "no maximum, and a file with one beyond the memory",
        &[
            ("/etc/sysctl.d/a.conf", "net.nf_conntrack_max = 100000000\n"),
            ("/proc/sys/net/netfilter/nf_conntrack_max", "0\n"),
            (OLD_MAX, "0\n"),
        ],
        &["drift", "no-maximum"],
    ),
    (
        "a file whose maximum asks for a wider hash",
        &[
            ("/etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_max = 1048576\n"),
            ("/proc/sys/net/netfilter/nf_conntrack_buckets", "65536\n"),
        ],
        &["drift"],
    ),
    (
        "a file with a hash that is too narrow",
        &[("/etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_buckets = 16384\n")],
        &["drift"],
    ),
    (
        "the hash by a script alone, beside firewalld's line",
        &[
            SYSTEMD,
            FIREWALLD,
            ("/etc/rc.local", "echo 262144 > /sys/module/nf_conntrack/parameters/hashsize\n"),
        ],
        &["hash-script"],
    ),
    (
        "the list of modules is in vain, for systemd heeds a blacklist",
        &[
            SYSTEMD,
            ("/etc/modprobe.d/blacklist.conf", "blacklist nouveau\nblacklist nf-conntrack\n"),
            ("/etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_max = 262144\n"),
        ],
        &["too-early"],
    ),
    (
        "a blacklist that a package brings",
        &[
            SYSTEMD,
            ("/usr/lib/modprobe.d/ours.conf", "blacklist nouveau\nblacklist nf_conntrack\n"),
            ("/etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_max = 262144\n"),
        ],
        &["too-early"],
    ),
    (
        "an alias that turns conntrack off, and no list of modules",
        &[
            NO_LIST,
            ("/etc/modprobe.d/off.conf", "alias nf_conntrack off\n"),
            ("/etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_max = 262144\n"),
        ],
        &["too-early"],
    ),
    (
        "a blacklist of the kernel's command line",
        &[
            SYSTEMD,
            ("/proc/cmdline", "quiet modprobe.blacklist=nf_conntrack\n"),
            ("/etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_max = 262144\n"),
        ],
        &["too-early"],
    ),
    (
        "modules of the kernel's command line",
        &[
            SYSTEMD,
            NO_LIST,
            ("/proc/cmdline", "quiet modules_load=nf_conntrack\n"),
            ("/etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_max = 262144\n"),
        ],
        &[],
    ),
    (
        "a gone module on the kernel's command line",
        &[SYSTEMD, ("/proc/cmdline", "modules_load=nf_conntrack_ipv4\n")],
        &["gone-module"],
    ),
    (
        "settings of a module on the kernel's command line",
        &[("/proc/cmdline", "sysctl.net.netfilter.nf_conntrack_max=524288\n")],
        &["too-early"],
    ),
    (
        "the same, and conntrack is loaded late",
        &[
            NO_LIST,
            ("/lib/modules/6.12.0/modules.builtin", "kernel/fs/ext4/ext4.ko\n"),
            ("/proc/cmdline", "sysctl.net.nf_conntrack_max=262144\n"),
        ],
        &["too-early"],
    ),
    (
        "settings of the kernel's command line, and a file that comes later",
        &[
            ("/lib/modules/6.12.0/modules.builtin", "kernel/net/netfilter/nf_conntrack.ko\n"),
            ("/proc/cmdline", "sysctl.net.netfilter.nf_conntrack_max=1\n"),
            ("/etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_max = 262144\n"),
        ],
        &[],
    ),
    (
        "settings of the kernel's command line that somebody has changed",
        &[
            ("/lib/modules/6.12.0/modules.builtin", "kernel/net/netfilter/nf_conntrack.ko\n"),
            ("/proc/cmdline", "sysctl.net.netfilter.nf_conntrack_max=524288\n"),
        ],
        &["drift"],
    ),
    (
        "conntrack is kept away",
        &[("/etc/modprobe.d/no.conf", "install nf_conntrack /bin/false\n")],
        &["blocked"],
    ),
];
