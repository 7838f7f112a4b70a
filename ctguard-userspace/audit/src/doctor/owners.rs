//! Other programs that set conntrack's values, or need it.

use super::finding::{Finding, Findings};
use crate::host::Host;

const TUNED: &str = "tuned";
const KEYS: &str = "net.netfilter.nf_conntrack_";

/// A program that concerns conntrack, and the settings that it writes again by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    name: String,
    /// How it was recognised.
    read: (String, String),
    why: String,
    /// Keys, without what all begin with.
    sets: Vec<String>,
}

/// Who they are, which settings they write again, and what they do, when, and where it is set instead.
struct Agent {
    /// As the kernel has it: at most 15 bytes.
    names: &'static [&'static str],
    sets: &'static [&'static str],
    why: &'static str,
}

const KUBE_PROXY: Agent = Agent {
    names: &["kube-proxy", "kubelite", "k3s-server", "k3s-agent"],
    sets: &["max", "tcp_timeout_established", "tcp_timeout_close_wait"],
    why: "kube-proxy sets these at each start: nf_conntrack_max to conntrack.maxPerCore (32768) times \
          the number of cores, at least to conntrack.min (131072), and widens the hash to a quarter of \
          that; the timeouts by tcpEstablishedTimeout (24h) and tcpCloseWaitTimeout (1h). Before 1.22 \
          and from 1.29 on it lowers values as well. Set them in its configuration (k3s and RKE2: \
          --kube-proxy-arg; MicroK8s: args/kube-proxy); `maxPerCore: 0` leaves the maximum alone, and \
          `0s` a timeout",
};

/// Processes that set conntrack's values, share them with another machine, or need conntrack.
const AGENTS: [Agent; 11] = [
    KUBE_PROXY,
    Agent {
        names: &["pve-firewall", "proxmox-firewal"],
        sets: &["max", "buckets", "tcp_timeout_established", "tcp_timeout_syn_recv"],
        why: "while Proxmox VE's firewall is enabled, it sets the maximum, a hash of a quarter of it, \
              and two timeouts whenever it applies its rules. Set nf_conntrack_max, \
              nf_conntrack_tcp_timeout_established and nf_conntrack_tcp_timeout_syn_recv in [OPTIONS] \
              of /etc/pve/local/host.fw instead",
    },
    Agent {
        names: &["firewalld"],
        sets: &[],
        why: "it sets none of conntrack's values. A reload may load conntrack helpers again. Where \
              CleanupModulesOnExit is on, a restart unloads conntrack, and with it go values that were \
              set by hand",
    },
    Agent {
        names: &["conntrackd", "keepalived"],
        sets: &[],
        why: "two machines take over for each other, and conntrackd copies their tables: give both the \
              same maximum and hash, or the smaller one loses flows at a failover. With a guard, run \
              `ctguard learn` after `conntrackd -c`",
    },
    Agent { names: &[TUNED], sets: &[], why: "its active profile does not set conntrack's values" },
    Agent {
        names: &["dockerd"],
        sets: &[],
        why: "published ports and outgoing connections of containers use NAT, which needs conntrack: \
              `notrack` would cut them off. Docker does not set the maximum. Every container has its \
              own network namespace and count",
    },
    Agent {
        names: &["calico-node"],
        sets: &[],
        why: "its policies are rules that use conntrack, in chains that start with cali-; its eBPF data \
              plane has a table of its own",
    },
    Agent {
        names: &["cilium-agent"],
        sets: &[],
        why: "its eBPF programs track connections in their own tables (`cilium bpf ct list global`; \
              bpf-ct-global-tcp-max, bpf-ct-global-any-max). Packets that also pass the kernel's stack \
              have an entry here too",
    },
    Agent {
        names: &["flanneld"],
        sets: &[],
        why: "it masquerades traffic that leaves the cluster, which needs conntrack",
    },
    Agent {
        names: &["libvirtd", "virtnetworkd"],
        sets: &[],
        why: "its NAT networks masquerade their guests, whose flows have entries here; guests on a \
              bridge have none unless net.bridge.bridge-nf-call-iptables is 1",
    },
    Agent {
        names: &["NetworkManager"],
        sets: &[],
        why: "it sets none of conntrack's values. A connection whose ipv4.method is shared turns on \
              forwarding and NAT while it is up",
    },
];

