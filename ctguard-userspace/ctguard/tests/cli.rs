//! The command line as a shell sees it. Needs neither root nor a kernel with BPF: what is wrong
//! with a command is said before anything is opened.

use std::process::{Command, Output};

#[test]
fn a_bad_key_is_one_line_that_names_the_near_one() {
    assert_usage(&["set", "source.tpc.rate=5"], "did you mean source.tcp.rate?");
    assert_usage(&["get", "targt"], "did you mean target?");
}

#[test]
fn a_value_out_of_range_is_one_line() {
    for assignment in [
        "source.tcp.rate=0",
        "source.udp.rate=1e12",
        "source.other.burst=-1",
        "target=1.5",
        "target=0",
        "dry-run=perhaps",
        "fallback.rate=",
    ] {
        let key = assignment.split('=').next().unwrap();
        assert_usage(&["set", assignment], key);
        assert_usage(&["run", "-i", "wan0", "--set", assignment], key);
    }
}

#[test]
fn one_bad_pair_among_good_ones_is_a_bad_command() {
    assert_usage(&["set", "target=80%", "source.tcp.rate=0"], "source.tcp.rate");
    assert_usage(&["set", "target"], "target is not KEY=VALUE");
}

#[test]
fn a_bad_prefix_is_one_line() {
    for verb in ["allow", "deny"] {
        for prefix in ["300.1.1.1/8", "192.0.2.0/33", "wan0", "::/129"] {
            assert_usage(&[verb, "add", prefix], prefix);
            assert_usage(&[verb, "del", prefix], prefix);
            assert_usage(&[verb, "list", prefix], prefix);
        }
    }
}

#[test]
fn everybody_is_on_no_list() {
    assert_usage(&["allow", "add", "0.0.0.0/0"], "everybody");
    assert_usage(&["deny", "add", "::/0"], "everybody");
}

#[test]
fn a_bad_time_is_one_line() {
    assert_usage(&["allow", "add", "192.0.2.1", "--for", "soon"], "--for soon");
}

