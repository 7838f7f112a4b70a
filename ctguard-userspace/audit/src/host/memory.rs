//! The machine's memory, and how much of it an entry takes.

use super::machine::{Host, Unread};

const MEMINFO: &str = "/proc/meminfo";
const SLAB: &str = "/sys/kernel/slab/nf_conntrack/slab_size";
const SLABINFO: &str = "/proc/slabinfo";

/// Assumed where the size cannot be read: `struct nf_conn` takes 256 bytes in Linux 6.x on 64-bit
/// machines, and up to 320 in older kernels.
const ASSUMED_BYTES: u64 = 320;

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
            let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            let bytes = kibibytes.map(|kibibytes: u64| kibibytes.saturating_mul(1024));
            bytes.ok_or_else(|| Unread::new(MEMINFO, &format_args!("no {name}")))
        };
        Ok(Self { total_bytes: bytes("MemTotal:")?, available_bytes: bytes("MemAvailable:")? })
    }
}

/// The size of an entry, without extensions such as NAT and accounting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntrySize {
    pub bytes: u64,
    /// Where it was read; none where it is assumed, because the kernel has merged the slab.
    pub place: Option<&'static str>,
}

impl EntrySize {
    pub fn read(host: &Host) -> Self {
        if let Ok(Some(bytes)) = host.number(SLAB) {
            return Self { bytes, place: Some(SLAB) };
        }
        let listed = host.text(SLABINFO).ok().flatten().and_then(|text| {
            // name <active_objs> <num_objs> <objsize> …
            let line = text.lines().find_map(|line| line.strip_prefix("nf_conntrack "))?;
            line.split_whitespace().nth(2)?.parse().ok()
        });
        let place = listed.map(|_| SLABINFO);
        Self { bytes: listed.unwrap_or(ASSUMED_BYTES), place }
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