/// A file by which a program is recognised, a line in it without which it does nothing, what it sets,
/// its name, and what it does.
type Trace =
    (&'static str, Option<&'static str>, &'static [&'static str], &'static str, &'static str);

const TRACES: [Trace; 7] = [
    (
        "/etc/ufw/ufw.conf",
        Some("ENABLED=yes"),
        &[],
        "ufw",
        "it applies /etc/ufw/sysctl.conf when it starts, which overrides sysctl.d",
    ),
    (
        "/etc/apf/conf.apf",
        Some("SYSCTL_CONNTRACK="),
        &["max"],
        "APF",
        "SYSCTL_CONNTRACK in /etc/apf/conf.apf sets the maximum whenever APF starts: change it there",
    ),
    (
        "/etc/csf/csf.conf",
        None,
        &[],
        "CSF",
        "a restart rewrites all iptables rules; put your own into /etc/csf/csfpost.sh. CONNLIMIT and \
         PORTFLOOD in csf.conf apply after the entry was created",
    ),
    (
        "/etc/shorewall/shorewall.conf",
        None,
        &[],
        "Shorewall",
        "it sets none of conntrack's values. A restart rewrites all rules: put `notrack` into \
         /etc/shorewall/conntrack, and limits into /etc/shorewall/rules",
    ),
    (
        "/var/lib/cloud/instance/user-data.txt",
        Some("nf_conntrack"),
        &[],
        "cloud-init",
        "its user data sets conntrack's values, at the first boot of an instance: a new instance has \
         those, not what was changed here",
    ),
    (
        "/etc/sysctl.d/11-nf-conntrack.conf",
        None,
        &[],
        "OpenWrt",
        "/etc/sysctl.d/11-nf-conntrack.conf sets conntrack's values; name it, and files of your own, in \
         /etc/sysupgrade.conf",
    ),
    (
        "/opt/vyatta",
        None,
        &["max", "buckets"],
        "VyOS",
        "`set system conntrack table-size` and `hash-size` set both; until 1.4 the hash takes effect \
         at the second boot only",
    ),
];

/// Directories of tuned's profiles; the first that has a profile counts.
const PROFILES: [&str; 4] =
    ["/etc/tuned/profiles", "/etc/tuned", "/usr/lib/tuned/profiles", "/usr/lib/tuned"];
const MOST_PROFILES: usize = 16;

impl Owner {
    pub fn sets(&self, key: &str) -> bool {
        key.strip_prefix(KEYS).is_some_and(|name| self.sets.iter().any(|set| set == name))
    }

    /// Why a change of this key does not last, and where to make it instead.
    pub fn instead(&self, key: &str) -> String {
        format!("{} sets {key} by itself, so a change does not last here: {}", self.name, self.why)
    }
}

/// All that can be recognised.
pub fn owners(host: &Host) -> Vec<Owner> {
    let listed = host.names("/proc").unwrap_or_default();
    let agents = listed.iter().filter_map(|name| agent(host, name.parse().ok()?));
    agents.chain(TRACES.iter().filter_map(|trace| of_trace(host, trace))).collect()
}

pub(super) fn check(host: &Host, owners: &[Owner], findings: &mut Findings) {
    findings.add(owners.iter().map(|owner| {
        let (place, value) = &owner.read;
        let is = if place.starts_with("/proc") { "running" } else { "installed" };
        Finding::note("owner", format!("{} is {is}", owner.name))
            .read(place, value)
            .because(&owner.why)
    }));
    if let Some(Some(mounts)) = findings.read("read-only", host.text("/proc/self/mounts")) {
        findings.add(read_only(&mounts));
    }
}

