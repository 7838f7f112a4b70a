//! Gathers what a plan needs, and what a boot needs to carry it out.

use std::collections::BTreeMap;

use super::{
    error::TuneError,
    files::{Applier, Means, OwnFile, files},
    plan::{Change, Max, Now, plan},
};
use crate::{
    doctor::{Owner, Role, TIMEOUTS, TimeoutRule, owners, wanted_expectations},
    host::{
        Assignment, BUCKETS, Boot, EXPECT_MAX, EntrySize, Host, MAX, Memory, SysctlFiles,
        TableNumbers, is_size_ours, most_entries, sets_buckets_by_sysctl, sysctl_path,
    },
};

#[derive(Debug)]
pub struct Proposal {
    pub role: Role,
    /// All settings, also those that stay.
    pub changes: Vec<Change>,
    /// Files that make the next boot set them.
    pub files: Vec<OwnFile>,
    pub is_size_ours: bool,
}

/// Proposes settings for this role, or for a guessed one.
pub fn propose(host: &Host, role: Option<Role>, max: Max) -> Result<Proposal, TuneError> {
    let now = read(host)?;
    let role = match role {
        Some(role) => role,
        None => Role::guess(host)?,
    };
    let mut changes = plan(&now, role, max)?;
    leave_to_owners(&mut changes, &owners(host), max);
    let means = Means {
        boot: &Boot::read(host)?,
        sysctl_files: &SysctlFiles::read(host)?,
        applier: Applier::find(host),
        buckets_by_sysctl: sets_buckets_by_sysctl(host),
    };
    let files = if now.is_size_ours { files(&changes, &means) } else { Vec::new() };
    Ok(Proposal { role, changes, files, is_size_ours: now.is_size_ours })
}

/// All settings as this would propose them in the first network namespace.
pub(crate) fn wanted(
    host: &Host,
    role: Role,
    owners: &[Owner],
    max: Max,
) -> Result<Vec<Change>, TuneError> {
    let now = Now { is_size_ours: true, ..read(host)? };
    let mut changes = plan(&now, role, max)?;
    leave_to_owners(&mut changes, owners, max);
    Ok(changes)
}

fn read(host: &Host) -> Result<Now, TuneError> {
    let table = TableNumbers::read(host)?.ok_or(TuneError::NotLoaded)?;
    let table = TableNumbers { count: most_entries(host, table.count), ..table };
    let mut timeouts = BTreeMap::new();
    for key in TIMEOUTS.iter().map(TimeoutRule::key) {
        if let Some(seconds) = host.number(&sysctl_path(&key))? {
            timeouts.insert(key, seconds);
        }
    }
    let expect_max = host.number(&sysctl_path(EXPECT_MAX))?;
    Ok(Now {
        table,
        is_size_ours: is_size_ours(host),
        memory: Memory::read(host)?,
        entry: EntrySize::read(host),
        expect_max,
        wanted_expect_max: expect_max.and_then(|max| wanted_expectations(host, max, table.buckets)),
        timeouts,
    })
}

/// Leaves to other programs what they would set again, unless it is asked for.
fn leave_to_owners(changes: &mut Vec<Change>, owners: &[Owner], max: Max) {
    let owned = |key: &str| owners.iter().find(|owner| owner.sets(key));
    // The hash follows the maximum.
    let of_size = owned(MAX);
    for change in changes {
        let is_size = [MAX, BUCKETS].contains(&change.key.as_str());
        let found = if is_size { of_size } else { owned(&change.key) };
        if let Some(owner) = found.filter(|_| change.changes()) {
            change.why = owner.instead(&change.key);
            if !is_size || max == Max::Auto {
                change.then = change.now;
            }
        }
    }
}

/// Lines of other files that the next boot applies after tune's own, with other values.
pub fn overridden(host: &Host, changes: &[Change]) -> Result<Vec<Assignment>, TuneError> {
    let files = SysctlFiles::read(host)?;
    let counts = changes.iter().filter_map(|change| {
        let (assignment, _) = files.at_boot(&change.key)?;
        (assignment.number() != Some(change.then)).then(|| assignment.clone())
    });
    Ok(counts.collect())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{apply::apply, files::own},
        *,
    };
    use crate::doctor::testing::Machine;

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

    /// Fails when tune keeps a hash that doctor finds too wide, or sets it for this boot only.
    #[test]
    fn a_hash_that_is_too_wide_for_the_maximum_asked_for_is_narrowed_at_every_boot_too() {
        let machine = Machine::healthy("tune-wide");
        let proposal = propose(machine.host(), None, Max::Entries(16_384)).unwrap();
        let mut files = proposal.files.iter();
        assert!(files.any(|file| file.text == own("options nf_conntrack hashsize=16384\n")));
        apply(machine.host(), &proposal.changes, &proposal.files).unwrap();
        machine.write("/proc/sys/net/nf_conntrack_max", "16384\n");
        assert!(machine.found().is_empty(), "{:?}", machine.found());
    }

    #[test]
    fn what_another_program_sets_again_is_left_to_it_unless_it_is_asked_for() {
        let machine = Machine::healthy("tune-owner");
        machine.write("/proc/77/comm", "kube-proxy\n");
        machine.write("/proc/sys/net/netfilter/nf_conntrack_max", "7680\n");
        machine.write("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", "432000\n");
        let changing = |max| {
            let all = propose(machine.host(), None, max).unwrap().changes;
            all.iter().filter(|it| it.changes()).map(|it| it.key.clone()).collect::<Vec<_>>()
        };
        assert_eq!(changing(Max::Auto), Vec::<String>::new());
        assert_eq!(changing(Max::Entries(65_536)), [MAX]);
        machine.write("/proc/77/cmdline", "kube-proxy\0--conntrack-max-per-core=0\0");
        assert_eq!(changing(Max::Auto), [BUCKETS, MAX]);
    }

    #[test]
    fn a_kernel_that_does_not_say_what_memory_is_available_is_tuned_all_the_same() {
        let machine = Machine::healthy("tune-old-kernel");
        machine.write("/proc/meminfo", "MemTotal: 4194304 kB\n");
        assert!(propose(machine.host(), None, Max::Auto).is_ok());
    }

    #[test]
    fn a_kernel_that_tracks_nothing_is_left_alone() {
        let machine = Machine::healthy("tune-none");
        machine.remove("/proc/sys/net/netfilter/nf_conntrack_max");
        assert!(matches!(propose(machine.host(), None, Max::Auto), Err(TuneError::NotLoaded)));
    }
}
