//! Each command that doctor prints, run on the machine of files that it is printed for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use super::{
    super::{
        TIMEOUTS, TimeoutRule, audit::Audit, finding::Finding, mends::given, testing::Machine,
    },
    machines::{CASES, Files, OLD_MAX},
};
use crate::{
    host::{BUCKETS, COUNT, EXPECT_MAX, MAX, present_name, sysctl_path},
    tune::{self, Max},
};

/// Machines with what the cases do not have, for the commands of other findings and of notes.
const OTHERS: &[(&str, Files)] = &[
    ("a short backlog", &[("/proc/sys/net/core/somaxconn", "128\n")]),
    (
        "a short backlog that a file sets",
        &[
            ("/proc/sys/net/core/somaxconn", "128\n"),
            ("/etc/sysctl.d/a.conf", "net.core.somaxconn = 128\nnet.ipv4.tcp_fin_timeout = 20\n"),
        ],
    ),
    (
        "short backlogs without SYN cookies",
        &[
            ("/proc/sys/net/ipv4/tcp_syncookies", "0\n"),
            ("/proc/sys/net/ipv4/tcp_max_syn_backlog", "128\n"),
        ],
    ),
    (
        "SYNs and connections that met full queues",
        &[(
            "/proc/net/netstat",
            "TcpExt: ListenOverflows TCPReqQFullDrop TCPReqQFullDoCookies\nTcpExt: 7 5 9\n",
        )],
    ),
    ("helpers by port", &[("/proc/sys/net/netfilter/nf_conntrack_helper", "1\n")]),
    (
        "many invalid packets",
        &[
            ("/proc/net/stat/nf_conntrack", "entries clashres drop invalid\n00000400 0 0 9000\n"),
            ("/proc/sys/net/netfilter/nf_conntrack_log_invalid", "0\n"),
        ],
    ),
    (
        "few expectations",
        &[
            ("/proc/sys/net/netfilter/nf_conntrack_expect_max", "4\n"),
            (
                "/proc/net/nf_conntrack_expect",
                "1 proto=17 tftp\n2 proto=17 tftp\n3 proto=17 tftp\n",
            ),
        ],
    ),
    (
        "expectations that ran out, in the log",
        &[
            ("/proc/sys/net/netfilter/nf_conntrack_expect_max", "64\n"),
            ("/dev/kmsg", "4,1,1000,-;nf_conntrack: expectation table full\n"),
        ],
    ),
    (
        "neighbours that ran out",
        &[
            ("/dev/kmsg", "4,1,1000,-;neighbour: arp_cache: neighbor table overflow!\n"),
            ("/proc/sys/net/ipv4/neigh/default/gc_thresh1", "128\n"),
            ("/proc/sys/net/ipv4/neigh/default/gc_thresh2", "512\n"),
            ("/proc/sys/net/ipv4/neigh/default/gc_thresh3", "1024\n"),
            ("/proc/sys/net/ipv6/neigh/default/gc_thresh1", "128\n"),
            ("/proc/sys/net/ipv6/neigh/default/gc_thresh2", "512\n"),
            ("/proc/sys/net/ipv6/neigh/default/gc_thresh3", "1024\n"),
        ],
    ),
    (
        "a table that was full",
        &[
            ("/dev/kmsg", "4,1,1000,-;nf_conntrack: table full, dropping packet\n"),
            (
                "/proc/net/stat/nf_conntrack",
                "entries clashres drop early_drop insert_failed invalid\n00000400 0 9 9 0 0\n",
            ),
        ],
    ),
    (
        "insertions that fail beside an empty table",
        &[(
            "/proc/net/stat/nf_conntrack",
            "entries clashres drop early_drop insert_failed invalid\n00000400 0 0 0 ffff 0\n",
        )],
    ),
    (
        "a file that systemd does not read",
        &[
            ("/usr/lib/systemd/systemd", ""),
            ("/etc/sysctl.conf", "# ours\nnet.netfilter.nf_conntrack_max = 262144\n"),
        ],
    ),
    (
        "a hash that was frozen",
        &[(
            "/etc/modprobe.d/a.conf",
            "options nf_conntrack hashsize=16384 acct=1\noptions dummy numdummies=2\n",
        )],
    ),
    (
        "a hash that is no number",
        &[("/etc/modprobe.d/a.conf", "options nf_conntrack acct=1 hashsize=lots\n")],
    ),
    (
        "a narrow hash that an option sets",
        &[
            ("/etc/modprobe.d/a.conf", "options nf_conntrack hashsize=16384\n"),
            ("/proc/sys/net/netfilter/nf_conntrack_buckets", "16384\n"),
        ],
    ),
    (
        "a wrong line among others",
        &[(
            "/etc/sysctl.d/a.conf",
            "net.netfilter.nf_conntrack_count = 0\nnet.ipv4.tcp_fin_timeout = 20\n\
             net.ipv4.ip_conntrack_max = 1\nnet.ipv4.netfilter.ip_conntrack_max = 1\n",
        )],
    ),
    ("a file of nothing else", &[("/etc/sysctl.conf", "net.nf_conntrack_max = 262144\n")]),
];

