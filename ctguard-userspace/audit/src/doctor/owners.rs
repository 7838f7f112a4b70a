//! Who else has a say: agents that set conntrack's values, and what makes it track at all.

use super::finding::{Finding, Findings};
use crate::host::{Host, Process, Unread};

/// Processes that set conntrack's values, or must agree with another machine about them, or make
/// the machine track.
const AGENTS: [&str; 13] = [
    "kube-proxy",
    "k3s-server",
    "k3s-agent",
    "firewalld",
    "conntrackd",
    "keepalived",
    "tuned",
    "dockerd",
    "calico-node",
    "cilium-agent",
    "flanneld",
    "libvirtd",
    "virtnetworkd",
];

/// Who is known by what it leaves behind.
const TRACES: [(&str, &str, &str); 5] = [
    ("/etc/ufw/ufw.conf", "ufw", "it applies /etc/ufw/sysctl.conf when it starts, over sysctl.d"),
    (
        "/etc/apf/conf.apf",
        "APF",
        "SYSCTL_CONNTRACK of /etc/apf/conf.apf sets the maximum each time that it starts: change \
         it there",
    ),
    (
        "/etc/csf/csf.conf",
        "CSF",
        "a restart writes all rules of iptables anew: one's own go to /etc/csf/csfpost.sh; \
         CONNLIMIT and PORTFLOOD of csf.conf are limits that come after the entry was made",
    ),
    (
        "/etc/sysctl.d/11-nf-conntrack.conf",
        "OpenWrt",
        "/etc/sysctl.d/11-nf-conntrack.conf and the firewall's page set the maximum",
    ),
    (
        "/opt/vyatta",
        "VyOS",
        "`set system conntrack table-size` and `hash-size` set both, a bucket for eight entries by \
         default",
    ),
];

const ACTIVE_PROFILES: &str = "/etc/tuned/active_profile";
/// Where a profile of tuned is looked for, the first that has it.
const PROFILES: [&str; 4] =
    ["/etc/tuned/profiles", "/etc/tuned", "/usr/lib/tuned/profiles", "/usr/lib/tuned"];
/// Profiles include others.
const MOST_PROFILES: usize = 16;

/// F5 to F7, of the list in `docs/doctor.md`.
pub(super) fn check(host: &Host, findings: &mut Findings) {
    for process in Process::named(host, &AGENTS) {
        findings.add(agent(host, &process));
    }
    for (path, name, why) in TRACES {
        if host.is_there(path) {
            findings.add([Finding::note("owner", format!("{name} is installed"))
                .read(path, "present")
                .because(why)]);
        }
    }
    if let Some(Some(mounts)) = findings.read("read-only", mounts(host)) {
        findings.add(read_only(&mounts));
    }
}

fn agent(host: &Host, process: &Process) -> Option<Finding> {
    let Process { pid, name, arguments } = process;
    let note = |why: &str| {
        let line = arguments.join(" ");
        let found = Finding::note("owner", format!("{name} runs (pid {pid})")).because(why);
        found.read(format!("/proc/{pid}/cmdline"), line)
    };
    Some(match name.as_str() {
        "kube-proxy" | "k3s-server" | "k3s-agent" => note(
            "kube-proxy raises nf_conntrack_max to --conntrack-max-per-core (32768) times the \
             number of cores, --conntrack-min (131072) at least, and sets the timeouts for \
             established and close_wait; it never lowers the maximum. Values of 0 have it leave \
             them alone",
        ),
        "firewalld" => {
            note("a reload may load conntrack's helpers again; it does not set the maximum")
        }
        "conntrackd" | "keepalived" => note(
            "two machines share a task, and with conntrackd their tables: both need the same \
             maximum and hash, or the smaller loses flows at failover. Set both alike",
        ),
        "tuned" => match tuned_line(host) {
            Some((file, line)) => note(&format!(
                "{file} says `{line}`: tuned sets it again each time that it starts. Change it in \
                 a profile of your own that includes this one"
            )),
            None => note("its active profile does not set conntrack's values"),
        },
        "dockerd" => note(
            "published ports and the way out of containers are NAT: conntrack is needed, and \
             `notrack` would cut them off. It does not set the maximum. Each container has a \
             network namespace, and a count, of its own",
        ),
        "calico-node" => note(
            "its policies are rules that ask conntrack, in chains that begin with cali-; with its \
             eBPF data plane it has a table of its own beside this one",
        ),
        "cilium-agent" => note(
            "what its eBPF programs carry has entries in tables of its own (`cilium bpf ct list \
             global`), with maxima of their own (bpf-ct-global-tcp-max, bpf-ct-global-any-max); \
             what passes the kernel's own stack as well has one here too",
        ),
        "flanneld" => note("it masquerades what leaves the cluster: conntrack is needed for that"),
        "libvirtd" | "virtnetworkd" => note(
            "its networks of mode nat masquerade their guests: their flows have entries here; \
             guests on a bridge have none, unless net.bridge.bridge-nf-call-iptables is 1",
        ),
        _ => return None,
    })
}

/// The line of tuned's active profiles, or of one that they include, that is about conntrack.
fn tuned_line(host: &Host) -> Option<(String, String)> {
    let text = |path: &str| host.text(path).ok().flatten();
    let active = text(ACTIVE_PROFILES)?;
    let mut profiles: Vec<String> = active.split_whitespace().map(str::to_owned).collect();
    let mut at = 0;
    while let Some(profile) = profiles.get(at).filter(|_| at < MOST_PROFILES) {
        at += 1;
        let mut paths =
            PROFILES.iter().map(|directory| format!("{directory}/{profile}/tuned.conf"));
        let Some((path, conf)) = paths.find_map(|path| text(&path).map(|conf| (path, conf))) else {
            continue;
        };
        for line in conf.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            if line.contains("nf_conntrack") {
                return Some((path, line.to_owned()));
            }
            if let Some(("include", included)) =
                line.split_once('=').map(|(key, value)| (key.trim(), value))
            {
                profiles.extend(included.split([',', ' ']).map(str::trim).map(str::to_owned));
            }
        }
    }
    None
}

fn mounts(host: &Host) -> Result<Option<String>, Unread> {
    host.text("/proc/self/mounts")
}

fn read_only(mounts: &str) -> Option<Finding> {
    let line = mounts.lines().find(|line| {
        let mut words = line.split(' ').skip(1);
        let place = words.next();
        let options = words.nth(1).unwrap_or_default();
        matches!(place, Some("/proc/sys" | "/sys"))
            && options.split(',').any(|option| option == "ro")
    })?;
    Some(
        Finding::note("read-only", "the kernel's settings are mounted read-only here")
            .read("/proc/self/mounts", line)
            .because("this is a container: run `ctguard tune` on the host"),
    )
}

#[cfg(test)]
mod tests {
    use crate::doctor::{Severity, testing::Machine};

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
        for (pid, agent) in (100..).zip(super::AGENTS) {
            machine.write(&format!("/proc/{pid}/comm"), &format!("{agent}\n"));
        }
        let audit = machine.audit();
        let owners = audit.notes("owner");
        assert_eq!(owners.len(), super::AGENTS.len());
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
