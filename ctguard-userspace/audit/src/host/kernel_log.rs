//! What the kernel's log says about conntrack, from `/dev/kmsg`: records `priority,sequence,
//! microseconds since boot,flags;text` (`Documentation/ABI/testing/dev-kmsg`).
//!
//! The kernel limits the rate of these lines, so there may have been more events.

use std::{
    collections::BTreeSet,
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    time::Duration,
};

use super::machine::{Host, Unread};

const KMSG: &str = "/dev/kmsg";
const DAY: Duration = Duration::from_hours(24);
/// The longest record (`PRINTK_MESSAGE_MAX`).
const RECORD: usize = 2048 + 64;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogCounts {
    pub table_full: u64,
    /// The network namespaces in these lines, by inode number; older kernels do not name them.
    pub namespaces: BTreeSet<u64>,
    pub expectations_full: u64,
    /// `neighbour: arp_cache: neighbor table overflow!`, in any of its spellings.
    pub neighbours_full: u64,
    /// Suppressed lines: `net_ratelimit: N callbacks suppressed`. The kernel does not say of what.
    pub suppressed: u64,
    /// `falling back to vmalloc`, which is harmless.
    pub vmalloc: u64,
}

impl LogCounts {
    pub const PLACE: &'static str = KMSG;

    /// None where there is no such device, as in most containers.
    pub fn read(host: &Host) -> Result<Option<Self>, Unread> {
        let records = if host.is_this() {
            match device() {
                Ok(records) => records,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(Unread::failed(KMSG, &error, "CAP_SYSLOG")),
            }
        } else {
            let Some(text) = host.text(KMSG)? else { return Ok(None) };
            text.lines().map(str::to_owned).collect()
        };
        let since = host.uptime()?.saturating_sub(DAY);
        let mut counts = Self::default();
        for record in records {
            counts.note(&record, since);
        }
        Ok(Some(counts))
    }

    fn note(&mut self, record: &str, since: Duration) {
        let Some((head, text)) = record.split_once(';') else { return };
        let microseconds = head.split(',').nth(2).and_then(|text| text.parse().ok()).unwrap_or(0);
        if Duration::from_micros(microseconds) < since {
            return;
        }
        if text.contains("conntrack: table full") {
            self.table_full += 1;
            // Newer kernels: "table full in netns 4026531840, dropping packet".
            let namespace = text.split("in netns ").nth(1).and_then(|rest| rest.split(',').next());
            self.namespaces.extend(namespace.and_then(|text| text.parse::<u64>().ok()));
        } else if text.contains("expectation table full") {
            self.expectations_full += 1;
        } else if text.contains("nf_conntrack") && text.contains("falling back to vmalloc") {
            self.vmalloc += 1;
        } else if text.contains("able overflow") && text.to_ascii_lowercase().contains("neighbo") {
            self.neighbours_full += 1;
        } else if let Some(rest) = text.trim().strip_prefix("net_ratelimit: ") {
            let number = rest.split_whitespace().next().and_then(|text| text.parse::<u64>().ok());
            self.suppressed += number.unwrap_or(0);
        }
    }
}

/// Each read returns one record, EAGAIN at the end, or EPIPE if the next record was overwritten.
fn device() -> io::Result<Vec<String>> {
    let mut device = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(KMSG)?;
    let (mut records, mut buffer) = (Vec::new(), [0; RECORD]);
    loop {
        match device.read(&mut buffer) {
            Ok(0) => return Ok(records),
            Ok(length) => {
                let record = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
                if ["conntrack", "net_ratelimit", "able overflow"]
                    .iter()
                    .any(|it| record.contains(it))
                {
                    records.push(record.into_owned());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(records),
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Fake, *};

    /// Fails when one of the wordings that kernels have used is not known.
    #[test]
    fn lines_of_old_and_new_kernels_are_counted_and_those_of_yesterday_are_not() {
        let log = "4,1,1000000,-;nf_conntrack: table full, dropping packet\n\
            4,2,90000000000,-;nf_conntrack: nf_conntrack: table full, dropping packet\n\
            4,3,90000000001,-;nf_conntrack: table full in netns 4026531840, dropping packet\n\
            4,4,90000000002,-;ip_conntrack: table full, dropping packet.\n\
            4,5,90000000003,-;nf_conntrack: expectation table full\n\
            4,6,90000000004,-;net_ratelimit: 1234 callbacks suppressed\n\
            4,7,90000000005,-;nf_conntrack: falling back to vmalloc.\n\
            4,8,90000000006,-;neighbour: arp_cache: neighbor table overflow!\n\
            4,9,90000000007,-;Neighbour table overflow.\n\
            6,8,90000000006,-;eth0: link up\n";
        let fake = Fake::new("kmsg", &[("/dev/kmsg", log), ("/proc/uptime", "90100.0 1.0\n")]);
        let counts = LogCounts::read(&fake.host).unwrap().unwrap();
        assert_eq!((counts.table_full, counts.expectations_full), (3, 1));
        assert_eq!((counts.suppressed, counts.vmalloc, counts.neighbours_full), (1234, 1, 2));
        assert_eq!(counts.namespaces.iter().copied().collect::<Vec<_>>(), [4_026_531_840]);
    }

    #[test]
    fn a_machine_without_the_device_has_no_log() {
        let fake = Fake::new("kmsg-none", &[]);
        assert_eq!(LogCounts::read(&fake.host).unwrap(), None);
    }
}