/// Commands of other programs, which cannot be run on files: the finding, the program, and the test
/// that runs it, or why none does.
const NOT_ON_FILES: [(&str, &str, &str); 6] = [
    ("accept-queue", "ss", "it only lists sockets"),
    ("expectations", "nft", "it only lists helpers"),
    ("expectations-full", "nft", "it only lists helpers"),
    ("insert-failed", "nft", "an example for a rule of one's own"),
    ("overwritten", "apt-get", "it needs Debian's archive"),
    ("syn-backlog", "ctguard run", "tests/tests/guide.rs"),
];

/// What the log and counters since boot say stays, whatever is done.
const PAST: [&str; 8] = [
    "dropped",
    "early-drop",
    "expectations-full",
    "insert-failed",
    "invalid",
    "neighbours-full",
    "syn-backlog",
    "table-full-logged",
];

/// Findings whose commands are run here.
const MENDED: [&str; 30] = [
    "drift",
    "dropped",
    "early-drop",
    "expectations",
    "expectations-full",
    "fill",
    "gone-module",
    "hash",
    "hash-drift",
    "hash-frozen",
    "hash-option",
    "hash-script",
    "hash-wide",
    "helpers",
    "insert-failed",
    "invalid",
    "memory",
    "module-line",
    "neighbours-full",
    "no-maximum",
    "not-read-at-boot",
    "small-backlog",
    "small-table",
    "syn-backlog",
    "syn-cookies",
    "table-full-logged",
    "timeout",
    "too-early",
    "unknown-parameter",
    "wrong-line",
];

/// An operator's own words, in each file that a command might edit.
const KEPT: &str = "# kept: nf_conntrack_max, nf_conntrack_count, ip_conntrack_max, hashsize=1\n";

fn is_conf(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "conf")
}

fn machine(files: &[(&str, &str)]) -> Machine {
    let machine = Machine::healthy("mended");
    for (path, text) in files {
        // A comment would show that nobody has overwritten sysctl.conf.
        let is_overwritten = *path == "/etc/sysctl.conf" && !text.contains('#');
        let is_edited = path.starts_with("/etc/") && is_conf(path) && !is_overwritten;
        machine.write(path, &if is_edited { format!("{text}{KEPT}") } else { (*text).to_owned() });
    }
    // Directories that each system has.
    for directory in ["modprobe.d", "modules-load.d", "modules.d", "sysctl.d"] {
        fs::create_dir_all(machine.host().path(&format!("/etc/{directory}"))).unwrap();
    }
    machine
}

/// All machines: the cases, the others, and one for each timeout that is too short or too long.
fn machines() -> Vec<(String, Vec<(String, String)>)> {
    let owned = |files: Files| {
        files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
    };
    let mut all: Vec<(String, Vec<(String, String)>)> =
        CASES.iter().map(|(name, files, _)| ((*name).to_owned(), owned(files))).collect();
    all.extend(OTHERS.iter().map(|(name, files)| ((*name).to_owned(), owned(files))));
    for key in TIMEOUTS.iter().map(TimeoutRule::key) {
        for seconds in ["1\n", "900000\n"] {
            let file = (sysctl_path(&key), seconds.to_owned());
            all.push((format!("{key} of {seconds}"), vec![file]));
        }
    }
    all
}

