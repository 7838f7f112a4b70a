//! Who else has a say: agents that set conntrack's values, and what makes it track at all.

use super::finding::{Finding, Findings};
use crate::host::{Host, Process, Unread};

/// Processes that set conntrack's values, or must agree with another machine about them.
const AGENTS: [&str; 7] =
    ["kube-proxy", "k3s-server", "k3s-agent", "firewalld", "conntrackd", "keepalived", "tuned"];

/// Who is known by what it leaves behind.
const TRACES: [(&str, &str, &str); 4] = [
    ("/etc/ufw/ufw.conf", "ufw", "it applies /etc/ufw/sysctl.conf when it starts, over sysctl.d"),
    (
        "/etc/apf/conf.apf",
        "APF",
        "SYSCTL_CONNTRACK of /etc/apf/conf.apf sets the maximum when it starts",
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

/// F5 to F7, of the list in `docs/doctor.md`.
pub(super) fn check(host: &Host, findings: &mut Findings) {
    for process in Process::named(host, &AGENTS) {
        findings.add(agent(&process));
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

fn agent(process: &Process) -> Option<Finding> {
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
            "two machines share their tables: both need the same maximum, or the smaller loses \
             flows at failover",
        ),
        "tuned" => note("its profile may set conntrack's values: `tuned-adm active` names it"),
        _ => return None,
    })
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
    fn a_container_is_told_to_go_to_the_host() {
        let machine = Machine::healthy("owners-container");
        machine.write("/proc/self/mounts", "proc /proc/sys proc ro,nosuid 0 0\n");
        assert!(machine.all_found().contains(&("read-only", Severity::Note)));
        machine.write("/proc/self/mounts", "proc /proc proc rw,nosuid 0 0\n");
        assert!(!machine.all_found().contains(&("read-only", Severity::Note)));
    }
}
