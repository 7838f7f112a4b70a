//! What `ctguard tune` would set on this machine: the numbers in doctor's commands.

use super::{
    owners::Owner,
    role::Role,
    size::{BUCKET_BYTES, MEMORY, MOST_PER_BUCKET, is_too_wide, table_bytes, with_margin},
    text::share,
    timeout_rules::fitting,
};
use crate::{
    host::{
        BUCKETS, EntrySize, HASHSIZE, Host, MAX, Memory, TableNumbers, most_entries, setting_path,
    },
    tune::{Change, Max, PART_OF_AVAILABLE, wanted},
};

#[derive(Debug, Default)]
pub(super) struct Planned {
    pub(super) role: Role,
    changes: Vec<Change>,
    owners: Vec<Owner>,
    /// What the fullest table holds.
    entries: u64,
    /// Before Linux 4.7 only the module's parameter sets the hash.
    hash_by_parameter: bool,
}

impl Planned {
    /// Knows nothing where tune would fail.
    pub(super) fn of(host: &Host, role: Role, owners: &[Owner]) -> Self {
        let changes = wanted(host, role, owners, Max::Auto).unwrap_or_default();
        let table = TableNumbers::read(host).ok().flatten();
        let entries = table.map_or(0, |table| most_entries(host, table.count));
        let hash_by_parameter = setting_path(host, BUCKETS) == HASHSIZE;
        Self { role, changes, owners: owners.to_vec(), entries, hash_by_parameter }
    }

    /// The value that tune would give a setting; none if it leaves the setting alone.
    pub(super) fn then(&self, key: &str) -> Option<u64> {
        changed(&self.changes, key)
    }

    /// A setting's value after tune has run.
    pub(super) fn after(&self, key: &str) -> Option<u64> {
        after(&self.changes, key)
    }

    /// The command that sets one of tune's settings as tune would.
    pub(super) fn set(&self, key: &str) -> Option<String> {
        self.then(key).map(|value| format!("sysctl -w {key}={value}"))
    }

    /// The same for hash and maximum: a maximum raised alone would make the hash too narrow.
    pub(super) fn set_size(&self) -> Option<String> {
        self.size(self.then(BUCKETS), self.then(MAX))
    }

    /// The same; none if the hash stays as it is.
    pub(super) fn set_hash(&self) -> Option<String> {
        self.then(BUCKETS).and_then(|_| self.set_size())
    }

    fn size(&self, buckets: Option<u64>, max: Option<u64>) -> Option<String> {
        let max = max.map(|max| format!("{MAX}={max}"));
        Some(match (buckets, max) {
            (None, max) => format!("sysctl -w {}", max?),
            (Some(buckets), None) if self.hash_by_parameter => {
                format!("echo {buckets} > {HASHSIZE}")
            }
            (Some(buckets), Some(max)) if self.hash_by_parameter => {
                format!("echo {buckets} > {HASHSIZE} && sysctl -w {max}")
            }
            (Some(buckets), None) => format!("sysctl -w {BUCKETS}={buckets}"),
            (Some(buckets), Some(max)) => format!("sysctl -w {BUCKETS}={buckets} {max}"),
        })
    }

    /// The command that gives a setting the value that a file has for it, or one that tune would set
    /// where that value does not fit; none where the present value should stay.
    pub(super) fn set_as_written(&self, host: &Host, key: &str, written: u64) -> Option<String> {
        match key {
            MAX => {
                let asked = self.asked(host, written);
                let asked = asked.filter(|changes| written < self.now(MAX) || bears(host, changes));
                if let Some(changes) = asked {
                    return self.size(changed(&changes, BUCKETS), changed(&changes, MAX));
                }
                let stays = self.may_stay(host, MAX, self.now(MAX));
                self.then(MAX).filter(|_| !stays).and_then(|_| self.set_size())
            }
            BUCKETS if is_fitting_hash(host, self.now(MAX), written) => {
                self.size(Some(written), None)
            }
            BUCKETS => self.set_hash().filter(|_| !self.may_stay(host, key, self.now(BUCKETS))),
            _ => Some(format!("sysctl -w {key}={}", fitting(key, written, self.role))),
        }
    }

    /// Whether the next boots may set what a setting is at present.
    pub(super) fn may_stay(&self, host: &Host, key: &str, live: u64) -> bool {
        match key {
            MAX => {
                let holds = live > with_margin(self.entries);
                holds && self.asked(host, live).is_some_and(|changes| bears(host, &changes))
            }
            BUCKETS => is_fitting_hash(host, self.now(MAX), live),
            _ => fitting(key, live, self.role) == live,
        }
    }