fn files_below(directory: &Path, root: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files_below(&path, root, found);
        } else {
            let name = format!("/{}", path.strip_prefix(root).unwrap().display());
            found.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

fn snapshot(machine: &Machine) -> BTreeMap<String, String> {
    let (mut found, root) = (BTreeMap::new(), machine.host().path(""));
    files_below(&root, &root, &mut found);
    found
}

/// The program that a command needs, if it cannot be run on files.
fn program(command: &str) -> Option<&str> {
    let first = command.split(' ').next().unwrap_or_default();
    match first {
        "ctguard" if command.starts_with("ctguard tune ") => None,
        "ctguard" => Some(&command[..command.len().min("ctguard run".len())]),
        "sysctl" | "sed" | "echo" | "ln" => None,
        other => Some(other),
    }
}

/// Does what the kernel and tune do when a command is run; returns the files that it may change, and
/// the values that it sets.
fn run(machine: &Machine, command: &str) -> BTreeMap<String, Option<String>> {
    let command = command.split("    #").next().unwrap_or_default();
    let host = machine.host();
    if let Some((first, rest)) = command.split_once(" && ") {
        let mut may_change = run(machine, first);
        may_change.extend(run(machine, rest));
        return may_change;
    }
    let mut may_change = BTreeMap::new();
    if let Some(arguments) = command.strip_prefix("ctguard tune ") {
        let words: Vec<_> = arguments.split(' ').collect();
        let max = words.iter().position(|word| *word == "--max").map(|at| words[at + 1]);
        let max = max.map_or(Max::Auto, |max| Max::Entries(max.parse().unwrap()));
        let proposal = tune::propose(host, None, max).unwrap();
        let files = if words.contains(&"--persist") { proposal.files.as_slice() } else { &[] };
        tune::apply(host, &proposal.changes, files).unwrap();
        for change in proposal.changes.iter().filter(|change| change.changes()) {
            may_change.insert(sysctl_path(&change.key), Some(change.then.to_string()));
        }
        let files = files.iter().map(|file| (file.path.to_owned(), Some(file.text.clone())));
        may_change.extend(files);
    } else {
        let root = host.path("").display().to_string();
        let script = command.replace(" /", &format!(" {root}/"));
        let sysctl = r#"sysctl() { shift; for it in "$@"; do
            file=$ROOT/proc/sys/$(echo "${it%%=*}" | tr . /); [ -f "$file" ] || exit 2
            echo "${it#*=}" > "$file"; done; }; "#;
        let mut shell = Command::new("sh");
        let script = format!("set -e; {sysctl}{script}");
        let ran =
            shell.args(["-c", &script]).env("ROOT", &root).current_dir(&root).output().unwrap();
        assert!(ran.status.success(), "{command}: {}", String::from_utf8_lossy(&ran.stderr));
        for (key, value) in given(command) {
            may_change.insert(sysctl_path(key), Some(value.to_owned()));
        }
        if !command.starts_with("sysctl ") {
            let file = command.split(' ').next_back().unwrap();
            may_change.insert(file.to_owned(), None);
        }
    }
    // Both names of the maximum are one number.
    let set = may_change.iter().find(|(path, _)| present_path(path) == sysctl_path(MAX));
    if let Some((_, Some(max))) = set {
        let max = max.clone();
        for path in [sysctl_path(MAX), OLD_MAX.to_owned()] {
            machine.write(&path, &format!("{max}\n"));
            may_change.insert(path, Some(max.clone()));
        }
    }
    may_change
}

fn present_path(path: &str) -> String {
    let key = path.strip_prefix("/proc/sys/").unwrap_or_default().replace('/', ".");
    sysctl_path(present_name(&key))
}

/// The names of all that was found, notes included, as often as each was.
fn checks(audit: &Audit) -> Vec<&'static str> {
    let mut checks: Vec<_> = audit.findings.iter().map(|finding| finding.check).collect();
    checks.sort_unstable();
    checks
}

