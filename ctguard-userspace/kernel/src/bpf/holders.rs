//! Who holds the link by which a program is attached: as long as somebody does, the program stays, and
//! `ip link set … off` fails (`dev_xdp_attach`, `net/core/dev.c`).

use std::{
    fs,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::syscall;

/// A search of all processes ends after so long.
const LONGEST: Duration = Duration::from_millis(200);
const MOST_PINS: usize = 4096;

/// A process, or a pin on a bpffs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkHolder {
    Process { pid: u32, name: String },
    Pin(PathBuf),
}

/// The holders of XDP links with this program, as far as this process may see them.
pub fn link_holders(program: u32) -> Vec<LinkHolder> {
    let began = Instant::now();
    let mut found = Vec::new();
    let pids = names(Path::new("/proc")).filter_map(|name| name.parse::<u32>().ok());
    for pid in pids.filter(|pid| *pid != std::process::id()) {
        if began.elapsed() > LONGEST {
            break;
        }
        if holds(pid, program) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            found.push(LinkHolder::Process { pid, name: name.trim().to_owned() });
        }
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut directories: Vec<PathBuf> = mounts.lines().filter_map(bpffs).collect();
    let mut seen = 0;
    while let Some(directory) = directories.pop() {
        for path in names(&directory).map(|name| directory.join(name)) {
            seen += 1;
            if seen > MOST_PINS || began.elapsed() > LONGEST * 2 {
                return found;
            }
            if path.is_dir() {
                directories.push(path);
            } else if is_link(&path, program) {
                found.push(LinkHolder::Pin(path));
            }
        }
    }
    found
}

fn names(directory: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

fn holds(pid: u32, program: u32) -> bool {
    let directory = format!("/proc/{pid}/fd");
    names(Path::new(&directory)).any(|fd| {
        let target = fs::read_link(format!("{directory}/{fd}")).unwrap_or_default();
        let target = target.to_string_lossy();
        target.starts_with("anon_inode:")
            && target.contains("link")
            && is_of(
                &fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default(),
                program,
            )
    })
}

/// A line `bpffs /sys/fs/bpf bpf rw …`.
fn bpffs(line: &str) -> Option<PathBuf> {
    let mut words = line.split(' ');
    let (_, path, kind) = (words.next()?, words.next()?, words.next()?);
    (kind == "bpf").then(|| PathBuf::from(path))
}

fn is_link(path: &Path, program: u32) -> bool {
    let Ok(object) = syscall::open_pin(path) else { return false };
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", object.as_raw_fd()));
    is_of(&info.unwrap_or_default(), program)
}

/// Whether the kernel describes an XDP link with this program (`bpf_link_show_fdinfo`).
fn is_of(info: &str, program: u32) -> bool {
    let has = |name: &str, value: &str| {
        info.lines()
            .any(|line| line.split_once(':').is_some_and(|(n, v)| n == name && v.trim() == value))
    };
    has("link_type", "xdp") && has("prog_id", &program.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_known_by_its_kind_and_its_program() {
        let info = |kind: &str, id: u32| {
            format!(
                "pos:\t0\nflags:\t02000002\nlink_type:\t{kind}\nlink_id:\t4\nprog_tag:\tab\nprog_id:\t{id}\nifindex:\t2\n"
            )
        };
        assert!(is_of(&info("xdp", 42), 42));
        assert!(!is_of(&info("xdp", 421), 42) && !is_of(&info("tcx", 42), 42) && !is_of("", 42));
        assert_eq!(bpffs("none /sys/fs/bpf bpf rw 0 0"), Some(PathBuf::from("/sys/fs/bpf")));
        assert_eq!(bpffs("bpf /mnt ext4 rw 0 0"), None);
    }
}
