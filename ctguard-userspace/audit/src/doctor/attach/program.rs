//! The program that is on an interface already.

use super::super::finding::{Finding, Findings};
use ctguard_kernel::{
    bpf::{Occupant, Pins},
    net::{Attached, Link},
};

/// The name that libxdp gives the program in which it chains others.
const DISPATCHER: &str = "xdp_dispatcher";

/// Tells another's program; of a guard pinned at `pins`, whether the driver runs it.
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
            let what = format!("{name} is guarded by another ctguard{at}");
            read(Finding::fault("other-program", what), "a guard's program")
                .because("an interface has one guard: ctguard run refuses a second")
        }
        Occupant::Foreign { program: None } => {
            let what = format!("{name} has an XDP program that tells no name");
            read(Finding::note("other-program", what), "a program").because(
                "if it is not ctguard's, ctguard run leaves it alone and refuses to start: \
                 `bpftool prog show`, as root, may say more",
            )
        }
        Occupant::Foreign { program: Some(program) } => {
            let what = format!("{name} runs the XDP program {program}, which is not ctguard's");
            let finding = read(Finding::fault("other-program", what), &program)
                .because("ctguard run never replaces another's program, and refuses to start");
            if program == DISPATCHER {
                finding.by_hand(format!("xdp-loader status {name}    # whose programs it chains"))
            } else {
                let command = format!("ip link set dev {name} {off} off");
                finding.by_hand(format!("{command}    # if nobody needs it any more"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::doctor::Severity;

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
        assert_eq!(other.what, "wan0 is guarded by another ctguard at /run/ctguard/7");
        assert_eq!(other.severity, Severity::Fault);
    }
}
