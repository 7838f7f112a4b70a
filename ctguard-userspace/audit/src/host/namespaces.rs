//! The tables of other network namespaces. Each has its own count; all share the hash and, at least up
//! to Linux 6.18, the maximum (`net/netfilter/nf_conntrack_core.c`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io,
    os::fd::AsFd as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    panic::resume_unwind,
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{
    machine::{Host, Unread},
    table::TableNumbers,
};
use ctguard_kernel::namespace;

/// Where `ip netns` and Docker keep namespaces, also those without a process.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];
const PROCESSES: &str = "/proc/*/ns/net";
const MOST_PROCESSES: usize = 20_000;
const MOST_NAMESPACES: usize = 256;
const LONGEST: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherTable {
    /// Its inode number, as in the kernel's log.
    pub number: u64,
    /// Its name, or its first process.
    pub name: String,
    pub table: TableNumbers,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtherTables {
    pub tables: Vec<OtherTable>,
    /// Namespaces that were not read because there are too many.
    pub left_out: usize,
    /// Processes whose namespace this process may not see.
    pub unseen: usize,
}

impl OtherTables {
    pub const PLACE: &'static str = PROCESSES;

    /// Those that this process may enter; it returns to its own.
    pub fn read(host: &Host) -> Result<Self, Unread> {
        if !host.is_this() {
            return Err(Unread::new(PROCESSES, "a copy of a machine has no namespaces to enter"));
        }
        let (found, unseen) = find(host)?;
        // A thread of its own keeps all others in this namespace.
        let read = thread::scope(|scope| {
            let thread =
                thread::Builder::new().spawn_scoped(scope, || Self::enter_each(host, &found));
            let thread = thread.map_err(|error| Unread::new(PROCESSES, &error))?;
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
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
                Ok(()) => read.tables.extend(TableNumbers::read(host)?.map(|table| OtherTable {
                    number: *number,
                    name: place.name.clone(),
                    table,
                })),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(Unread::failed(PROCESSES, &error, "CAP_SYS_ADMIN"));
                }
                // It has ended, or is not a network namespace.
                Err(_) => {}
            }
        }
        Ok(read)
    }
}

/// The most entries in any network namespace that can be read, as all have one maximum.
pub fn most_entries(host: &Host, own: u64) -> u64 {
    let others = OtherTables::read(host).map(|others| others.tables).unwrap_or_default();
    others.iter().map(|other| other.table.count).fold(own, u64::max)
}

/// Whether another network namespace has this number, or might have it and cannot be seen.
pub fn may_be_there(host: &Host, number: u64) -> Result<bool, Unread> {
    let (found, unseen) = find(host)?;
    Ok(unseen > 0 || found.contains_key(&number))
}

/// The numbers of all other network namespaces; `None` if some cannot be seen.
pub fn numbers(host: &Host) -> Option<BTreeSet<u64>> {
    let (found, unseen) = find(host).ok()?;
    (unseen == 0).then(|| found.into_keys().collect())
}

struct Place {
    path: String,
    name: String,
}

/// All other network namespaces by number, and how many processes hide theirs.
fn find(host: &Host) -> Result<(BTreeMap<u64, Place>, usize), Unread> {
    let own = namespace::number().map_err(|error| Unread::new(PROCESSES, &error))?;
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

fn enter(path: &str) -> io::Result<()> {
    let namespace = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
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
