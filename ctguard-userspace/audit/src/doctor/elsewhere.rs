//! How full the tables of other network namespaces are: containers, virtual routers.

use super::{
    finding::{Finding, Findings},
    planned::Planned,
    size::FILL,
    text::per_cent,
};
use crate::host::{COUNT, Host, OtherTable, OtherTables, Unread, sysctl_path};
use ctguard_kernel::privileges::remedy;

const CHECK: &str = "namespaces";
/// Fewer entries than this in all of them are not worth a note.
const FEW: u64 = 1000;

pub(super) fn read(host: &Host, findings: &mut Findings) -> OtherTables {
    let others = findings.read(CHECK, OtherTables::read(host)).unwrap_or_default();
    if others.unseen > 0 {
        let denied = format!("permission denied for {} of the processes", others.unseen);
        let reason = format!("{denied}; {}", remedy("CAP_SYS_PTRACE"));
        findings.skip(CHECK, Unread::new(OtherTables::PLACE, &reason));
    }
    others
}

pub(super) fn judge(others: &OtherTables, planned: &Planned) -> Option<Finding> {
    let fill = |other: &OtherTable| other.table.fill_ratio().unwrap_or(0.0);
    let worst = others.tables.iter().max_by(|one, next| fill(one).total_cmp(&fill(next)))?;
    let OtherTable { number, name, table } = worst;
    let (many, count, max) = (others.tables.len(), table.count, table.max);
    let sum: u64 = others.tables.iter().map(|other| other.table.count).sum();
    let share = per_cent(fill(worst));
    let what = format!(
        "the table of network namespace {name} (net:[{number}]) is {share} full: {count} of {max} \
         entries"
    );
    let finding = match Finding::graded("namespace-fill", fill(worst), FILL, what) {
        Some(finding) => {
            let finding = finding
                .because(
                    "every network namespace counts its own entries against the same maximum. New \
                     flows of that container or virtual router are dropped when it is full, however \
                     empty this namespace's table is",
                )
                .tune("ctguard tune --apply    # in the first network namespace");
            planned.set_size().into_iter().fold(finding, Finding::by_hand)
        }
        None if sum >= FEW => {
            let what = format!("{many} other network namespaces hold {sum} entries");
            Finding::note(CHECK, format!("{what}; the fullest is {name} with {count}"))
                .because("each may hold up to the maximum; they share the hash and the memory")
        }
        None => return None,
    };
    let left_out = (others.left_out > 0).then(|| format!(", {} more not read", others.left_out));
    let looked_at = format!("{many} namespaces{}", left_out.unwrap_or_default());
    Some(finding.read(OtherTables::PLACE, looked_at).read(sysctl_path(COUNT), sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        doctor::{Role, finding::Severity, testing::Machine},
        host::TableNumbers,
    };

    /// Fails when the maximum is to be raised without the hash, which would then be too narrow.
    #[test]
    fn a_maximum_that_others_have_used_up_is_raised_together_with_the_hash() {
        let machine = Machine::healthy("elsewhere-size");
        let planned = Planned::of(machine.host(), Role::Server, &[]);
        let table = TableNumbers { count: 262_144, max: 262_144, buckets: 262_144 };
        let full = OtherTable { number: 7, name: "pod7".to_owned(), table };
        let others = OtherTables { tables: vec![full], left_out: 0, unseen: 0 };
        let command = &judge(&others, &planned).unwrap().mend[1].command;
        let both = "sysctl -w net.netfilter.nf_conntrack_buckets=1048576 \
                    net.netfilter.nf_conntrack_max=1048576";
        assert_eq!(command, both);
    }

    fn found(counts: &[u64]) -> Option<(&'static str, Severity, String)> {
        let other = |(number, count): (u64, &u64)| OtherTable {
            number,
            name: format!("pod{number}"),
            table: TableNumbers { count: *count, max: 10_000, buckets: 10_000 },
        };
        let tables = (7..).zip(counts).map(other).collect();
        let finding = judge(&OtherTables { tables, left_out: 0, unseen: 0 }, &Planned::default())?;
        Some((finding.check, finding.severity, finding.what))
    }

    #[test]
    fn the_fullest_of_other_namespaces_is_named() {
        let (check, severity, what) = found(&[10, 8000, 7600]).unwrap();
        assert_eq!((check, severity), ("namespace-fill", Severity::Warning));
        assert!(what.contains("pod8 (net:[8]) is 80 % full: 8000 of 10000"), "{what}");
        assert_eq!(found(&[9000]).unwrap().1, Severity::Fault);
    }

    #[test]
    fn namespaces_with_room_are_a_note_and_empty_ones_are_not_mentioned() {
        let (check, severity, what) = found(&[600, 500]).unwrap();
        assert_eq!((check, severity), ("namespaces", Severity::Note));
        assert!(what.contains("2 other network namespaces hold 1100 entries"), "{what}");
        assert_eq!(found(&[10, 0]), None);
        assert_eq!(found(&[]), None);
    }
}
