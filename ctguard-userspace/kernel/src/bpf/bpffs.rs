//! Finds or mounts the bpffs for the pins. It must outlive this process.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{major, minor, statfs},
    mount::{MountFlags, UnmountFlags, mount, unmount},
};
use thiserror::Error;

use super::{Pins, pins::remove_directory_if_there};
use crate::{
    lock::{self, Lock, LockError},
    namespace,
};

/// `BPF_FS_MAGIC` (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Source of our mounts in `/proc/self/mountinfo`.
const MOUNT_SOURCE: &str = "ctguard";

#[derive(Debug, Error)]
pub enum MountError {
    #[error(
        "this mount namespace dies with its last process, and pins with it; start in the \
         namespace of pid 1: {}", nsenter(.namespace.as_deref())
    )]
    Private { namespace: Option<String> },
    #[error(
        "{} is on no bpffs and not empty; choose another --pin-path or mount one there: \
         mount -t bpf bpf {}", path.display(), path.display()
    )]
    InUse { path: PathBuf },
    #[error("--pin-path {} has no parent directory", path.display())]
    NoParent { path: PathBuf },
    #[error("--pin-path {} has a dot in its name, which a bpffs forbids", path.display())]
    Dot { path: PathBuf },
    #[error("cannot mount a bpffs at {}", path.display())]
    Mount { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("cannot prepare {}", path.display())]
    Prepare { path: PathBuf, source: io::Error },
}

/// Makes the directory of `pins` on a bpffs that outlives this process.
pub fn prepare(pins: &Pins) -> Result<(), MountError> {
    prepare_under(pins, &lock::for_mounting()?)
}

/// The same, or an error at once while somebody else mounts one.
pub fn try_prepare(pins: &Pins) -> Result<(), MountError> {
    prepare_under(pins, &lock::try_for_mounting()?)
}

