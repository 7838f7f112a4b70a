//! Sets connection tracking as `doctor` advises, and can take it back.
//!
//! `plan` decides and touches nothing; `apply` writes what was before into a record, then sets, and
//! reverts by the record. `watch` looks at what the table does afterwards, `journal` keeps it, and
//! `verdict` tells whether it helped.

mod apply;
mod files;
mod journal;
mod plan;
mod reading;
mod record;
mod verdict;
mod watch;

use thiserror::Error;

pub(crate) use apply::{ApplyError, Reverted, apply, revert};
pub(crate) use files::{Applier, Means, OwnFile, files};
pub(crate) use journal::JOURNAL;
pub(crate) use plan::{Change, Max, PlanError, Role};
pub(crate) use reading::Reading;
pub(crate) use verdict::{Verdict, Watched};
pub(crate) use watch::{Interval, Watch, interval_of};

use record::Record;

use crate::{
    conntrack::shorten::{Longest, ShortenError, shorten},
    doctor::translates_addresses,
    host::{
        Boot, EXPECT_MAX, EntrySize, Host, Memory, TableNumbers, Unread, sets_buckets_by_sysctl,
        sysctl_path,
    },
    namespace,
};

/// Why there is nothing to propose.
#[derive(Debug, Error)]
pub(crate) enum TuneError {
    #[error("this kernel tracks no connections yet: load the module first, modprobe nf_conntrack")]
    NotLoaded,
    #[error(transparent)]
    Unread(#[from] Unread),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("nothing was applied whose effect could be watched; give --apply as well")]
    NothingApplied,
    #[error("only the machine itself can change its entries")]
    Elsewhere,
    #[error(transparent)]
    Shorten(#[from] ShortenError),
}

/// What tune would do on a machine.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) role: Role,
    /// All settings, also those that stay.
    pub(crate) changes: Vec<Change>,
    /// What would have the next boot set them.
    pub(crate) files: Vec<OwnFile>,
}

/// Proposes settings for what the machine is, or is said to be.
pub(crate) fn propose(host: &Host, role: Option<Role>, max: Max) -> Result<Proposal, TuneError> {
    let table = TableNumbers::read(host)?.ok_or(TuneError::NotLoaded)?;
    let mut timeouts = Vec::new();
    for key in plan::timeout_keys() {
        timeouts.extend(host.number(&sysctl_path(key))?.map(|seconds| (key, seconds)));
    }
    let now = plan::Now {
        table,
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
        applier: Applier::find(host),
        buckets_by_sysctl: sets_buckets_by_sysctl(host),
    };
    let files = files(&changes, &means);
    Ok(Proposal { role, changes, files })
}

/// Keeps what was watched.
pub(crate) fn keep(host: &Host, interval: &Interval) -> Result<(), TuneError> {
    Ok(journal::append(host, interval).map_err(ApplyError::from)?)
}

/// Whether there is something whose effect can be watched.
pub(crate) fn is_applied(host: &Host) -> Result<bool, TuneError> {
    Ok(Record::load(host).map_err(ApplyError::from)?.is_some())
}

/// Judges all that was watched since the first application.
pub(crate) fn judge(host: &Host) -> Result<Watched, TuneError> {
    let record = Record::load(host).map_err(ApplyError::from)?.ok_or(TuneError::NothingApplied)?;
    let intervals = journal::read(host).map_err(ApplyError::from)?;
    let own = namespace::number().ok();
    let before = record.before.filter(|before| Some(before.namespace) == own);
    let max = intervals.last().map_or(0, |interval| interval.max);
    Ok(verdict::judge(record.max_before().unwrap_or(max), before, &intervals))
}

/// Shortens the lives of entries that exist to the timeouts of now; how many.
pub(crate) fn shorten_existing(host: &Host) -> Result<u64, TuneError> {
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
