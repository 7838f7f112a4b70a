//! The programs that doctor knows: what each sets or rewrites, when, and where to set it instead.

pub(super) struct Agent {
    pub(super) by: By,
    /// Settings that it writes again, without what all keys begin with.
    pub(super) sets: &'static [&'static str],
    pub(super) what: &'static str,
    pub(super) when: &'static str,
    pub(super) instead: &'static str,
}

/// How it is recognised.
pub(super) enum By {
    /// By the names of its processes, as the kernel has them: at most 15 bytes.
    Process(&'static [&'static str]),
    /// By a file, its name, and a line in the file without which it does nothing.
    File(&'static str, &'static str, Option<&'static str>),
}

pub(super) const PROXIES: &[&str] = &["kube-proxy", "kubelite", "k3s-server", "k3s-agent"];
pub(super) const PROXMOX: &[&str] = &["pve-firewall", "proxmox-firewal"];
pub(super) const TUNED: &[&str] = &["tuned"];

pub(super) const AGENTS: [Agent; 18] = [
    Agent {
        by: By::Process(PROXIES),
        sets: &["max", "tcp_timeout_established", "tcp_timeout_close_wait"],
        what: "kube-proxy sets nf_conntrack_max to conntrack.maxPerCore (32768) times the number of \
               cores, at least to conntrack.min (131072), widens the hash to a quarter of that, and \
               sets timeouts by tcpEstablishedTimeout (24h) and tcpCloseWaitTimeout (1h)",
        when: "at each start; before 1.22 and from 1.29 on it lowers values as well",
        instead: "Set them in its configuration (k3s and RKE2: kube-proxy-arg in \
                  /etc/rancher/k3s/config.yaml or /etc/rancher/rke2/config.yaml; MicroK8s: \
                  /var/snap/microk8s/current/args/kube-proxy). `maxPerCore: 0` leaves the maximum \
                  alone, and `0s` a timeout",
    },
    Agent {
        by: By::Process(PROXMOX),
        sets: &["max", "buckets", "tcp_timeout_established", "tcp_timeout_syn_recv"],
        what: "while Proxmox VE's firewall is enabled, it sets the maximum, a hash of a quarter of it, \
               and two timeouts",
        when: "whenever it applies its rules",
        instead: "Set nf_conntrack_max, nf_conntrack_tcp_timeout_established and \
                  nf_conntrack_tcp_timeout_syn_recv in [OPTIONS] of /etc/pve/local/host.fw instead",
    },
    Agent {
        by: By::Process(&["dockerd"]),
        sets: &[],
        what: "it sets none of conntrack's values, but turns on net.ipv4.ip_forward and writes its NAT \
               rules again; published ports and outgoing connections of containers need conntrack, so \
               `notrack` would cut them off. Every container has its own network namespace and count",
        when: "at each start, and as containers come and go",
        instead: "Set the maximum in sysctl.d, and put rules of your own into the chain DOCKER-USER",
    },
    Agent {
        by: By::Process(&["libvirtd", "virtnetworkd"]),
        sets: &[],
        what: "it sets none of conntrack's values, but turns on forwarding and writes the rules of its \
               NAT networks again, whose guests' flows have entries here; guests on a bridge have none \
               unless net.bridge.bridge-nf-call-iptables is 1",
        when: "whenever it or one of its networks starts",
        instead: "Set the maximum in sysctl.d, and put rules of your own into \
                  /etc/libvirt/hooks/network",
    },
    Agent {
        by: By::File("/etc/ufw/ufw.conf", "ufw", Some("ENABLED=yes")),
        sets: &[],
        what: "it applies /etc/ufw/sysctl.conf (IPT_SYSCTL in /etc/default/ufw), which overrides \
               sysctl.d, and writes its rules again",
        when: "when it starts, is enabled or reloaded",
        instead: "Set the values in /etc/ufw/sysctl.conf, and put rules of your own into \
                  /etc/ufw/before.rules",
    },
    Agent {
        by: By::Process(&["firewalld"]),
        sets: &[],
        what: "it sets none of conntrack's values, but may load conntrack helpers again; where \
               CleanupModulesOnExit is on, it unloads conntrack, and with it go values that were set by \
               hand",
        when: "helpers with each reload, modules when it stops or restarts",
        instead: "Set the values in sysctl.d, which its line in modprobe.d applies whenever conntrack \
                  is loaded, and rules by firewall-cmd --permanent",
    },
    Agent {
        by: By::File("/etc/shorewall/shorewall.conf", "Shorewall", None),
        sets: &[],
        what: "it sets none of conntrack's values, but writes all rules again, and forwarding by \
               IP_FORWARDING",
        when: "with each start, restart and reload",
        instead: "Set the values in sysctl.d, put `notrack` into /etc/shorewall/conntrack, and limits \
                  into /etc/shorewall/rules",
    },
    Agent {
        by: By::File("/etc/csf/csf.conf", "CSF", None),
        sets: &[],
        what: "it rewrites all iptables rules; CONNLIMIT and PORTFLOOD in csf.conf apply after the \
               entry was created",
        when: "with each start and restart",
        instead: "Set the values in sysctl.d, and put rules of your own into /etc/csf/csfpost.sh",
    },
    Agent {
        by: By::Process(&["NetworkManager"]),
        sets: &[],
        what: "it sets none of conntrack's values; a connection whose ipv4.method is shared turns on \
               forwarding and NAT",
        when: "while that connection is up",
        instead: "Set the values in sysctl.d; `nmcli connection modify` changes the method",
    },
    Agent {
        by: By::Process(TUNED),
        sets: &[],
        what: "its active profile does not set conntrack's values; the section [sysctl] of another may",
        when: "whenever it starts or changes the profile",
        instead: "Set the values in sysctl.d, or in a profile of your own below /etc/tuned",
    },
    Agent {
        by: By::File("/var/lib/cloud/instance/user-data.txt", "cloud-init", Some("nf_conntrack")),
        sets: &[],
        what: "its user data sets conntrack's values",
        when: "at the first boot of an instance (`bootcmd`: at every boot); a new instance has those, \
               not what was changed here",
        instead: "Change the user data of the instance or its template (`write_files`, `runcmd`, \
                  `bootcmd`)",
    },
    Agent {
        by: By::Process(&["cilium-agent"]),
        sets: &[],
        what: "it sets none of conntrack's values: its eBPF programs track connections in their own \
               tables (`cilium bpf ct list global`), which it makes again if their size has changed. \
               Packets that also pass the kernel's stack have an entry here too",
        when: "at each start",
        instead: "Set bpf-ct-global-tcp-max and bpf-ct-global-any-max in its ConfigMap cilium-config, \
                  and the kernel's values in sysctl.d",
    },
    Agent {
        by: By::Process(&["conntrackd", "keepalived"]),
        sets: &[],
        what: "conntrackd keeps copying the table of one machine to another, which takes over at a failover",
        when: "all the time",
        instead: "Give both the same maximum and hash, or the smaller one loses flows. With a guard, \
                  run `ctguard learn` after `conntrackd -c`",
    },
    Agent {
        by: By::Process(&["calico-node"]),
        sets: &[],
        what: "its policies are rules that use conntrack, in chains that start with cali-, which it \
               writes again; its eBPF data plane has a table of its own",
        when: "as policies change",
        instead: "Put rules of your own into its policies, and conntrack's values into sysctl.d",
    },
    Agent {
        by: By::Process(&["flanneld"]),
        sets: &[],
        what: "it masquerades traffic that leaves the cluster, which needs conntrack",
        when: "while it runs",
        instead: "Set conntrack's values in sysctl.d",
    },
    Agent {
        by: By::File("/etc/apf/conf.apf", "APF", Some("SYSCTL_CONNTRACK=")),
        sets: &["max"],
        what: "SYSCTL_CONNTRACK in /etc/apf/conf.apf sets the maximum",
        when: "whenever APF starts",
        instead: "Change it there",
    },
    Agent {
        by: By::File("/etc/sysctl.d/11-nf-conntrack.conf", "OpenWrt", None),
        sets: &[],
        what: "/etc/sysctl.d/11-nf-conntrack.conf sets conntrack's values",
        when: "at each boot; an upgrade brings OpenWrt's own file back",
        instead: "Name it, and files of your own, in /etc/sysupgrade.conf",
    },
    Agent {
        by: By::File("/opt/vyatta", "VyOS", None),
        sets: &["max", "buckets"],
        what: "the configuration sets maximum and hash",
        when: "at each boot and commit; until 1.4 the hash takes effect at the second boot only",
        instead: "`set system conntrack table-size` and `hash-size`",
    },
];

impl Agent {
    pub(super) fn why(&self) -> String {
        format!("{}. When: {}. {}", self.what, self.when, self.instead)
    }
}
