//! The tables of other network namespaces: each has its own count, and all share one hash, one
//! memory and, up to Linux 6.18 at least, one maximum (`net/netfilter/nf_conntrack_core.c`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::fd::AsFd as _,
    os::unix::fs::MetadataExt as _,
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Host, TableNumbers, Unread};
use ctguard_kernel::namespace;

/// Where `ip netns` and Docker keep namespaces that may have no process.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];
const PROCESSES: &str = "/proc/*/ns/net";
/// No more are looked into.
const MOST_PROCESSES: usize = 20_000;
const MOST_NAMESPACES: usize = 256;
const LONGEST: Duration = Duration::from_millis(100);

/// The table of a network namespace other than this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherTable {
    /// Its inode number, which the kernel's log tells.
    pub number: u64,
    /// The name that somebody gave it, or its first process.
    pub name: String,
    pub table: TableNumbers,
}

/// Other namespaces' tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtherTables {
    pub tables: Vec<OtherTable>,
    /// Namespaces that were not looked into: there are too many.
    pub left_out: usize,
    /// Processes whose namespace is not this process's to see.
    pub unseen: usize,
}

impl OtherTables {
    pub const PLACE: &'static str = PROCESSES;

    /// Those that this process may see and enter; it stays where it is.
    pub fn read(host: &Host) -> Result<Self, Unread> {
        if !host.is_this() {
            return Err(Unread::new(PROCESSES, "only the machine itself can be entered"));
        }
        let own = namespace::number().map_err(|error| Unread::new(PROCESSES, &error))?;
        let (found, unseen) = find(host, own)?;
        // A thread of its own, so that nothing else is ever in another namespace.
        let read = thread::scope(|scope| {
            let thread =
                thread::Builder::new().spawn_scoped(scope, || Self::enter_each(host, &found));
            let thread = thread.map_err(|error| Unread::new(PROCESSES, &error))?;
            let ended = |_| Unread::new(PROCESSES, "the thread that enters them panicked");
            thread.join().map_err(ended)?
        })?;
        Ok(Self { unseen, ..read })
    }

    fn enter_each(host: &Host, found: &BTreeMap<u64, Place>) -> Result<Self, Unread> {
        let mut read = Self::default();
        let began = Instant::now();
        for (number, place) in found {
            if read.tables.len() >= MOST_NAMESPACES || began.elapsed() >= LONGEST {
                read.left_out += 1;
                continue;
            }
            match enter(&place.path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(Unread::new(PROCESSES, "not permitted; run as root"));
                }
                // It ended meanwhile, or is no network namespace.
                Err(_) => continue,
            }
            if let Some(table) = TableNumbers::read(host)? {
                read.tables.push(OtherTable { number: *number, name: place.name.clone(), table });
            }
        }
        Ok(read)
    }
}

/// The most entries that a network namespace holds which can be seen: the maximum is one for all.
pub fn most_entries(host: &Host, own: u64) -> u64 {
    let others = OtherTables::read(host).map(|others| others.tables).unwrap_or_default();
    others.iter().map(|other| other.table.count).fold(own, u64::max)
}

/// Whether there is another network namespace of this number, or may be one that cannot be seen.
pub fn may_be_there(host: &Host, number: u64) -> Result<bool, Unread> {
    let own = namespace::number().map_err(|error| Unread::new(PROCESSES, &error))?;
    let (found, unseen) = find(host, own)?;
    Ok(unseen > 0 || found.contains_key(&number))
}

/// Where a namespace can be entered.
struct Place {
    path: String,
    name: String,
}

/// Every other network namespace by its number, and how many processes hide theirs.
fn find(host: &Host, own: u64) -> Result<(BTreeMap<u64, Place>, usize), Unread> {
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::from([own]);
    let mut add = |path: String, name: &dyn Fn() -> String| match fs::metadata(&path) {
        Ok(metadata) => {
            if seen.insert(metadata.ino()) {
                found.insert(metadata.ino(), Place { path, name: name() });
            }
            false
        }
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    };
    for directory in NAMED {
        for name in host.names(directory)? {
            add(format!("{directory}/{name}"), &|| name.clone());
        }
    }
    let mut pids: Vec<u32> =
        host.names("/proc")?.iter().filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    let mut unseen = 0;
    for pid in pids.into_iter().take(MOST_PROCESSES) {
        unseen += usize::from(add(format!("/proc/{pid}/ns/net"), &|| {
            let name = host.text(&format!("/proc/{pid}/comm")).ok().flatten().unwrap_or_default();
            format!("{} (pid {pid})", name.trim())
        }));
    }
    Ok((found, unseen))
}

/// Moves this thread.
fn enter(path: &str) -> io::Result<()> {
    let namespace = File::open(path)?;
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Fake, *};

    #[test]
    fn a_copy_of_a_machine_has_no_namespaces_to_enter() {
        let fake = Fake::new("namespaces", &[]);
        assert!(OtherTables::read(&fake.host).is_err());
    }

    /// Fails when this thread ends up elsewhere, or its own namespace is among the others.
    #[test]
    fn who_looks_stays_where_it_is() {
        let before = namespace::number().unwrap();
        if let Ok(others) = OtherTables::read(&Host::at("/")) {
            assert!(others.tables.iter().all(|other| other.number != before), "{others:?}");
        }
        assert_eq!(namespace::number().unwrap(), before);
    }
}
