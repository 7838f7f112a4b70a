//! No command is advised that does harm, or that does not last: what `tune` refuses, and what another
//! program undoes.

use std::collections::BTreeMap;

use super::{
    finding::{Finding, Reading},
    owners::Owner,
    persistence::in_file,
    size::with_margin,
    timeout_rules::{TIMEOUTS, TimeoutRule},
};
use crate::host::{
    Assignment, COUNT, HASHSIZE, Host, MAX, SysctlFiles, TableNumbers, is_size_ours, most_entries,
    present_name,
};

const SYSCTL: &str = "sysctl -w ";
const COMMENT: &str = "    #";
/// Where tune puts its settings, in `sysctl.d`.
const FILE: &str = "zz-ctguard.conf";
const KEYS: &str = "/proc/sys/net/netfilter/";
const IN_FIRST_NAMESPACE: &str = "nsenter --target 1 --net ";
/// Keys that only the first network namespace sets.
const SIZES: [&str; 3] =
    [MAX, "net.netfilter.nf_conntrack_buckets", "net.netfilter.nf_conntrack_expect_max"];

pub(super) fn check(
    host: &Host,
    table: Option<TableNumbers>,
    owners: &[Owner],
    findings: &mut [Finding],
) {
    let count = table.map_or(0, |table| most_entries(host, table.count));
    let files = SysctlFiles::read(host).unwrap_or_default();
    for finding in findings {
        finding.mend.retain(|mend| !lowers_below(&mend.command, count));
        for mend in &mut finding.mend {
            mend.command = lasting(&mend.command, &finding.read, &files);
            mend.reversible &= !mend.command.contains("sed ");
        }
        let keys = keys(finding);
        let owned = keys.iter().find_map(|key| Some((key, owners.iter().find(|it| it.sets(key))?)));
        if let Some((key, owner)) = owned
            && !finding.mend.is_empty()
        {
            finding.mend.retain(|mend| !sets(&mend.command));
            let instead = owner.instead(key);
            if !finding.why.contains(&instead) {
                finding.why = format!("{}. {instead}", finding.why);
            }
        }
        if keys.iter().any(|key| SIZES.contains(&key.as_str())) && !is_size_ours(host) {
            elsewhere(host, finding);
        }
    }
}

/// The settings of `sysctl -w KEY=VALUE …`.
pub(super) fn given(command: &str) -> impl Iterator<Item = (&str, &str)> {
    let commands = command.split(COMMENT).next().unwrap_or_default().split(" && ");
    let given = commands.filter_map(|command| command.strip_prefix(SYSCTL));
    given.flat_map(|given| given.split_whitespace().filter_map(|word| word.split_once('=')))
}

/// The same command, so that no file undoes it at the next boot.
fn lasting(command: &str, read: &[Reading], files: &SysctlFiles) -> String {
    if !command.starts_with("ctguard tune") {
        let comment = command.find(COMMENT).unwrap_or(command.len());
        let (set, comment) = command.split_at(comment);
        let mut all = set.to_owned();
        for (key, value) in given(command) {
            let Some((found, _)) = files.at_boot(key) else { continue };
            if value.parse().ok() != found.number() {
                all = format!("{all} && {}", in_file(found, key, value));
            }
        }
        return all + comment;
    }
    let mut tuned: Vec<_> =
        TIMEOUTS.iter().filter(|rule| rule.is_tuned()).map(TimeoutRule::key).collect();
    tuned.extend(SIZES.map(str::to_owned));
    let is_tuned = |key: &str| tuned.iter().any(|tuned| tuned == present_name(key));
    let read = read.iter().filter_map(|read| read.place.strip_prefix(KEYS));
    let read = read.map(|name| format!("net.netfilter.{name}"));
    let is_set = read.chain(SIZES.map(str::to_owned)).any(|key| files.at_boot(&key).is_some());
    if !is_set || command.contains("--persist") && files.after(FILE).all(|it| !is_tuned(&it.key)) {
        return command.to_owned();
    }
    let persisted = if command.contains("--persist") {
        command.to_owned()
    } else {
        command.replacen(" --apply", " --apply --persist", 1)
    };
    // What comes after tune's file would win.
    let mut lines: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for Assignment { file, line, .. } in files.after(FILE).filter(|it| is_tuned(&it.key)) {
        lines.entry(file).or_default().push(format!("-e {line}d"));
    }
    let edits = lines.iter().map(|(file, lines)| format!("sed -i {} {file} && ", lines.join(" ")));
    edits.collect::<String>() + &persisted
}