    /// What tune would do if it were asked for this maximum; none where it would refuse.
    fn asked(&self, host: &Host, max: u64) -> Option<Vec<Change>> {
        wanted(host, self.role, &self.owners, Max::Entries(max)).ok()
    }

    /// Zero where tune would fail.
    fn now(&self, key: &str) -> u64 {
        self.changes.iter().find(|change| change.key == key).map_or(0, |change| change.now)
    }
}

fn after(changes: &[Change], key: &str) -> Option<u64> {
    changes.iter().find(|change| change.key == key).map(|change| change.then)
}

fn changed(changes: &[Change], key: &str) -> Option<u64> {
    let change = changes.iter().find(|change| change.key == key)?;
    change.changes().then_some(change.then)
}

/// Whether the memory bears a full table of this size without a warning.
fn bears(host: &Host, changes: &[Change]) -> bool {
    let size = after(changes, MAX).zip(after(changes, BUCKETS));
    let memory = Memory::read(host).ok();
    size.zip(memory).is_some_and(|((max, buckets), memory)| {
        share(table_bytes(max, buckets, &EntrySize::read(host)), memory.available_bytes) < MEMORY[0]
    })
}

/// Whether a hash suits a maximum, and memory.
fn is_fitting_hash(host: &Host, max: u64, buckets: u64) -> bool {
    let available = Memory::read(host).map_or(0, |memory| memory.available_bytes);
    buckets > 0
        && buckets.saturating_mul(BUCKET_BYTES) <= available / PART_OF_AVAILABLE
        && buckets.saturating_mul(MOST_PER_BUCKET) >= max
        && !is_too_wide(max, buckets)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::{
        doctor::{TIMEOUTS, TimeoutRule, mends::given, testing::Machine},
        host::{COUNT, EXPECT_MAX, sysctl_path},
        tune::propose,
    };

    const NAT: (&str, &str) = ("/proc/net/ip_tables_names", "filter\nnat\n");
    const FORWARDS: (&str, &str) = ("/proc/sys/net/ipv4/ip_forward", "1\n");
    const ROLES: [(Role, &[(&str, &str)]); 3] =
        [(Role::Server, &[]), (Role::Gateway, &[FORWARDS]), (Role::NatRouter, &[FORWARDS, NAT])];

    /// A key, what a file says, other values, and what is printed.
    type Written<'a> = (&'a str, &'a str, &'a [(&'a str, u64)], &'a [&'a str]);

    fn machine(files: &[(&str, &str)]) -> Machine {
        let machine = Machine::healthy("planned");
        for (path, text) in files {
            machine.write(path, text);
        }
        machine
    }

    fn set(machine: &Machine, key: &str, value: u64) {
        machine.write(&sysctl_path(key), &format!("{value}\n"));
        if key == MAX {
            machine.write("/proc/sys/net/nf_conntrack_max", &format!("{value}\n"));
        }
    }

    /// Fails when a command that doctor prints gives a setting another value than tune does.
    #[test]
    fn doctor_and_tune_agree_about_every_setting_that_both_know() {
        let tuned: Vec<_> =
            TIMEOUTS.iter().filter(|rule| rule.is_tuned()).map(TimeoutRule::key).collect();
        let mut compared = BTreeSet::new();
        for (role, files) in ROLES {
            for key in &tuned {
                for seconds in [1, 9, 29, 119, 299, 600, 7439, 7440, 7441, 86_400, 86_401, 432_000]
                {
                    let machine = machine(files);
                    set(&machine, key, seconds);
                    let name = format!("{role:?} with {key} {seconds}");
                    let told = machine.compare_with_tune(&name);
                    let changes = propose(machine.host(), None, Max::Auto).unwrap().changes;
                    let change = changes.iter().find(|change| change.key == *key).unwrap();
                    assert_eq!(told.contains(key), change.changes(), "{name}");
                    compared.extend(told);
                }
            }
            let sizes: [(&str, &[(&str, u64)]); 6] = [
                ("a narrow hash", &[(BUCKETS, 16_384)]),
                ("a wide hash", &[(MAX, 16_384)]),
                ("a small table", &[(MAX, 7680), (BUCKETS, 7680)]),
                ("a full table", &[(COUNT, 250_000)]),
                ("no maximum", &[(MAX, 0)]),
                ("few expectations", &[(EXPECT_MAX, 1)]),
            ];
            for (name, values) in sizes {
                let machine = machine(files);
                machine.write("/proc/net/nf_conntrack_expect", "299 proto=17 tftp\n");
                for (key, value) in values {
                    set(&machine, key, *value);
                }
                compared.extend(machine.compare_with_tune(&format!("{role:?} with {name}")));
            }
        }
        let known = tuned.into_iter().chain([BUCKETS, MAX, EXPECT_MAX].map(str::to_owned));
        assert_eq!(compared, known.collect(), "each of tune's settings was compared");
    }

    /// Fails when a value of a file is to be set that doctor and tune then find fault with.
    #[test]
    fn a_file_whose_value_tune_would_change_is_mended_with_tunes_value() {
        let key = "net.netfilter.nf_conntrack_tcp_timeout_established";
        for (role, files) in ROLES {
            for (live, written) in [(7440, 432_000), (432_000, 600), (86_400, 8000), (300, 86_400)]
            {
                let machine = machine(files);
                machine.write("/etc/sysctl.d/a.conf", &format!("{key} = {written}\n"));
                set(&machine, key, live);
                let audit = machine.audit();
                let drift = audit.notes("drift")[0];
                let first = drift.mend.iter().flat_map(|mend| given(&mend.command)).next();
                let value: u64 = first.unwrap().1.parse().unwrap();
                set(&machine, key, value);
                let changes = propose(machine.host(), None, Max::Auto).unwrap().changes;
                let change = changes.iter().find(|change| change.key == key).unwrap();
                assert!(!change.changes(), "{role:?}: {live}, {written}: {change:?}");
            }
        }
    }

    /// Fails when a file's line is advised that tune would refuse: no maximum, one that memory does not
    /// bear or the entries reach, a hash that does not fit it.
    #[test]
    fn a_size_that_tune_would_refuse_is_not_set_because_a_file_says_it() {
        let (kept, size) = ("sed -i '1s|=.*|= 262144|' /etc/sysctl.d/a.conf", "sysctl -w ");
        let both = format!("{size}{BUCKETS}=524288 {MAX}=524288 && ");
        let auto = format!("{size}{BUCKETS}=1048576 {MAX}=1048576 && ");
        let huge = (MAX, 100_000_000);
        let fewer = format!("{size}{MAX}=262144");
        let cases: [Written<'_>; 14] = [
            (MAX, "0", &[], &[kept]),
            (MAX, "0x0", &[], &[kept]),
            (MAX, "12", &[], &[kept]),
            (MAX, "100000000", &[], &[kept]),
            (MAX, "20000", &[(COUNT, 19_000)], &[kept]),
            (MAX, "524288", &[], &[&both[..both.len() - 4], "if the present value is right"]),
            (MAX, "100000000", &[(MAX, 0)], &[&auto]),
            // Nor does the present maximum stay that tune would refuse.
            (MAX, "262144", &[huge], &[&fewer]),
            (MAX, "0", &[huge], &[]),
            (MAX, "524288", &[(COUNT, 250_000)], &[&both[..both.len() - 4]]),
            (MAX, "0", &[(COUNT, 250_000)], &[&auto]),
            (BUCKETS, "0", &[], &[kept]),
            (BUCKETS, "1024", &[], &[kept]),
            (BUCKETS, "100000000", &[], &[kept]),
        ];
        for (key, written, values, expected) in cases {
            let machine = machine(&[]);
            machine.write("/etc/sysctl.d/a.conf", &format!("{key} = {written}\n"));
            for (key, value) in values {
                set(&machine, key, *value);
            }
            let audit = machine.audit();
            let mends = &audit.notes("drift")[0].mend;
            let commands: Vec<_> = mends.iter().map(|mend| mend.command.as_str()).collect();
            assert_eq!(commands.len(), expected.len(), "{key} = {written}: {commands:?}");
            for (command, expected) in commands.iter().zip(expected) {
                assert!(command.contains(expected), "{key} = {written}: {commands:?}");
            }
        }
    }

    /// Before Linux 4.7 the hash has no sysctl that can be written.
    #[test]
    fn an_old_kernel_gets_the_same_numbers_by_its_parameter() {
        let machine = machine(&[(HASHSIZE, "16384\n")]);
        set(&machine, BUCKETS, 16_384);
        let buckets = machine.host().path(&sysctl_path(BUCKETS));
        fs::set_permissions(buckets, fs::Permissions::from_mode(0o444)).unwrap();
        let audit = machine.audit();
        let commands = audit.notes("hash")[0].mend.iter().map(|mend| mend.command.as_str());
        let commands: Vec<_> = commands.collect();
        let by_hand = format!("echo 1048576 > {HASHSIZE} && sysctl -w {MAX}=1048576");
        assert_eq!(commands, ["ctguard tune --apply", by_hand.as_str()]);
    }
}
