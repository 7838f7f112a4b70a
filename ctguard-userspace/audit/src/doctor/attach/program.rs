//! The XDP program that an interface already has.

use super::super::finding::{Finding, Findings};
use ctguard_kernel::{
    bpf::{Occupant, Pins},
    net::{Attached, Link},
};

/// The name that libxdp gives the program in which it chains others.
const DISPATCHER: &str = "xdp_dispatcher";

/// Reports another's program. For the guard pinned at `pins`: whether it runs in native mode.
pub(super) fn check(link: &Link, pins: &Pins, findings: &mut Findings) -> Option<bool> {
    let attached = link.xdp?;
    let own = pins.xdp_link(link.index).ok().flatten();
    if own.is_some_and(|(_, own)| own.program == attached.program) {
        return Some(attached.native);
    }
    findings.add([judge(&link.name, attached, Occupant::of(link.index, attached.program))]);
    None
}

fn judge(name: &str, attached: Attached, occupant: Occupant) -> Finding {
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
            if program == DISPATCHER {
                finding.by_hand(format!("xdp-loader status {name}    # lists the programs in it"))
            } else {
                let command = format!("ip link set dev {name} {off} off");
                finding.by_hand(format!("{command}    # if it is no longer needed"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::doctor::finding::Severity;

    fn found(occupant: Occupant, native: bool) -> Finding {
        judge("wan0", Attached { native, program: 42 }, occupant)
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

    #[test]
    fn a_program_without_a_name_may_be_a_guard_and_is_no_fault() {
        assert_eq!(found(Occupant::Foreign { program: None }, true).severity, Severity::Note);
    }

    #[test]
    fn another_guard_is_told_by_where_it_is_pinned() {
        let pins = Some(Pins::at(PathBuf::from("/run/ctguard/7")));
        let other = found(Occupant::Guard { pins, pid: None }, true);
        assert_eq!(other.what, "another ctguard at /run/ctguard/7 already guards wan0");
        assert_eq!(other.severity, Severity::Fault);
    }
}
