//! What the daemon gives up once it has started: privileges that it does not need (`capabilities(7)`,
//! `PR_SET_NO_NEW_PRIVS`), and writing anywhere but where it keeps something (`landlock(7)`).
//!
//! All of it holds for the calling thread and for what that starts from then on. A thread that is
//! restricted by Landlock can neither mount nor unmount.

use std::{
    io,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, AccessFs, BitFlags, PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, make_bitflags,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs,
};
use thiserror::Error;

use crate::{bpf::is_bpffs, run_directory};

/// What the systemd unit leaves, and what root needs to read and replace files of others.
const KEPT: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER);

/// Where timeouts are, of every network namespace. Below it, directories come and go with modules.
const SETTINGS: &str = "/proc/sys/net";

#[derive(Debug, Error)]
pub enum Unconfined {
    #[error(
        "the kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, and lsm= at boot), or a filter of system \
         calls refuses it"
    )]
    NoLandlock,
    #[error("{} cannot be opened ({source}), and is not written to before a restart", path.display())]
    Absent { path: PathBuf, source: PathFdError },
    #[error("Landlock: {0}")]
    Landlock(#[from] RulesetError),
    #[error("cannot give up capabilities: {0}")]
    Capabilities(#[source] io::Error),
    #[error("cannot give up privileges: {0}")]
    Privileges(#[source] io::Error),
}

/// What a thread may do below a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    /// Write, make and remove files and directories.
    Write,
    /// The same without writing into files, which have no content in a bpffs.
    Pin,
}

/// Restricts this thread to writing where a guard with these pins and this state directory does, and
/// takes privileges from it. What fails first is told, and what was done until then stays.
pub fn confine(pins: &Path, state: Option<&Path>) -> Result<(), Unconfined> {
    set_no_new_privs(true).map_err(|error| Unconfined::Privileges(error.into()))?;
    give_up_capabilities().map_err(Unconfined::Capabilities)?;
    let mut absent = None;
    let mut rules = Ruleset::default().handle_access(changes())?.create()?;
    for (path, right) in writable(&outside_bpffs(pins), state) {
        match PathFd::new(&path) {
            Ok(directory) => {
                rules = rules.add_rule(PathBeneath::new(&directory, access(right)))?;
                // An inode of `/proc` is another one once the kernel has forgotten it; elsewhere, an open
                // directory keeps its file system from being unmounted.
                if path == Path::new(SETTINGS) {
                    std::mem::forget(directory);
                }
            }
            // What is not there cannot be named.
            Err(source) => absent = Some(Unconfined::Absent { path, source }),
        }
    }
    match rules.restrict_self()?.ruleset {
        RulesetStatus::NotEnforced => Err(Unconfined::NoLandlock),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => {
            absent.map_or(Ok(()), Err)
        }
    }
}

/// The first directory above the pins that is on no bpffs: one that is unmounted and mounted again is
/// another one. Landlock goes by where files are, so links are followed.
fn outside_bpffs(pins: &Path) -> PathBuf {
    let above = pins.parent().unwrap_or(pins);
    let above = above.canonicalize().unwrap_or_else(|_| above.to_owned());
    let is_outside = |path: &Path| path.exists() && !is_bpffs(path).unwrap_or(false);
    let outside = above.ancestors().find(|path| is_outside(path));
    outside.unwrap_or(Path::new("/")).to_owned()
}

fn give_up_capabilities() -> io::Result<()> {
    let CapabilitySets { effective, permitted, inheritable } = capabilities(None)?;
    let sets = CapabilitySets {
        effective: effective & KEPT,
        permitted: permitted & KEPT,
        inheritable: inheritable & KEPT,
    };
    Ok(set_capabilities(None, sets)?)
}

/// Everything that changes a file system. Whoever handles any of it may move nothing to another
/// directory either.
fn changes() -> BitFlags<AccessFs> {
    AccessFs::from_write(ABI::V3) & !BitFlags::from(AccessFs::Refer)
}

fn access(right: Right) -> BitFlags<AccessFs> {
    let entries = make_bitflags!(AccessFs::{MakeDir | MakeReg | RemoveDir | RemoveFile});
    match right {
        Right::Pin => entries,
        Right::Write => entries | AccessFs::WriteFile | AccessFs::Truncate,
    }
}

/// Whoever unmounts the bpffs, or removes the directory of locks, removes what a rule would be for; so
/// the rules are for the directories above.
fn writable(above_pins: &Path, state: Option<&Path>) -> Vec<(PathBuf, Right)> {
    let run = Path::new(run_directory::PATH);
    let mut all = vec![
        (run.parent().unwrap_or(run).to_owned(), Right::Write),
        (PathBuf::from(SETTINGS), Right::Write),
        (above_pins.to_owned(), Right::Pin),
    ];
    all.extend(state.map(|state| (state.to_owned(), Right::Write)));
    all
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::ErrorKind,
        thread,
    };

    use super::*;

    #[test]
    fn what_a_guard_keeps_may_be_written_and_made_again() {
        let rules = writable(Path::new("/run"), Some(Path::new("/var/lib/ctguard")));
        let rule = |path: &str, right| (PathBuf::from(path), right);
        let expected = [
            rule("/run", Right::Write),
            rule("/proc/sys/net", Right::Write),
            rule("/run", Right::Pin),
            rule("/var/lib/ctguard", Right::Write),
        ];
        assert_eq!(rules, expected);
    }

    /// Fails when a pin path of the operator's own opens more than names to writing.
    #[test]
    fn above_pins_no_content_may_be_written() {
        let rules = writable(Path::new("/pins"), None);
        let above = rules.iter().filter(|(path, _)| path == Path::new("/pins"));
        assert_eq!(above.map(|(_, right)| *right).collect::<Vec<_>>(), [Right::Pin]);
        let pin = access(Right::Pin);
        assert!(!pin.intersects(AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeSym));
    }

    /// Fails when a link leads the pins out of what may be written, which an interface that comes later
    /// would find out.
    #[test]
    fn links_above_the_pins_are_followed() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().canonicalize().unwrap();
        fs::create_dir(place.join("real")).unwrap();
        std::os::unix::fs::symlink(place.join("real"), place.join("link")).unwrap();
        assert_eq!(outside_bpffs(&place.join("link/guard")), place.join("real"));
    }

    #[test]
    fn reading_and_running_are_not_restricted() {
        assert!(!changes().intersects(AccessFs::from_read(ABI::V3)));
        assert!(changes().contains(access(Right::Write)));
    }

    #[test]
    fn a_confined_thread_writes_only_where_it_may_and_others_everywhere() {
        let (state, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (inside, outside) = (state.path().join("file"), elsewhere.path().join("file"));
        fs::write(&outside, "before").unwrap();
        let confined = || match confine(Path::new("/run/ctguard/1"), Some(state.path())) {
            Err(Unconfined::NoLandlock) => None,
            Err(error) => panic!("{error}"),
            Ok(()) => {
                fs::write(&inside, "new").unwrap();
                fs::rename(&inside, inside.with_extension("moved")).unwrap();
                let refused = [
                    fs::write(&outside, "after"),
                    fs::remove_file(&outside),
                    fs::create_dir(elsewhere.path().join("new")),
                    File::create(elsewhere.path().join("other")).map(drop),
                ];
                let kept = capabilities(None).unwrap().permitted;
                Some((refused, fs::read(&outside).unwrap(), kept))
            }
        };
        let Some((refused, read, kept)) =
            thread::scope(|scope| scope.spawn(confined).join()).unwrap()
        else {
            println!("skipped: this kernel has no Landlock");
            return;
        };
        for result in refused {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
        }
        assert_eq!(read, b"before");
        assert!(KEPT.contains(kept));
        // This thread was not confined.
        fs::write(&outside, "after").unwrap();
    }
}
