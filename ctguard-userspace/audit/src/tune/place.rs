//! The network namespace in which a change was applied.

use serde::{Deserialize, Serialize};

use crate::host::{Host, may_be_there};
use ctguard_kernel::namespace;

const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// A setting that exists only in the first network namespace (`net_core_table`,
/// `net/core/sysctl_net_core.c`); not everybody may read `/proc/1/ns/net`.
const FIRST_ALONE: &str = "/proc/sys/net/core/dev_weight";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Its inode number, which another one may have after a boot.
    pub namespace: u64,
    pub is_first: bool,
    boot: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    Same,
    /// Its settings cannot be read from here.
    Other,
    /// It no longer exists, nor do its settings.
    Gone,
}

impl Place {
    pub(super) fn of(host: &Host) -> Option<Self> {
        if !host.is_this() {
            return None;
        }
        let namespace = namespace::number().ok()?;
        let is_first = host.is_there(FIRST_ALONE);
        let boot = host.text(BOOT).ok().flatten().unwrap_or_default().trim().to_owned();
        Some(Self { namespace, is_first, boot })
    }

    /// How `self`, recorded earlier, relates to this process's place.
    pub(super) fn relation(&self, host: &Host) -> Relation {
        let Some(here) = Self::of(host) else { return Relation::Same };
        let relation = self.relation_to(&here);
        // Of the same boot, but no longer there.
        let ended = || may_be_there(host, self.namespace).is_ok_and(|may_be| !may_be);
        if relation == Relation::Other && !self.is_first && ended() {
            return Relation::Gone;
        }
        relation
    }

    fn relation_to(&self, here: &Self) -> Relation {
        let same_boot = self.boot == here.boot;
        if self.is_first && here.is_first || same_boot && self.namespace == here.namespace {
            return Relation::Same;
        }
        if self.is_first || same_boot { Relation::Other } else { Relation::Gone }
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
