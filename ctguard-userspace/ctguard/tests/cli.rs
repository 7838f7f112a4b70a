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
    assert_usage(&["set", "target"], "target is no KEY=VALUE");
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

#[test]
fn every_verb_has_help_with_an_example() {
    for verb in ["run", "status", "get", "set", "detach"] {
        assert_help(&[verb]);
    }
    for action in ["add", "del", "list"] {
        assert_help(&["allow", action]);
        assert_help(&["deny", action]);
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

fn assert_help(arguments: &[&str]) {
    let output = ctguard(&[arguments, &["--help"]].concat());
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    assert!(said.contains("Examples:"), "{arguments:?}: {said}");
}

fn lines(text: &[u8]) -> usize {
    String::from_utf8_lossy(text).lines().count()
}

fn ctguard(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ctguard")).args(arguments).output().expect("cargo built it")
}