/// The keys that the commands of a finding would change, as far as they are conntrack's.
fn keys(finding: &Finding) -> Vec<String> {
    let commands = || finding.mend.iter().map(|mend| mend.command.as_str());
    let mut keys: Vec<_> = commands().flat_map(given).map(|(key, _)| key.to_owned()).collect();
    if commands().any(|command| command.contains(HASHSIZE)) {
        keys.push(SIZES[1].to_owned());
    }
    if keys.is_empty() && commands().any(|command| command.contains("ctguard tune")) {
        let read = finding.read.iter().filter_map(|read| read.place.strip_prefix(KEYS));
        keys.extend(read.map(|name| format!("net.netfilter.{name}")).filter(|key| key != COUNT));
        if keys.is_empty() {
            keys.push(MAX.to_owned());
        }
    }
    keys
}

/// Whether a command changes settings now.
fn sets(command: &str) -> bool {
    command.starts_with(SYSCTL) || command.contains(HASHSIZE) || command.contains("ctguard tune")
}

/// Whether a command gives the table a maximum that its entries reach at once, or none.
fn lowers_below(command: &str, count: u64) -> bool {
    given(command).any(|(key, value)| {
        let max: Option<u64> = value.parse().ok();
        present_name(key) == MAX && max.is_none_or(|max| max <= with_margin(count))
    })
}

/// Process 1 of a container with process ids of its own is the container's.
fn elsewhere(host: &Host, finding: &mut Finding) {
    let [own, first] = ["self", "1"].map(|process| host.network_namespace(process));
    if own.is_some() && own == first {
        finding.mend.retain(|mend| !sets(&mend.command));
        finding.why.push_str(". Only the host can change that: run ctguard on the host");
        return;
    }
    for mend in finding.mend.iter_mut().filter(|mend| sets(&mend.command)) {
        mend.command.insert_str(0, IN_FIRST_NAMESPACE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::Machine;

    #[test]
    fn a_command_changes_the_line_that_would_undo_it_and_keeps_its_comment() {
        let machine = Machine::healthy("mends");
        machine.write("/etc/sysctl.d/a.conf", "net.core.somaxconn = 128\n");
        let files = SysctlFiles::read(machine.host()).unwrap();
        let lasting = |command: &str| lasting(command, &[], &files);
        assert_eq!(
            lasting("sysctl -w net.core.somaxconn=4096    # then restart it"),
            "sysctl -w net.core.somaxconn=4096 && sed -i '1s|=.*|= 4096|' /etc/sysctl.d/a.conf    # \
             then restart it"
        );
        assert_eq!(lasting("sysctl -w net.core.somaxconn=128"), "sysctl -w net.core.somaxconn=128");
        assert_eq!(lasting("ctguard tune --apply"), "ctguard tune --apply");
    }

    #[test]
    fn a_maximum_that_the_entries_reach_at_once_is_never_advised() {
        let command = format!("sysctl -w {MAX}=65536");
        assert!(lowers_below(&command, 60_000) && !lowers_below(&command, 50_000));
        assert!(lowers_below(&format!("sysctl -w {MAX}=0"), 0));
        assert!(!lowers_below("sysctl -w net.core.somaxconn=1", 60_000));
    }
}