fn of_trace(host: &Host, (path, line, sets, name, why): &Trace) -> Option<Owner> {
    let is_active = |line: &str| {
        let text = host.text(path).ok().flatten().unwrap_or_default();
        text.lines().any(|found| !found.trim_start().starts_with('#') && found.contains(line))
    };
    let is_there = host.is_there(path) && line.is_none_or(is_active);
    is_there.then(|| Owner {
        name: (*name).to_owned(),
        read: ((*path).to_owned(), "present".to_owned()),
        why: (*why).to_owned(),
        sets: sets.iter().map(|&key| key.to_owned()).collect(),
    })
}

/// None for other processes, and for those that end meanwhile or are hidden.
fn agent(host: &Host, pid: u32) -> Option<Owner> {
    let name = host.text(&format!("/proc/{pid}/comm")).ok()??;
    let name = name.trim();
    let Agent { names, sets, why } = AGENTS.iter().find(|agent| agent.names.contains(&name))?;
    let command = format!("/proc/{pid}/cmdline");
    let line = host.text(&command).ok().flatten().unwrap_or_default();
    let line = line.split('\0').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let mut sets: Vec<_> = sets.iter().map(|&key| key.to_owned()).collect();
    let mut why = (*why).to_owned();
    if *names == KUBE_PROXY.names {
        let left_alone = left_alone(host, &line);
        sets.retain(|key| !left_alone.contains(&key.as_str()));
    } else if name == TUNED
        && let Some((said, keys)) = tuned(host)
    {
        (why, sets) = (said, keys);
    } else if name.starts_with('p') && !is_proxmox_enabled(host) {
        sets.clear();
        why.insert_str(0, "it is disabled in /etc/pve/firewall/cluster.fw; ");
    }
    Some(Owner { name: format!("{name} (pid {pid})"), read: (command, line), why, sets })
}

/// The settings that options of kube-proxy, or its file, tell it to leave alone.
fn left_alone(host: &Host, line: &str) -> Vec<&'static str> {
    const OPTIONS: [(&str, &str, &str); 3] = [
        ("max", "conntrack-max-per-core=0", "maxPerCore: 0"),
        (
            "tcp_timeout_established",
            "conntrack-tcp-timeout-established=0",
            "tcpEstablishedTimeout: 0s",
        ),
        ("tcp_timeout_close_wait", "conntrack-tcp-timeout-close-wait=0", "tcpCloseWaitTimeout: 0s"),
    ];
    let mut words = line.split(' ').skip_while(|word| !word.starts_with("--config"));
    let file = words.next().and_then(|word| match word.split_once('=') {
        Some((_, file)) => Some(file),
        None => words.next(),
    });
    let file = file.and_then(|file| host.text(file).ok().flatten()).unwrap_or_default();
    let has_option = |option: &str| {
        line.split(' ').any(|word| word.ends_with(option) || word.ends_with(&format!("{option}s")))
    };
    let is_left = |(_, option, entry): &&(&str, &str, &str)| {
        has_option(option) || file.lines().any(|line| line.trim() == *entry)
    };
    OPTIONS.iter().filter(is_left).map(|(key, ..)| *key).collect()
}

/// The firewall is off unless the cluster's file enables it; a copy may lack that file.
fn is_proxmox_enabled(host: &Host) -> bool {
    let text = host.text("/etc/pve/firewall/cluster.fw").ok().flatten();
    let enables = |line: &str| {
        line.split_once(':')
            .is_some_and(|(key, value)| key.trim() == "enable" && value.trim() == "1")
    };
    text.map_or_else(|| !host.is_there("/etc/pve"), |text| text.lines().any(enables))
}

