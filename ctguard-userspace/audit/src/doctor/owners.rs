//! Other programs that set conntrack's values, or need it.

mod known;
mod kube_proxy;

use self::{
    known::{AGENTS, Agent, By, PROXIES, PROXMOX, TUNED},
    kube_proxy::Told,
};
use super::finding::{Finding, Findings};
use crate::host::Host;

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

    fn new(agent: &Agent, name: String, read: (String, String)) -> Self {
        let sets = agent.sets.iter().map(|&key| key.to_owned()).collect();
        Self { name, read, why: agent.why(), sets }
    }
}

/// All that can be recognised.
pub fn owners(host: &Host) -> Vec<Owner> {
    let listed = host.names("/proc").unwrap_or_default();
    let running = listed.iter().filter_map(|name| running(host, name.parse().ok()?));
    running.chain(AGENTS.iter().filter_map(|agent| installed(host, agent))).collect()
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

fn installed(host: &Host, agent: &Agent) -> Option<Owner> {
    let By::File(path, name, line) = &agent.by else { return None };
    let is_active = |line: &str| {
        let text = host.text(path).ok().flatten().unwrap_or_default();
        text.lines().any(|found| !found.trim_start().starts_with('#') && found.contains(line))
    };
    let is_there = host.is_there(path) && line.is_none_or(is_active);
    let read = ((*path).to_owned(), "present".to_owned());
    is_there.then(|| Owner::new(agent, (*name).to_owned(), read))
}

/// None for other processes, and for those that end meanwhile or are hidden.
fn running(host: &Host, pid: u32) -> Option<Owner> {
    let name = host.text(&format!("/proc/{pid}/comm")).ok()??;
    let name = name.trim();
    let names = |agent: &Agent| match agent.by {
        By::Process(names) if names.contains(&name) => Some(names),
        By::Process(_) | By::File(..) => None,
    };
    let (agent, names) = AGENTS.iter().find_map(|agent| Some((agent, names(agent)?)))?;
    let command = format!("/proc/{pid}/cmdline");
    let line = host.text(&command).ok().flatten().unwrap_or_default();
    let line = line.split('\0').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let mut owner = Owner::new(agent, format!("{name} (pid {pid})"), (command, line.clone()));
    if names == PROXIES {
        let told = Told::read(host, (pid, name), &line);
        owner.sets = told.sets().map(str::to_owned).collect();
        if let Some(file) = &told.unread {
            let unless = format!("unless {file}, which cannot be read here, says otherwise, ");
            owner.why.insert_str(0, &unless);
        }
        if told.is_disabled() {
            owner.sets.clear();
            owner.why.insert_str(0, "its kube-proxy is disabled (disable-kube-proxy); otherwise ");
        }
    } else if names == TUNED
        && let Some((said, keys)) = tuned(host)
    {
        (owner.why, owner.sets) = (said, keys);
    } else if names == PROXMOX && !is_proxmox_enabled(host) {
        owner.sets.clear();
        owner.why.insert_str(0, "it is disabled in /etc/pve/firewall/cluster.fw; ");
    }
    Some(owner)
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
        let names = super::AGENTS.iter().filter_map(|agent| match agent.by {
            super::By::Process(names) => Some(names),
            super::By::File(..) => None,
        });
        let agents: Vec<_> = names.flatten().collect();
        for (pid, agent) in (100..).zip(&agents) {
            machine.write(&format!("/proc/{pid}/comm"), &format!("{agent}\n"));
        }
        let audit = machine.audit();
        let owners = audit.notes("owner");
        assert_eq!(owners.len(), agents.len());
        assert!(owners.iter().all(|owner| !owner.why.is_empty()));
        assert!(machine.found().is_empty(), "an owner is no fault");
    }

    /// A name, how it is recognised, what it sets, and words of what it rewrites, when, and where to set
    /// it instead.
    type Known = (
        &'static str,
        &'static [(&'static str, &'static str)],
        &'static [&'static str],
        [&'static str; 3],
    );

    const OF_KUBE_PROXY: &[&str] = &["max", "tcp_timeout_established", "tcp_timeout_close_wait"];
    const KNOWN: [Known; 17] = [
        (
            "kube-proxy",
            &[("/proc/9/comm", "kube-proxy\n")],
            OF_KUBE_PROXY,
            ["sets nf_conntrack_max", "at each start", "in its configuration"],
        ),
        (
            "MicroK8s",
            &[("/proc/9/comm", "kubelite\n")],
            OF_KUBE_PROXY,
            ["tcpCloseWaitTimeout", "at each start", "/var/snap/microk8s/current/args/kube-proxy"],
        ),
        (
            "MicroK8s that is told to leave the maximum alone",
            &[
                ("/proc/9/comm", "kubelite\n"),
                ("/var/snap/microk8s/current/args/kube-proxy", "--conntrack-max-per-core=0\n"),
            ],
            &["tcp_timeout_established", "tcp_timeout_close_wait"],
            ["tcpEstablishedTimeout", "at each start", "`maxPerCore: 0`"],
        ),
        (
            "k3s",
            &[("/proc/9/comm", "k3s-agent\n")],
            OF_KUBE_PROXY,
            ["a quarter of that", "lowers values", "/etc/rancher/k3s/config.yaml"],
        ),
        (
            "k3s without kube-proxy",
            &[
                ("/proc/9/comm", "k3s-server\n"),
                ("/etc/rancher/k3s/config.yaml", "disable-kube-proxy: true\n"),
            ],
            &[],
            ["its kube-proxy is disabled", "at each start", "kube-proxy-arg"],
        ),
        (
            "RKE2, whose kube-proxy is a process of its own",
            &[
                ("/proc/9/comm", "kube-proxy\n"),
                ("/proc/9/cmdline", "kube-proxy\0--conntrack-max-per-core=0\0"),
            ],
            &["tcp_timeout_established", "tcp_timeout_close_wait"],
            ["sets timeouts", "from 1.29 on", "rke2/config.yaml"],
        ),
        (
            "Proxmox VE",
            &[("/proc/9/comm", "pve-firewall\n")],
            &["max", "buckets", "tcp_timeout_established", "tcp_timeout_syn_recv"],
            ["a hash of a quarter", "applies its rules", "/etc/pve/local/host.fw"],
        ),
        (
            "Docker",
            &[("/proc/9/comm", "dockerd\n")],
            &[],
            ["ip_forward", "as containers come", "DOCKER-USER"],
        ),
        (
            "libvirt",
            &[("/proc/9/comm", "virtnetworkd\n")],
            &[],
            ["NAT networks", "one of its networks starts", "/etc/libvirt/hooks/network"],
        ),
        (
            "ufw",
            &[("/etc/ufw/ufw.conf", "ENABLED=yes\n")],
            &[],
            ["overrides sysctl.d", "enabled or reloaded", "values in /etc/ufw/sysctl.conf"],
        ),
        (
            "firewalld",
            &[("/proc/9/comm", "firewalld\n")],
            &[],
            ["unloads conntrack", "with each reload", "line in modprobe.d"],
        ),
        (
            "Shorewall",
            &[("/etc/shorewall/shorewall.conf", "STARTUP_ENABLED=Yes\n")],
            &[],
            ["all rules again", "restart and reload", "/etc/shorewall/conntrack"],
        ),
        (
            "CSF",
            &[("/etc/csf/csf.conf", "TESTING = \"0\"\n")],
            &[],
            ["all iptables rules", "start and restart", "/etc/csf/csfpost.sh"],
        ),
        (
            "NetworkManager",
            &[("/proc/9/comm", "NetworkManager\n")],
            &[],
            ["forwarding and NAT", "connection is up", "nmcli"],
        ),
        (
            "tuned",
            &[("/proc/9/comm", "tuned\n")],
            &[],
            ["active profile", "changes the profile", "below /etc/tuned"],
        ),
        (
            "cloud-init",
            &[("/var/lib/cloud/instance/user-data.txt", "- sysctl -w net.nf_conntrack_max=1\n")],
            &[],
            ["sets conntrack's values", "first boot", "user data of the instance"],
        ),
        (
            "Cilium",
            &[("/proc/9/comm", "cilium-agent\n")],
            &[],
            ["their own tables", "at each start", "cilium-config"],
        ),
    ];

    #[test]
    fn each_owner_is_told_with_what_it_rewrites_when_and_where_to_set_it() {
        for (name, files, sets, words) in KNOWN {
            let machine = Machine::healthy("owners-known");
            for (path, text) in files {
                machine.write(path, text);
            }
            let owners = super::owners(machine.host());
            let [owner] = owners.as_slice() else { panic!("{name}: {owners:?}") };
            assert_eq!(owner.sets, sets, "{name}");
            for word in words {
                assert!(owner.why.contains(word), "{name}: no {word:?} in {:?}", owner.why);
            }
            assert!(machine.found().is_empty(), "{name}: an owner is no fault");
        }
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
