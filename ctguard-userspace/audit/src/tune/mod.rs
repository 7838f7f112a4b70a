//! Sets connection tracking as `doctor` advises, and can take it back.
//!
//! `plan` decides and touches nothing; `apply` writes what was before into a record, then sets;
//! `revert` goes by the record. `watch` looks at what the table does afterwards, `journal` keeps it,
//! and `verdict` tells whether it helped.

mod apply;
mod files;
mod journal;
mod place;
mod plan;
mod reading;
mod record;
mod revert;
mod verdict;
mod watch;

use thiserror::Error;

pub use apply::{ApplyError, apply};
pub use files::{Applier, Means, OwnFile, files};
pub use journal::{JOURNAL, Journal, JournalError};
pub use plan::{Change, Max, PlanError, Role};
pub use reading::Reading;
pub use revert::{Reverted, revert};
pub use verdict::{Verdict, Watched};
pub use watch::{Interval, Watch, interval_of};

use place::Relation;
use reading::Before;
use record::{Record, Setting};

use crate::{
    doctor::translates_addresses,
    host::{
        Assignment, BUCKETS, Boot, EXPECT_MAX, EntrySize, Host, MAX, Memory, SysctlFiles,
        TableNumbers, Unread, is_size_ours, most_entries, sets_buckets_by_sysctl, setting_path,
        sysctl_path,
    },
};
use ctguard_kernel::conntrack::shorten::{Longest, ShortenError, shorten};

/// Why there is nothing to propose.
#[derive(Debug, Error)]
pub enum TuneError {
    #[error("this kernel tracks no connections yet: load the module first, modprobe nf_conntrack")]
    NotLoaded,
    #[error(transparent)]
    Unread(#[from] Unread),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("nothing was changed whose effect could be watched")]
    NothingApplied,
    #[error("files for the next boot are written from the first network namespace alone")]
    NotPersistedHere,
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("only the machine itself can change its entries")]
    Elsewhere,
    #[error(transparent)]
    Shorten(#[from] ShortenError),
}

/// What tune would do on a machine.
#[derive(Debug)]
pub struct Proposal {
    pub role: Role,
    /// All settings, also those that stay.
    pub changes: Vec<Change>,
    /// What would have the next boot set them.
    pub files: Vec<OwnFile>,
    /// The maximum and the hash can be set from here.
    pub is_size_ours: bool,
}

/// Proposes settings for what the machine is, or is said to be.
pub fn propose(host: &Host, role: Option<Role>, max: Max) -> Result<Proposal, TuneError> {
    let table = TableNumbers::read(host)?.ok_or(TuneError::NotLoaded)?;
    let table = TableNumbers { count: most_entries(host, table.count), ..table };
    let mut timeouts = Vec::new();
    for key in plan::timeout_keys() {
        timeouts.extend(host.number(&sysctl_path(key))?.map(|seconds| (key, seconds)));
    }
    let now = plan::Now {
        table,
        is_size_ours: is_size_ours(host),
        memory: Memory::read(host)?,
        entry: EntrySize::read(host),
        expect_max: host.number(&sysctl_path(EXPECT_MAX))?,
        timeouts,
    };
    let role = match role {
        Some(role) => role,
        None => guess(host)?,
    };
    let changes = plan::plan(&now, role, max)?;
    let means = Means {
        boot: &Boot::read(host)?,
        sysctl_files: &SysctlFiles::read(host)?,
        applier: Applier::find(host),
        buckets_by_sysctl: sets_buckets_by_sysctl(host),
    };
    let files = if now.is_size_ours { files(&changes, &means) } else { Vec::new() };
    Ok(Proposal { role, changes, files, is_size_ours: now.is_size_ours })
}

/// What others' files set at boot after tune's own, and otherwise.
pub fn overridden(host: &Host, changes: &[Change]) -> Result<Vec<Assignment>, TuneError> {
    let files = SysctlFiles::read(host)?;
    let counts = changes.iter().filter_map(|change| {
        let assignment = files.at_boot(&change.key)?;
        (assignment.value != change.then.to_string()).then(|| assignment.clone())
    });
    Ok(counts.collect())
}

/// A change whose effect is watched.
#[derive(Debug)]
pub struct Applied {
    before: Before,
    last: Vec<Setting>,
    is_only: bool,
    /// Only the table's size is ours to see from another network namespace.
    relation: Relation,
}

impl Applied {
    /// The last change.
    pub fn last(host: &Host) -> Result<Self, TuneError> {
        let record = Record::load(host).map_err(ApplyError::from)?;
        let record = record.ok_or(TuneError::NothingApplied)?;
        let (relation, before) = (record.relation(host), record.before);
        let before = before.ok_or(TuneError::NothingApplied)?;
        // The other namespace's entries and losses tell nothing of this one's.
        let before = match relation {
            Relation::Same => before,
            Relation::Other | Relation::Gone => {
                Before { count: None, lost_per_second: None, ..before }
            }
        };
        Ok(Self { before, is_only: record.is_only_change(), last: record.last, relation })
    }

