//! The table's count, maximum and hash.

use serde::Serialize;

use super::machine::{Host, Unread, sysctl_path};
use ctguard_units::real;

pub const COUNT: &str = "net.netfilter.nf_conntrack_count";
pub const MAX: &str = "net.netfilter.nf_conntrack_max";
pub const BUCKETS: &str = "net.netfilter.nf_conntrack_buckets";
/// The most expected connections; derived from the hash's size when the module is loaded.
pub const EXPECT_MAX: &str = "net.netfilter.nf_conntrack_expect_max";
/// The hash as the module's parameter, which can be set on every kernel.
pub const HASHSIZE: &str = "/sys/module/nf_conntrack/parameters/hashsize";

/// Whether this network namespace can set the maximum and the hash, as only the first can
/// (`nf_conntrack_standalone_init_sysctl`, `net/netfilter/nf_conntrack_standalone.c`).
pub fn is_size_ours(host: &Host) -> bool {
    host.is_writable(&sysctl_path(MAX))
}

/// Before Linux 4.7 only the module's parameter did.
pub fn sets_buckets_by_sysctl(host: &Host) -> bool {
    host.is_writable(&sysctl_path(BUCKETS))
}

pub fn setting_path(host: &Host, key: &str) -> String {
    if key == BUCKETS && is_size_ours(host) && !sets_buckets_by_sysctl(host) {
        HASHSIZE.to_owned()
    } else {
        sysctl_path(key)
    }
}

/// Whether a setting has the value that was written. The kernel rounds the hash up to whole pages of
/// pointers (`nf_ct_alloc_hashtable`), of 4 to 64 KiB.
pub fn has_value(key: &str, live: u64, written: u64) -> bool {
    const IN_PAGE: [u64; 4] = [512, 1024, 2048, 8192];
    let rounds = |in_page| written.checked_next_multiple_of(in_page) == Some(live);
    live == written || key == BUCKETS && IN_PAGE.into_iter().any(rounds)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TableNumbers {
    pub count: u64,
    /// 0 is no limit.
    pub max: u64,
    pub buckets: u64,
}

impl TableNumbers {
    /// None where conntrack is not loaded.
    pub fn read(host: &Host) -> Result<Option<Self>, Unread> {
        let number = |key: &str| host.number(&sysctl_path(key));
        let (Some(count), Some(max)) = (number(COUNT)?, number(MAX)?) else { return Ok(None) };
        // Where this namespace has no such sysctl, the module's parameter shows it.
        let buckets = number(BUCKETS)?.map_or_else(|| host.number(HASHSIZE), |it| Ok(Some(it)))?;
        Ok(Some(Self { count, max, buckets: buckets.unwrap_or(0) }))
    }

    /// None without a limit.
    pub fn fill_ratio(self) -> Option<f64> {
        (self.max > 0).then(|| real(self.count) / real(self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails when a hash that the kernel rounded up is taken for another's.
    #[test]
    fn a_hash_that_was_rounded_up_has_the_value_that_was_written() {
        assert!(
            has_value(BUCKETS, 1_000_448, 1_000_000) && has_value(BUCKETS, 1_007_616, 1_000_000)
        );
        assert!(!has_value(BUCKETS, 1_002_496, 1_000_000) && !has_value(MAX, 1_000_448, 1_000_000));
    }
}
