//! How much memory the machine has, and how much of it an entry takes.

use super::{Host, Unread};

const MEMINFO: &str = "/proc/meminfo";
const SLAB: &str = "/sys/kernel/slab/nf_conntrack/slab_size";
const SLABINFO: &str = "/proc/slabinfo";

/// An entry where the kernel does not tell: `struct nf_conn` of 6.x on 64-bit machines is 240 to 256
/// bytes and lies on a cache line's boundary; older ones have up to 320.
const PRESUMED_BYTES: u64 = 320;

/// The machine's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub total_bytes: u64,
    pub available_bytes: u64,
}

impl Memory {
    pub fn read(host: &Host) -> Result<Self, Unread> {
        let text = host.text(MEMINFO)?.unwrap_or_default();
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            let kibibytes =
                number.ok_or_else(|| Unread::new(MEMINFO, &format_args!("no {name}")))?;
            Ok(kibibytes.saturating_mul(1024))
        };
        Ok(Self { total_bytes: bytes("MemTotal:")?, available_bytes: bytes("MemAvailable:")? })
    }
}

/// How large an entry is, without what NAT and accounting add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntrySize {
    pub bytes: u64,
    /// Where it was read; none where it is presumed, for the kernel keeps entries among others of
    /// their size.
    pub place: Option<&'static str>,
}

impl EntrySize {
    pub fn read(host: &Host) -> Self {
        // What cannot be read is presumed: an audit hangs on more than this.
        if let Ok(Some(bytes)) = host.number(SLAB) {
            return Self { bytes, place: Some(SLAB) };
        }
        let listed = host.text(SLABINFO).ok().flatten().and_then(|text| {
            // name <active_objs> <num_objs> <objsize> …
            let line =
                text.lines().find(|line| line.split_whitespace().next() == Some("nf_conntrack"))?;
            line.split_whitespace().nth(3)?.parse().ok()
        });
        match listed {
            Some(bytes) => Self { bytes, place: Some(SLABINFO) },
            None => Self { bytes: PRESUMED_BYTES, place: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Fake, *};

    #[test]
    fn an_entrys_size_comes_from_the_kernel_where_it_tells() {
        let fake = Fake::new("memory-slab", &[]);
        assert_eq!(EntrySize::read(&fake.host), EntrySize { bytes: 320, place: None });
        let lines = "slabinfo - version: 2.1\n# name\nnf_conntrack_expect 0 0 208 19 1 : x\n\
            nf_conntrack          96    160    256   16    1 : tunables\n";
        fake.write("/proc/slabinfo", lines);
        assert_eq!(EntrySize::read(&fake.host).bytes, 256);
        fake.write("/sys/kernel/slab/nf_conntrack/slab_size", "264\n");
        assert_eq!(EntrySize::read(&fake.host).bytes, 264);
    }

    #[test]
    fn memory_without_its_lines_is_an_error_that_names_them() {
        let fake = Fake::new("memory-lines", &[("/proc/meminfo", "MemTotal:  1024 kB\n")]);
        let error = Memory::read(&fake.host).unwrap_err().to_string();
        assert_eq!(error, "/proc/meminfo: no MemAvailable:");
        fake.write("/proc/meminfo", "MemTotal:  1024 kB\nMemAvailable:   512 kB\n");
        let memory = Memory::read(&fake.host).unwrap();
        assert_eq!((memory.total_bytes, memory.available_bytes), (1 << 20, 1 << 19));
    }
}