#[test]
fn a_command_without_its_arguments_is_a_bad_command() {
    for arguments in [&["run"][..], &["set"], &["allow"], &["allow", "add"], &["frobnicate"], &[]] {
        let output = ctguard(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

/// Every verb, and the sentence that its help begins with.
const HELP: [(&[&str], &str); 29] = [
    (&[], "Keep floods from filling the connection table (`nf_conntrack`), with XDP"),
    (&["init"], "Look at this machine and propose a configuration, in dry run"),
    (&["run"], "Guard interfaces until Ctrl-C (SIGINT) or SIGTERM"),
    (&["status"], "Show how full the table is, the limits in force and what was refused"),
    (&["why"], "Show how a source stands, and what would become of its next packets"),
    (&["top"], "Watch the guard at work, and allow or deny sources by a key"),
    (&["capture"], "Write packets that the guard refuses into a file, for Wireshark"),
    (&["events"], "Show what the daemon did since the last boot, and why"),
    (
        &["incidents"],
        "Show floods and other times of pressure: when, how bad, from whom, and what was done",
    ),
    (&["report"], "Write one incident as a page of HTML, with plots, to send to a provider"),
    (&["metrics"], "Print metrics for Prometheus, or serve them over HTTP"),
    (&["get"], "Show the settings in force"),
    (&["set"], "Change settings at once, whether or not a daemon runs"),
    (&["enforce"], "End the dry run: refuse what is above a limit from now on"),
    (&["pause"], "Drop nothing for a while, then go on as before"),
    (&["allow"], "Manage the allow list: sources that have no ceiling"),
    (&["deny"], "Manage the deny list: sources whose packets are all dropped"),
    (&["allow", "add"], "Add a prefix, or change when its entry expires"),
    (&["deny", "del"], "Remove a prefix; exit status 1 if it is not in the list"),
    (
        &["allow", "list"],
        "Show the list, or only entries that overlap a prefix; exit status 1 if none does",
    ),
    (&["feeds"], "Show lists that are kept elsewhere; exit status 1 if one cannot be read"),
    (&["config"], "Check, show and compare the configuration"),
    (&["reload"], "Have the daemon read its configuration again: all of it is used, or nothing"),
    (&["save"], "Write the settings and lists in force into a file that a reload reads"),
    (
        &["learn"],
        "Have the daemon read the connection table again, for entries that no packet made",
    ),
    (&["detach"], "Remove the guard from the kernel: programs, maps and pins"),
    (&["doctor"], "Find what is wrong with connection tracking on this machine, and how to fix it"),
    (&["tune"], "Set connection tracking as `ctguard doctor` advises, or revert that"),
    (&["simulate"], "Simulate how the guard handles a described or recorded load; needs no root"),
];

#[test]
fn help_says_first_what_a_command_does_and_ends_with_examples() {
    for (verb, sentence) in HELP {
        for flag in ["-h", "--help"] {
            let help = help(verb, flag);
            assert_eq!(help.lines().next(), Some(sentence), "{verb:?} {flag}");
            let places = ["\nUsage: ctguard", "\nOptions:\n", "\nExamples:\n  ctguard "];
            let places = places.map(|part| help.find(part));
            assert!(places.is_sorted() && places[0].is_some(), "{verb:?} {flag}: {help}");
        }
    }
}

#[test]
fn the_help_of_every_verb_is_looked_at() {
    let help = help(&[], "--help");
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    for command in commands.lines() {
        let verb = command.split_whitespace().next().unwrap();
        let sentence = HELP.iter().find(|(known, _)| *known == [verb]);
        let (_, sentence) = sentence.unwrap_or_else(|| panic!("{verb} is not in HELP"));
        assert!(command.ends_with(sentence), "{command}");
    }
}

#[test]
fn help_of_set_lists_every_key_with_its_value_and_default() {
    let help = help(&["set"], "--help");
    for (key, default) in [
        ("target=N%", "85%"),
        ("dry-run=on|off", "off"),
        ("fail-open=on|off", "off"),
        ("fallback.rate=N/s", "target x maximum / 120 s"),
        ("answers.rate=N/s", "half of what the links carry"),
        ("relief.reclaim=on|off", "on"),
        ("relief.unanswered-after=Ns|off", "1s"),
        ("relief.half-open-after=Ns|off", "5s"),
        ("relief.finished-after=Ns|off", "10s"),
        ("relief.answered-after=Ns|off", "10s"),
        ("relief.stream-above-part-after=Ns|off", "30s"),
        ("relief.established-above-part-after=Ns|off", "60s"),
        ("relief.adaptive-start=N%", "off"),
        ("relief.adaptive-end=N%", "off"),
        ("overload.after=Ns|off", "off"),
        ("overload.for=Ns|off", "600s"),
        ("source.CLASS.rate=N/s", "50/s, 100/s, 20/s"),
        ("source.CLASS.burst=N", "200, 400, 50"),
        ("prefix.CLASS.rate=N/s", "off"),
        ("prefix.CLASS.burst=N", "one second's worth"),
        ("service.CLASS.rate=N/s", "off"),
        ("service.CLASS.burst=N", "one second's worth"),
        ("floor.CLASS.rate=N/s", "1/s"),
        ("interface.IF.source.CLASS.rate=N/s", "source.CLASS.rate"),
        ("interface.IF.source.CLASS.burst=N", "source.CLASS.burst"),
        ("interface.IF.zone=N", "0"),
        ("interface.IF.answer=on|off", "on"),
    ] {
        let (_, entry) =
            help.split_once(&format!("\n  {key}\n")).unwrap_or_else(|| panic!("{key}"));
        let meaning = entry.lines().next().unwrap_or_default();
        assert!(meaning.ends_with(&format!(" [default: {default}]")), "{key}: {meaning}");
    }
}

/// Fails when a verb that uses no guard offers to choose one, or when the help of one list has the
/// other's examples.
#[test]
fn help_shows_only_what_concerns_the_command() {
    for (verb, _) in HELP {
        let text = help(verb, "-h");
        let uses_no_guard = matches!(verb, ["events" | "simulate"]);
        assert_eq!(text.contains("--pin-path"), !uses_no_guard, "{verb:?}: {text}");
    }
    for (list, other) in [("allow", "deny"), ("deny", "allow")] {
        for action in ["add", "del", "list"] {
            let text = help(&[list, action], "--help");
            let names = |name: &str| text.contains(&format!("ctguard {name} {action}"));
            assert!(names(list) && !text.contains(&format!("ctguard {other} ")), "{text}");
        }
    }
}

#[test]
fn without_a_guard_commands_say_so_or_ask_for_privileges() {
    for arguments in [&["status"][..], &["get"], &["set", "target=80%"], &["allow", "list"]] {
        let arguments = [&["--pin-path", "/run/ctguard-of-nobody/0"], arguments].concat();
        let output = ctguard(&arguments);
        let code = output.status.code().unwrap();
        assert!(code == 3 || code == 4, "{arguments:?} gave {code}");
        assert_eq!(lines(&output.stderr), 1, "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

/// One clear line on standard error that holds `part`, status 2, nothing on standard output.
fn assert_usage(arguments: &[&str], part: &str) {
    let output = ctguard(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert_eq!(lines(&output.stderr), 1, "{arguments:?}: {said}");
    assert!(said.starts_with("ctguard: ") && said.contains(part), "{arguments:?}: {said}");
}

fn help(verb: &[&str], flag: &str) -> String {
    let output = ctguard(&[verb, &[flag]].concat());
    assert_eq!(output.status.code(), Some(0), "{verb:?} {flag}");
    String::from_utf8(output.stdout).expect("help is text")
}

fn lines(text: &[u8]) -> usize {
    String::from_utf8_lossy(text).lines().count()
}

fn ctguard(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ctguard")).args(arguments).output().expect("cargo built it")
}
