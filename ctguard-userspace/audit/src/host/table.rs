//! The table in numbers, as its settings show it.

use super::{Host, Unread, sysctl_path};

pub const COUNT: &str = "net.netfilter.nf_conntrack_count";
pub const MAX: &str = "net.netfilter.nf_conntrack_max";
pub const BUCKETS: &str = "net.netfilter.nf_conntrack_buckets";
/// How many flows helpers may announce; derived from the hash's size when the module is loaded.
pub const EXPECT_MAX: &str = "net.netfilter.nf_conntrack_expect_max";
/// The hash as the module's parameter, which every kernel shows and lets be set.
pub const HASHSIZE: &str = "/sys/module/nf_conntrack/parameters/hashsize";

/// Whether the maximum and the hash can be set from this network namespace: only from the first
/// (`nf_conntrack_standalone_init_sysctl`, `net/netfilter/nf_conntrack_standalone.c`).
pub fn is_size_ours(host: &Host) -> bool {
    host.is_writable(&sysctl_path(MAX))
}

/// Whether the hash is set by its sysctl, and not by the module's parameter alone, as before 4.7.
pub fn sets_buckets_by_sysctl(host: &Host) -> bool {
    host.is_writable(&sysctl_path(BUCKETS))
}

/// The file of a setting of conntrack.
pub fn setting_path(host: &Host, key: &str) -> String {
    if key == BUCKETS && is_size_ours(host) && !sets_buckets_by_sysctl(host) {
        HASHSIZE.to_owned()
    } else {
        sysctl_path(key)
    }
}

/// The table as its settings show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        // Kernels without the sysctl in this namespace show the module's parameter.
        let buckets = match number(BUCKETS)? {
            Some(buckets) => Some(buckets),
            None => host.number(HASHSIZE)?,
        };
        Ok(Some(Self { count, max, buckets: buckets.unwrap_or(0) }))
    }

    /// None without a limit.
    #[expect(clippy::cast_precision_loss, reason = "tables have fewer than 2^52 entries")]
    pub fn fill_ratio(self) -> Option<f64> {
        (self.max > 0).then(|| self.count as f64 / self.max as f64)
    }
}
