//! Other programs that set conntrack's values, or need it.

use super::finding::{Finding, Findings};
use crate::host::Host;

const TUNED: &str = "tuned";

/// Processes that set conntrack's values, share them with another machine, or need conntrack.
const AGENTS: [(&[&str], &str); 9] = [
    (
        &["kube-proxy", "k3s-server", "k3s-agent"],
        "kube-proxy raises nf_conntrack_max to --conntrack-max-per-core (32768) times the number of \
         cores, at least to --conntrack-min (131072), and sets the timeouts for established and \
         close_wait. It never lowers the maximum. Set its options to 0 to keep it from changing them",
    ),
    (&["firewalld"], "a reload may load conntrack helpers again; it does not set the maximum"),
    (
        &["conntrackd", "keepalived"],
        "two machines take over for each other, and conntrackd copies their tables: give both the \
         same maximum and hash, or the smaller one loses flows at a failover",
    ),
    (&[TUNED], "its active profile does not set conntrack's values"),
    (
        &["dockerd"],
        "published ports and outgoing connections of containers use NAT, which needs conntrack: \
         `notrack` would cut them off. Docker does not set the maximum. Every container has its own \
         network namespace and count",
    ),
    (
        &["calico-node"],
        "its policies are rules that use conntrack, in chains that start with cali-; its eBPF data \
         plane has a table of its own",
    ),
    (
        &["cilium-agent"],
        "its eBPF programs track connections in their own tables (`cilium bpf ct list global`; \
         bpf-ct-global-tcp-max, bpf-ct-global-any-max). Packets that also pass the kernel's stack \
         have an entry here too",
    ),
    (&["flanneld"], "it masquerades traffic that leaves the cluster, which needs conntrack"),
    (
        &["libvirtd", "virtnetworkd"],
        "its NAT networks masquerade their guests, whose flows have entries here; guests on a bridge \
         have none unless net.bridge.bridge-nf-call-iptables is 1",
    ),
];

/// Programs that are recognised by a file: its path, their name, what they do.
const TRACES: [(&str, &str, &str); 5] = [
    (
        "/etc/ufw/ufw.conf",
        "ufw",
        "it applies /etc/ufw/sysctl.conf when it starts, which overrides sysctl.d",
    ),
    (
        "/etc/apf/conf.apf",
        "APF",
        "SYSCTL_CONNTRACK in /etc/apf/conf.apf sets the maximum whenever APF starts: change it there",
    ),
    (
        "/etc/csf/csf.conf",
        "CSF",
        "a restart rewrites all iptables rules; put your own into /etc/csf/csfpost.sh. CONNLIMIT and \
         PORTFLOOD in csf.conf apply after the entry was created",
    ),
    (
        "/etc/sysctl.d/11-nf-conntrack.conf",
        "OpenWrt",
        "/etc/sysctl.d/11-nf-conntrack.conf and the firewall page set the maximum",
    ),
    (
        "/opt/vyatta",
        "VyOS",
        "`set system conntrack table-size` and `hash-size` set both; by default there is one bucket \
         for eight entries",
    ),
];

/// Directories of tuned's profiles; the first that has a profile counts.
const PROFILES: [&str; 4] =
    ["/etc/tuned/profiles", "/etc/tuned", "/usr/lib/tuned/profiles", "/usr/lib/tuned"];
const MOST_PROFILES: usize = 16;

pub(super) fn check(host: &Host, findings: &mut Findings) {
    let listed = host.names("/proc").unwrap_or_default();
    findings.add(listed.iter().filter_map(|name| agent(host, name.parse().ok()?)));
    for (path, name, why) in TRACES.iter().filter(|(path, ..)| host.is_there(path)) {
        let what = format!("{name} is installed");
        findings.add([Finding::note("owner", what).read(*path, "present").because(*why)]);
    }
    if let Some(Some(mounts)) = findings.read("read-only", host.text("/proc/self/mounts")) {
        findings.add(read_only(&mounts));
    }
}

/// None for other processes, and for those that end meanwhile or are hidden.
fn agent(host: &Host, pid: u32) -> Option<Finding> {
    // At most 15 bytes, as the kernel has it.
    let name = host.text(&format!("/proc/{pid}/comm")).ok()??;
    let name = name.trim();
    let (_, why) = AGENTS.iter().find(|(names, _)| names.contains(&name))?;
    let profile = if name == TUNED { tuned(host) } else { None };
    let command = format!("/proc/{pid}/cmdline");
    let line = host.text(&command).ok().flatten().unwrap_or_default();
    let words: Vec<_> = line.split('\0').filter(|word| !word.is_empty()).collect();
    Finding::note("owner", format!("{name} is running (pid {pid})"))
        .because(profile.unwrap_or_else(|| (*why).to_owned()))
        .read(command, words.join(" "))
        .into()
}

/// Looks for conntrack in tuned's active profiles, and in those that they include.
fn tuned(host: &Host) -> Option<String> {
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
                return Some(format!(
                    "{path} says `{line}`: tuned sets it whenever it starts. Change it in a profile \
                     of your own that includes this one"
                ));
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
        let agents: Vec<_> = super::AGENTS.iter().flat_map(|(names, _)| *names).collect();
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
