//! The XDP program that an interface already has.

use super::super::finding::{Finding, Findings};
use ctguard_kernel::{
    bpf::{LinkHolder, Occupant, Pins, link_holders},
    net::{Attached, Link, above_with_program},
};

/// The name that libxdp gives the program in which it chains others.
const DISPATCHER: &str = "xdp_dispatcher";

/// Reports another's program. For the guard pinned at `pins`: whether it runs in native mode.
pub(super) fn check(
    links: &[Link],
    link: &Link,
    pins: &Pins,
    findings: &mut Findings,
) -> Option<bool> {
    let Some(attached) = link.xdp else {
        findings.add(above_with_program(links, link).map(|above| above_finding(link, above)));
        return None;
    };
    let own = pins.xdp_link(link.index).ok().flatten();
    if own.is_some_and(|(_, own)| own.program == attached.program) {
        return Some(attached.native);
    }
    let occupant = Occupant::of(link.index, attached.program);
    let holders = match occupant {
        Occupant::Foreign { .. } => link_holders(attached.program),
        Occupant::Guard { .. } => Vec::new(),
    };
    findings.add([judge(&link.name, attached, occupant, &holders)]);
    None
}

fn above_finding(link: &Link, above: &Link) -> Finding {
    let (name, above_name) = (&link.name, &above.name);
    let what = format!("{above_name}, a device above {name}, has an XDP program");
    let id = above.xdp.map(|attached| attached.program).unwrap_or_default();
    Finding::fault("other-program", what)
        .read(format!("rtnetlink: {above_name}"), format!("number {id}"))
        .because(format!(
            "the kernel takes no program on {name} then: ctguard run refuses to start"
        ))
}

fn judge(name: &str, attached: Attached, occupant: Occupant, holders: &[LinkHolder]) -> Finding {
    let Attached { native, program: id } = attached;
    let (mode, off) = if native { ("native", "xdp") } else { ("generic", "xdpgeneric") };
    let read = |finding: Finding, named: &str| {
        finding.read(format!("rtnetlink: {name}"), format!("{named}, number {id}, {mode} XDP"))
    };
    match occupant {
        Occupant::Guard { pins, .. } => {
            let at = pins.map_or(String::new(), |pins| format!(" at {}", pins.path().display()));
            let what = format!("another ctguard{at} already guards {name}");
            read(Finding::fault("other-program", what), "a guard's program").because(
                "an interface can have one guard: ctguard run refuses to start a second one",
            )
        }
        Occupant::Foreign { program: None } => {
            let what = format!("{name} has an XDP program without a name");
            read(Finding::note("other-program", what), "a program").because(
                "unless it is ctguard's own, ctguard run refuses to start; `bpftool prog show`, as \
                 root, may say more",
            )
        }
        Occupant::Foreign { program: Some(program) } => {
            let what = format!("{name} already has another XDP program, {program}");
            let finding = read(Finding::fault("other-program", what), &program)
                .because("ctguard run never replaces another program and refuses to start");
            if !holders.is_empty() {
                return held(finding, holders);
            }
            if program == DISPATCHER {
                finding.by_hand(format!("xdp-loader status {name}    # lists the programs in it"))
            } else {
                let command = format!("ip link set dev {name} {off} off");
                finding.by_hand(format!("{command}    # if it is no longer needed"))
            }
        }
    }
}

/// A link can be given up only by who holds it.
fn held(finding: Finding, holders: &[LinkHolder]) -> Finding {
    let finding = finding.because(
        "ctguard run never replaces another program and refuses to start. A link holds this one, so \
         `ip link set … off` fails: it goes when those that hold the link end, or are removed",
    );
    holders.iter().fold(finding, |finding, holder| match holder {
        LinkHolder::Process { pid, name } => {
            finding.read("link held by", format!("{name} (pid {pid})"))
        }
        LinkHolder::Pin(path) => {
            let path = path.display();
            let command = format!("rm {path}    # if it is no longer needed");
            finding.read("link pinned at", &path).by_hand(command)
        }
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::doctor::finding::Severity;

    fn found(occupant: Occupant, native: bool) -> Finding {
        judge("wan0", Attached { native, program: 42 }, occupant, &[])
    }

    #[test]
    fn a_program_is_told_by_its_name_and_its_mode() {
        let foreign = found(Occupant::Foreign { program: Some("xdp_drop".into()) }, false);
        assert_eq!(foreign.severity, Severity::Fault);
        assert_eq!(foreign.read[0].value, "xdp_drop, number 42, generic XDP");
        assert!(foreign.mend[0].command.starts_with("ip link set dev wan0 xdpgeneric off"));
        let dispatcher = found(Occupant::Foreign { program: Some(DISPATCHER.into()) }, true);
        assert!(dispatcher.mend[0].command.starts_with("xdp-loader status"), "others' too");
    }

    /// Fails when somebody is told to run what the kernel refuses.
    #[test]
    fn a_program_that_a_link_holds_is_told_by_who_holds_the_link() {
        let foreign = Occupant::Foreign { program: Some("xdp_balancer".into()) };
        let holders = [
            LinkHolder::Process { pid: 7, name: "balancer".into() },
            LinkHolder::Pin(PathBuf::from("/sys/fs/bpf/balancer/link")),
        ];
        let found = judge("wan0", Attached { native: true, program: 42 }, foreign, &holders);
        assert_eq!(found.read[1].value, "balancer (pid 7)");
        let commands: Vec<_> = found.mend.iter().map(|mend| mend.command.as_str()).collect();
        assert_eq!(commands, ["rm /sys/fs/bpf/balancer/link    # if it is no longer needed"]);
    }

    #[test]
    fn a_program_without_a_name_may_be_a_guard_and_is_no_fault() {
        assert_eq!(found(Occupant::Foreign { program: None }, true).severity, Severity::Note);
    }

    #[test]
    fn another_guard_is_told_by_where_it_is_pinned() {
        let pins = Some(Pins::at("/run/ctguard/7"));
        let other = found(Occupant::Guard { pins, pid: None }, true);
        assert_eq!(other.what, "another ctguard at /run/ctguard/7 already guards wan0");
        assert_eq!(other.severity, Severity::Fault);
    }
}