/// Whether a finding is about a line that its command has changed or taken away.
fn is_meant(finding: &Finding, command: &str, path: &str, line: &str) -> bool {
    let spelt = |text: &str| text.replace('-', "_");
    let is_end = |it: char| !it.is_ascii_alphanumeric() && it != '_';
    let mut said = finding.what.clone();
    for (key, _) in given(command) {
        said = format!("{said} {key}");
    }
    for read in &finding.read {
        said = format!("{said} {} {}", read.place, read.value);
    }
    if command.contains("ctguard tune ") {
        let tuned = TIMEOUTS.iter().filter(|rule| rule.is_tuned()).map(TimeoutRule::key);
        said.extend(
            tuned.chain([MAX, BUCKETS, EXPECT_MAX].map(str::to_owned)).map(|it| format!(" {it}")),
        );
    }
    let said = spelt(&said);
    let is_said = |name: &str| said.split(is_end).any(|word| word == name);
    if path.contains("sysctl") {
        let key = line.split('=').next().unwrap_or_default().trim();
        let name = key.rsplit(['.', '/']).next().unwrap_or_default();
        return is_said(&spelt(name));
    }
    // What all lines about the module have.
    let common = ["options", "nf_conntrack"];
    let words = line.split_whitespace().map(|word| spelt(word.split('=').next().unwrap_or(word)));
    words.filter(|word| !common.contains(&word.as_str())).any(|word| is_said(&word))
}

/// Fails when something changed that a command does not name, or a line was lost that its finding is
/// not about.
fn compare(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
    may_change: &BTreeMap<String, Option<String>>,
    what: &str,
    is_meant: impl Fn(&str, &str) -> bool,
) {
    let paths: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    // Tune's own record.
    let changed = paths.into_iter().filter(|path| before.get(*path) != after.get(*path));
    for path in changed.filter(|path| !path.starts_with("/var/lib/ctguard/")) {
        let Some(expected) = may_change.get(path) else { panic!("{what}: {path} has changed") };
        let text = after.get(path).unwrap_or_else(|| panic!("{what}: {path} is gone"));
        if let Some(expected) = expected {
            assert_eq!(text.trim(), expected.trim(), "{what}: {path}");
            continue;
        }
        let lost = before.get(path).map_or("", String::as_str).lines();
        for line in lost.filter(|line| !text.lines().any(|left| left == *line)) {
            let is_meant = is_meant(path, line) && !KEPT.contains(line);
            assert!(is_meant, "{what}: {path} has lost {line:?}");
        }
    }
}

/// Fails when a command that doctor prints does not mend, breaks something else, or changes what it
/// does not name.
#[test]
fn after_any_mend_its_finding_is_gone_and_nothing_else_has_changed() {
    let (mut mended, mut elsewhere) = (BTreeSet::new(), BTreeSet::new());
    for (name, files) in machines() {
        let files: Vec<_> =
            files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let untouched = machine(&files).audit();
        for finding in &untouched.findings {
            for mend in &finding.mend {
                let command = &mend.command;
                if let Some(program) = program(command) {
                    elsewhere.insert((finding.check, program.to_owned()));
                    continue;
                }
                let machine = machine(&files);
                let before = snapshot(&machine);
                let may_change = run(&machine, command);
                let what = format!("{name}: {command}");
                let is_meant = |path: &str, line: &str| is_meant(finding, command, path, line);
                compare(&before, &snapshot(&machine), &may_change, &what, is_meant);

                let audit = machine.audit();
                let mut left = checks(&untouched);
                if !PAST.contains(&finding.check) {
                    let stays =
                        |it: &&Finding| it.check == finding.check && it.what == finding.what;
                    assert!(!audit.findings.iter().any(|it| stays(&it)), "{what}: it stays");
                    left.remove(left.iter().position(|it| *it == finding.check).unwrap());
                }
                for check in checks(&audit) {
                    let at = left.iter().position(|it| *it == check);
                    let at = at.unwrap_or_else(|| panic!("{what}: {check} {:#?}", audit.findings));
                    left.remove(at);
                }
                let number = |key: &str| machine.host().number(&sysctl_path(key)).unwrap();
                let (count, max) = (number(COUNT).unwrap(), number(MAX).unwrap());
                assert!(max == 0 || max > count, "{what}");
                mended.insert(finding.check);
            }
        }
    }
    let expected = NOT_ON_FILES.iter().map(|(check, program, _)| (*check, (*program).to_owned()));
    assert_eq!(elsewhere, expected.collect(), "run nowhere");
    assert_eq!(mended.into_iter().collect::<Vec<_>>(), MENDED, "run here");
}