    /// Whether to take back all is to take back this change, and no earlier one.
    pub const fn is_only(&self) -> bool {
        self.is_only
    }

    /// Why it is no more in force; none while it is, or while conntrack is not loaded.
    pub fn lapsed(&self, host: &Host) -> Result<Option<String>, TuneError> {
        let record = Record::load(host).map_err(ApplyError::from)?;
        let Some(record) = record.filter(|record| record.before.is_some()) else {
            return Ok(Some("it was taken back meanwhile".to_owned()));
        };
        if record.last != self.last {
            return Ok(Some("something else was applied meanwhile".to_owned()));
        }
        for Setting { key, then } in &self.last {
            if self.relation != Relation::Same && ![BUCKETS, MAX].contains(&key.as_str()) {
                continue;
            }
            match host.number(&setting_path(host, key))? {
                Some(live) if !apply::is(key, live, *then) => {
                    return Ok(Some(format!("{key} is {live}, and was to be {then}")));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    pub fn judge(&self, intervals: &[Interval]) -> Watched {
        verdict::judge(self.before, intervals)
    }
}

/// Shortens the lives of entries that exist to the timeouts of now; how many.
pub fn shorten_existing(host: &Host) -> Result<u64, TuneError> {
    if !host.is_this() {
        return Err(TuneError::Elsewhere);
    }
    let seconds = |name: &str| -> Result<u32, Unread> {
        let seconds = host.number(&sysctl_path(&format!("net.netfilter.nf_conntrack_{name}")))?;
        Ok(seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(u32::MAX))
    };
    let longest = Longest {
        tcp_established: seconds("tcp_timeout_established")?,
        tcp_syn_sent: seconds("tcp_timeout_syn_sent")?,
        udp: seconds("udp_timeout_stream")?,
        generic: seconds("generic_timeout")?,
    };
    Ok(shorten(longest)?)
}

/// Whoever forwards is taken for a gateway, unless its rules are seen to translate addresses: the
/// gateway's timeouts are the more careful.
fn guess(host: &Host) -> Result<Role, Unread> {
    if !host.forwards()? {
        return Ok(Role::Server);
    }
    Ok(if translates_addresses(host)? { Role::NatRouter } else { Role::Gateway })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::Machine;

    #[test]
    fn a_machine_is_taken_for_what_it_does() {
        let machine = Machine::healthy("tune-guess");
        let role = || guess(machine.host()).unwrap();
        assert_eq!(role(), Role::Server);
        machine.write("/proc/sys/net/ipv4/ip_forward", "1\n");
        assert_eq!(role(), Role::Gateway);
        machine.write("/proc/net/ip_tables_names", "filter\nnat\n");
        assert_eq!(role(), Role::NatRouter);
    }

    /// Fails when tune and doctor disagree about what is right.
    #[test]
    fn doctor_finds_nothing_wrong_after_what_it_advises_was_applied() {
        let machine = Machine::healthy("tune-doctor");
        let small =
            [("max", "7680\n"), ("buckets", "512\n"), ("tcp_timeout_established", "432000\n")];
        for (name, value) in small {
            machine.write(&format!("/proc/sys/net/netfilter/nf_conntrack_{name}"), value);
        }
        machine.write("/proc/sys/net/ipv4/ip_forward", "1\n");
        machine.remove("/proc/sys/net/nf_conntrack_max");
        machine.remove("/etc/modules-load.d/conntrack.conf");
        assert!(!machine.audit().is_clean());
        let proposal = propose(machine.host(), Some(Role::NatRouter), Max::Auto).unwrap();
        apply(machine.host(), &proposal.changes, &proposal.files).unwrap();
        assert!(machine.found().is_empty(), "{:?}", machine.found());
        let again = propose(machine.host(), Some(Role::NatRouter), Max::Auto).unwrap();
        assert!(!again.changes.iter().any(Change::changes), "{:?}", again.changes);
    }

    #[test]
    fn a_kernel_that_tracks_nothing_is_left_alone() {
        let machine = Machine::healthy("tune-none");
        machine.remove("/proc/sys/net/netfilter/nf_conntrack_max");
        assert!(matches!(propose(machine.host(), None, Max::Auto), Err(TuneError::NotLoaded)));
    }
}
