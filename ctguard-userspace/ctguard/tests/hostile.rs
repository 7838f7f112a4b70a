//! What the command line makes of names, arguments and files that others chose. Needs no root.

#![expect(clippy::unwrap_used, reason = "a test says what it expects")]

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Child, Command, Output},
};

/// Clears a screen, in two ways, and turns text round.
const HOSTILE: &str = "\u{1b}[2J\u{9b}2J\u{202e}\u{7}";

#[test]
fn control_characters_of_files_and_processes_do_not_reach_the_terminal() {
    let machine = Machine::make("files");
    machine.write("proc/77/comm", "kube-proxy\n");
    machine.write("proc/77/cmdline", &format!("kube-proxy\0--config={HOSTILE}\n fake line\0"));
    machine.write("proc/sys/net/netfilter/nf_conntrack_count", &format!("{HOSTILE}\n"));
    let name = format!("etc/sysctl.d/90-{HOSTILE}.conf");
    machine.write(&name, &format!("net.netfilter.nf_conntrack_count = {HOSTILE}\n"));
    for json in [&[][..], &["--json"]] {
        let output = machine.doctor(json);
        let said = assert_harmless(&output);
        for shown in ["kube-proxy", "nf_conntrack_count", "etc/sysctl.d/90-"] {
            assert!(said.contains(shown), "{shown} in {said}");
        }
        assert!(!said.contains("\n fake line"), "{said}");
    }
}

/// Fails, or hangs, when an audit of a copy opens what has no end, or leaves the copy.
#[test]
fn files_of_a_copy_that_are_no_plain_files_are_told_and_not_read() {
    let machine = Machine::make("kinds");
    let fifo = machine.path("etc/sysctl.d/10-fifo.conf");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let said = assert_harmless(&machine.doctor(&[]));
    assert!(said.contains("10-fifo.conf: not a regular file"), "{said}");
    fs::remove_file(fifo).unwrap();
    for (name, to) in [("20-zero", "/dev/zero"), ("30-loop", "30-loop.conf"), ("40-out", "/etc")] {
        let link = machine.path(&format!("etc/sysctl.d/{name}.conf"));
        symlink(to, &link).unwrap();
        let said = assert_harmless(&machine.doctor(&[]));
        let problem = match name {
            "20-zero" => None,
            "30-loop" => Some("30-loop.conf: Too many levels of symbolic links"),
            _ => Some("40-out.conf: a directory, not a file"),
        };
        match problem {
            Some(problem) => assert!(said.contains(problem), "{said}"),
            None => assert!(!said.contains(name), "there is no such file in the copy: {said}"),
        }
        fs::remove_file(link).unwrap();
    }
    let sparse = fs::File::create(machine.path("etc/sysctl.d/50-sparse.conf")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    let said = assert_harmless(&machine.doctor(&[]));
    assert!(said.contains("50-sparse.conf: longer than 4096 KiB"), "{said}");
}

#[test]
fn control_characters_of_a_live_process_do_not_reach_the_terminal() {
    let machine = Machine::make("process");
    let shell = machine.0.join("kube-proxy");
    symlink("/bin/sh", &shell).unwrap();
    let waits = ["-c", "sleep 60; true", HOSTILE];
    let process = Process(Command::new(shell).args(waits).spawn().unwrap());
    let output = ctguard(&["doctor"]);
    let pid = format!("pid {}", process.0.id());
    assert!(assert_harmless(&output).contains(&pid), "{output:?}");
}

#[test]
fn control_characters_of_errors_do_not_reach_the_terminal() {
    for arguments in [&["get", HOSTILE][..], &["set", HOSTILE], &["allow", "add", HOSTILE]] {
        let output = ctguard(arguments);
        assert!(!output.stderr.is_empty());
        assert_harmless(&output);
    }
}

/// Text without a character that a terminal obeys, apart from the ends of lines.
fn assert_harmless(output: &Output) -> String {
    let said = String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap();
    let obeyed = |letter: &char| {
        letter.is_control() && *letter != '\n' || ('\u{202a}'..='\u{202e}').contains(letter)
    };
    assert_eq!(said.chars().find(obeyed), None, "{said:?}");
    said
}

/// A copy of a machine's files.
struct Machine(PathBuf);

impl Machine {
    fn make(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ctguard-{}-{test}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, path: &str) -> PathBuf {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap();
    }

    fn doctor(&self, arguments: &[&str]) -> Output {
        ctguard(&[&["doctor", "--root", self.0.to_str().unwrap()], arguments].concat())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ctguard(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ctguard")).args(arguments).output().expect("cargo built it")
}