/// Looks for conntrack in tuned's active profiles, and in those that they include.
fn tuned(host: &Host) -> Option<(String, Vec<String>)> {
    let text = |path: &str| host.text(path).ok().flatten();
    let active = text("/etc/tuned/active_profile")?;
    let mut profiles: Vec<String> = active.split_whitespace().map(str::to_owned).collect();
    let mut at = 0;
    while let Some(profile) = profiles.get(at).filter(|_| at < MOST_PROFILES) {
        at += 1;
        let mut paths = PROFILES.iter().map(|place| format!("{place}/{profile}/tuned.conf"));
        let Some((path, conf)) = paths.find_map(|path| text(&path).map(|conf| (path, conf))) else {
            continue;
        };
        for line in conf.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            if line.contains("nf_conntrack") {
                let said = format!(
                    "{path} says `{line}`: tuned sets it whenever it starts. Change it in a profile \
                     of your own that includes this one"
                );
                let keys = conf.lines().filter_map(|line| line.trim().split_once('='));
                let keys = keys.filter_map(|(key, _)| key.trim().rsplit("nf_conntrack_").next());
                return Some((said, keys.map(str::to_owned).collect()));
            }
            if let Some((key, included)) = line.split_once('=')
                && key.trim() == "include"
            {
                profiles.extend(included.split([',', ' ']).map(str::trim).map(str::to_owned));
            }
        }
    }
    None
}

fn read_only(mounts: &str) -> Option<Finding> {
    let line = mounts.lines().find(|line| {
        let words: Vec<_> = line.split(' ').collect();
        matches!(words[..], [_, "/proc/sys" | "/sys", _, options, ..]
            if options.split(',').any(|option| option == "ro"))
    })?;
    Finding::note("read-only", "kernel settings are mounted read-only")
        .read("/proc/self/mounts", line)
        .because("this looks like a container: run `ctguard tune` on the host")
        .into()
}

#[cfg(test)]
mod tests {
    use crate::doctor::{finding::Severity, testing::Machine};

    #[test]
    fn agents_that_set_the_maximum_are_named_with_what_they_do() {
        let machine = Machine::healthy("owners-agents");
        machine.write("/proc/77/comm", "kube-proxy\n");
        machine.write("/proc/77/cmdline", "kube-proxy\0--conntrack-min=1\0");
        machine.write("/etc/ufw/ufw.conf", "ENABLED=yes\n");
        assert!(machine.found().is_empty(), "an owner is no fault");
        let audit = machine.audit();
        let owners = audit.notes("owner");
        assert_eq!(owners.len(), 2, "{owners:?}");
        assert!(owners[0].what.contains("pid 77"));
        assert_eq!(owners[0].read[0].value, "kube-proxy --conntrack-min=1");
    }

    #[test]
    fn a_profile_of_tuned_is_told_with_the_line_that_it_sets() {
        let machine = Machine::healthy("owners-tuned");
        machine.write("/proc/78/comm", "tuned\n");
        machine.write("/etc/tuned/active_profile", "router\n");
        machine.write("/etc/tuned/router/tuned.conf", "[main]\ninclude=base\n# nf_conntrack\n");
        assert!(machine.audit().notes("owner")[0].why.contains("does not set"));
        machine.write("/usr/lib/tuned/base/tuned.conf", "net.netfilter.nf_conntrack_max=1\n");
        let audit = machine.audit();
        let why = &audit.notes("owner")[0].why;
        assert!(why.starts_with("/usr/lib/tuned/base/tuned.conf says"), "{why}");
    }

    /// Fails when an agent in the list has nothing said of it.
    #[test]
    fn every_agent_is_told_with_what_it_means() {
        let machine = Machine::healthy("owners-all");
        let agents: Vec<_> = super::AGENTS.iter().flat_map(|agent| agent.names).collect();
        for (pid, agent) in (100..).zip(&agents) {
            machine.write(&format!("/proc/{pid}/comm"), &format!("{agent}\n"));
        }
        let audit = machine.audit();
        let owners = audit.notes("owner");
        assert_eq!(owners.len(), agents.len());
        assert!(owners.iter().all(|owner| !owner.why.is_empty()));
        assert!(machine.found().is_empty(), "an owner is no fault");
    }

    #[test]
    fn a_container_is_told_to_go_to_the_host() {
        let machine = Machine::healthy("owners-container");
        machine.write("/proc/self/mounts", "proc /proc/sys proc ro,nosuid 0 0\n");
        assert!(machine.all_found().contains(&("read-only", Severity::Note)));
        machine.write("/proc/self/mounts", "proc /proc proc rw,nosuid 0 0\n");
        assert!(!machine.all_found().contains(&("read-only", Severity::Note)));
    }
}