fn prepare_under(pins: &Pins, _mounting: &Lock) -> Result<(), MountError> {
    let path = pins.path();
    let prepare = |source| MountError::Prepare { path: path.to_owned(), source };
    if let Some(parent) = find_mount_point(pins)? {
        mount_at(parent)?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(prepare)
}

/// Whether [`prepare`] would succeed, as far as can be seen without mounting anything.
pub fn check(pins: &Pins) -> Result<(), MountError> {
    find_mount_point(pins).map(|_| ())
}

/// Removes the directory of `pins`, and our mount if nothing else is on it.
pub fn remove(pins: &Pins) -> io::Result<()> {
    let path = pins.path();
    let _mounting = lock::for_mounting().map_err(io::Error::other)?;
    remove_directory_if_there(path)?;
    let Some(parent) = path.parent() else { return Ok(()) };
    if is_ours(parent) && is_empty(parent)? {
        unmount(parent, UnmountFlags::empty())?;
        // It stays if it held a file before the mount.
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}

/// Where to mount a bpffs; `None` if there is one already.
fn find_mount_point(pins: &Pins) -> Result<Option<&Path>, MountError> {
    let path = pins.path();
    let parent = path
        .parent()
        .filter(|parent| *parent != Path::new("/") && *parent != Path::new(""))
        .ok_or_else(|| MountError::NoParent { path: path.to_owned() })?;
    if path.file_name().is_some_and(|name| name.to_string_lossy().contains('.')) {
        return Err(MountError::Dot { path: path.to_owned() });
    }
    let prepare = |source| MountError::Prepare { path: path.to_owned(), source };
    if is_bpffs(parent).map_err(prepare)? {
        if !outlives_us(parent) {
            return Err(MountError::Private { namespace: namespace_name() });
        }
        return Ok(None);
    }
    if !in_namespace_of_init() {
        return Err(MountError::Private { namespace: namespace_name() });
    }
    let is_empty = match fs::read_dir(parent) {
        Ok(mut held) => held.next().is_none(),
        Err(source) if source.kind() == io::ErrorKind::NotFound => true,
        Err(source) => return Err(MountError::Mount { path: parent.to_owned(), source }),
    };
    if is_empty { Ok(Some(parent)) } else { Err(MountError::InUse { path: parent.to_owned() }) }
}

fn mount_at(parent: &Path) -> Result<(), MountError> {
    let failed = |source: io::Error| MountError::Mount { path: parent.to_owned(), source };
    fs::create_dir_all(parent).map_err(failed)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(MOUNT_SOURCE, parent, "bpf", flags, c"mode=0700").map_err(|error| failed(error.into()))
}

/// Whether the nearest directory that exists is on a bpffs.
pub(crate) fn is_bpffs(path: &Path) -> io::Result<bool> {
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    Ok(statfs(existing)?.f_type == BPF_FS_MAGIC)
}

/// Whether pid 1 sees the same file system somewhere.
///
/// `ip netns exec` runs each command in a new mount namespace. Mounts made inside end with the
/// command, earlier ones stay.
fn outlives_us(path: &Path) -> bool {
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(path);
    let Ok(device) = fs::metadata(existing).map(|facts| facts.dev()) else { return false };
    let device = format!("{}:{}", major(device), minor(device));
    in_namespace_of_init() || mounts("1").iter().any(|mount| mount.device == device)
}

/// Whether this process and pid 1 share a mount namespace, judged by the ids of mounts.
///
/// Not everybody who may mount can read `/proc/1/ns`. Assumes so if pid 1 is hidden.
fn in_namespace_of_init() -> bool {
    let theirs = mounts("1");
    theirs.is_empty()
        || mounts("self").iter().any(|ours| theirs.iter().any(|mount| mount.id == ours.id))
}

/// Whether process 1 is a container's: its end takes mounts, pins and programs along.
pub fn dies_with_container() -> bool {
    /// `PROC_PID_INIT_INO`, the first namespace's inode (`include/linux/proc_ns.h`).
    const FIRST: u64 = 0xEFFF_FFFC;
    fs::metadata("/proc/self/ns/pid").is_ok_and(|facts| facts.ino() != FIRST)
}

/// The name of this network namespace in `ip netns`.
fn namespace_name() -> Option<String> {
    let inode = namespace::number().ok()?;
    fs::read_dir("/run/netns").ok()?.flatten().find_map(|entry| {
        let same = fs::metadata(entry.path()).ok()?.ino() == inode;
        same.then(|| entry.file_name().to_string_lossy().into_owned())
    })
}

fn nsenter(namespace: Option<&str>) -> String {
    match namespace {
        Some(name) => format!("nsenter --net=/run/netns/{name} ctguard run …"),
        None => "nsenter --mount=/proc/1/ns/mnt ctguard run …".to_owned(),
    }
}

/// Whether nothing is pinned. Names with a dot are the kernel's own (`maps.debug`).
fn is_empty(bpffs: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(bpffs)? {
        if !entry?.file_name().to_string_lossy().contains('.') {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_ours(path: &Path) -> bool {
    mounts("self").iter().any(|mount| {
        Path::new(&mount.point) == path && mount.kind == "bpf" && mount.source == MOUNT_SOURCE
    })
}

/// A line of `/proc/PID/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    id: String,
    device: String,
    point: String,
    kind: String,
    source: String,
}

fn mounts(process: &str) -> Vec<Mount> {
    let text = fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap_or_default();
    text.lines().filter_map(parse).collect()
}

fn parse(line: &str) -> Option<Mount> {
    let (mount, system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ');
    let mut system = system.split(' ');
    Some(Mount {
        id: mount.next()?.to_owned(),
        device: mount.nth(1)?.to_owned(),
        point: mount.nth(1)?.to_owned(),
        kind: system.next()?.to_owned(),
        source: system.next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_with_and_without_optional_fields() {
        let plain = "87 27 0:33 / /run/ctguard rw,relatime - bpf ctguard rw,mode=700";
        let shared = "87 27 0:33 / /run/ctguard rw,relatime shared:12 - bpf ctguard rw";
        let mount = parse(plain).unwrap();
        assert_eq!((mount.id.as_str(), mount.device.as_str()), ("87", "0:33"));
        assert_eq!((mount.point.as_str(), mount.kind.as_str()), ("/run/ctguard", "bpf"));
        assert_eq!(mount.source, MOUNT_SOURCE);
        assert_eq!(parse(shared).unwrap(), mount);
    }
}
