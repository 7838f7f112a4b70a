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
            kibibytes.map(|kibibytes: u64| kibibytes.saturating_mul(1024))
        };
        let total_bytes = bytes("MemTotal:");
        let total_bytes =
            total_bytes.ok_or_else(|| Unread::new(MEMINFO, "no line \"MemTotal:\""))?;
        // Linux before 3.14 does not say what is available.
        let free = || {
            let free = bytes("MemFree:")?;
            Some(free.saturating_add(bytes("Cached:").unwrap_or(0)).min(total_bytes))
        };
        let available = bytes("MemAvailable:").or_else(free);
        Ok(Self { total_bytes, available_bytes: available.unwrap_or(total_bytes) })
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
    fn a_kernel_that_does_not_say_what_is_available_has_what_is_free_and_cached() {
        let fake = Fake::new("memory-lines", &[("/proc/meminfo", "MemFree: 5 kB\n")]);
        let error = Memory::read(&fake.host).unwrap_err().to_string();
        assert_eq!(error, "/proc/meminfo: no line \"MemTotal:\"");
        let available = |text: &str| {
            fake.write("/proc/meminfo", text);
            Memory::read(&fake.host).unwrap().available_bytes >> 10
        };
        let old = "MemTotal: 1024 kB\nMemFree: 256 kB\nCached: 128 kB\n";
        assert_eq!(available(&format!("{old}MemAvailable: 512 kB\n")), 512);
        assert_eq!(available(old), 384);
        assert_eq!(available("MemTotal: 1024 kB\n"), 1024);
    }
}
