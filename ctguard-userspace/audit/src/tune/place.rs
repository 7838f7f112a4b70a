//! Where something was applied: a machine's first network namespace, or one of its others.

use serde::{Deserialize, Serialize};

use crate::host::{Host, may_be_there};
use ctguard_kernel::namespace;

const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// A setting that the first network namespace alone has (`net_core_table`,
/// `net/core/sysctl_net_core.c`); `/proc/1/ns/net` is not everybody's to see.
const FIRST_ALONE: &str = "/proc/sys/net/core/dev_weight";

/// A network namespace, at a boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Its inode number, which may be another's after a boot.
    pub namespace: u64,
    is_first: bool,
    boot: String,
}

/// How a place that was noted relates to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    Same,
    /// Its settings are not ours to see.
    Other,
    /// It has ended, and its settings with it.
    Gone,
}

impl Place {
    /// This one; none of another machine's.
    pub(super) fn of(host: &Host) -> Option<Self> {
        if !host.is_this() {
            return None;
        }
        let namespace = namespace::number().ok()?;
        let is_first = host.is_there(FIRST_ALONE);
        let boot = host.text(BOOT).ok().flatten().unwrap_or_default().trim().to_owned();
        Some(Self { namespace, is_first, boot })
    }

    pub(super) const fn is_first(&self) -> bool {
        self.is_first
    }

    /// How `self`, noted before, relates to where this process is.
    pub(super) fn relation(&self, host: &Host) -> Relation {
        let Some(here) = Self::of(host) else { return Relation::Same };
        let relation = self.relation_to(&here);
        // Of the same boot, and nobody's any more.
        let ended = || may_be_there(host, self.namespace).is_ok_and(|may_be| !may_be);
        if relation == Relation::Other && !self.is_first && ended() {
            return Relation::Gone;
        }
        relation
    }

    fn relation_to(&self, here: &Self) -> Relation {
        if self.is_first && here.is_first
            || self.boot == here.boot && self.namespace == here.namespace
        {
            Relation::Same
        } else if self.boot == here.boot || self.is_first {
            Relation::Other
        } else {
            Relation::Gone
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(namespace: u64, is_first: bool, boot: &str) -> Place {
        Place { namespace, is_first, boot: boot.to_owned() }
    }

    /// Fails when what was applied on a host is not taken back after a boot, or when the record of a
    /// container is used up on the host.
    #[test]
    fn the_first_namespace_outlasts_a_boot_and_another_does_not() {
        let host = place(1, true, "a");
        let container = place(7, false, "a");
        assert_eq!(host.relation_to(&place(2, true, "b")), Relation::Same);
        assert_eq!(container.relation_to(&container), Relation::Same);
        assert_eq!(container.relation_to(&host), Relation::Other);
        assert_eq!(host.relation_to(&container), Relation::Other);
        assert_eq!(host.relation_to(&place(7, false, "b")), Relation::Other);
        assert_eq!(container.relation_to(&place(7, false, "b")), Relation::Gone);
    }
}
