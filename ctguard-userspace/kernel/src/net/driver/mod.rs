//! Name and statistics of a device's driver by `ioctl` (`SIOCETHTOOL`,
//! `include/uapi/linux/ethtool.h`).
//!
//! Netlink's family `ethtool` has only the names of the statistics. One of the three modules of this
//! crate with unsafe code (the others are `bpf::syscall` and `maps::memory`).

mod fence;

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use fence::Fenced;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

const DRIVER: u32 = 0x3;
const STRINGS: u32 = 0x1b;
const STATISTICS: u32 = 0x1d;
/// `ETH_SS_STATS`.
const SET_OF_STATISTICS: u32 = 1;

/// `struct ethtool_drvinfo`: its length, and offsets of fields.
const DRIVER_BYTES: usize = 196;
const DRIVER_NAME: std::ops::Range<usize> = 4..36;
const DRIVER_STATISTICS: usize = 180;
/// `struct ethtool_gstrings`: the strings follow its command, set and length.
const STRINGS_HEADER: usize = 12;
/// `ETH_GSTRING_LEN`.
const STRING_BYTES: usize = 32;
/// `struct ethtool_stats`: the numbers follow its command and length.
const STATISTICS_HEADER: usize = 8;
const NUMBER_BYTES: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// Such as `virtio_net`.
    pub name: String,
    statistics: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistic {
    pub name: String,
    pub value: u64,
}

impl Driver {
    /// `None` if the interface has no driver that answers.
    pub fn of(interface: &str) -> io::Result<Option<Self>> {
        let mut question = Fenced::new(DRIVER_BYTES)?;
        question.put(0, DRIVER);
        match ask(&open()?, interface, &mut question) {
            Ok(()) => Ok(Some(Self {
                name: super::attribute::text(question.bytes().get(DRIVER_NAME).unwrap_or_default()),
                statistics: question.number(DRIVER_STATISTICS),
            })),
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The statistics with wanted names. If there are none, the driver is not asked for numbers, which
    /// some fetch from the device.
    pub fn statistics(
        &self,
        interface: &str,
        is_wanted: impl Fn(&str) -> bool,
    ) -> io::Result<Vec<Statistic>> {
        if self.statistics == 0 {
            return Ok(Vec::new());
        }
        let socket = open()?;
        let mut strings = Fenced::new(STRINGS_HEADER + self.statistics * STRING_BYTES)?;
        strings.put(0, STRINGS);
        strings.put(4, SET_OF_STATISTICS);
        strings.put(8, u32::try_from(self.statistics).map_err(io::Error::other)?);
        ask(&socket, interface, &mut strings)?;
        let names = names(strings.bytes(), strings.number(8).min(self.statistics));
        if !names.iter().any(|name| is_wanted(name)) {
            return Ok(Vec::new());
        }
        let mut numbers = Fenced::new(STATISTICS_HEADER + names.len() * NUMBER_BYTES)?;
        numbers.put(0, STATISTICS);
        numbers.put(4, u32::try_from(names.len()).map_err(io::Error::other)?);
        ask(&socket, interface, &mut numbers)?;
        if numbers.number(4) != names.len() {
            return Err(io::Error::other("the driver changed its statistics meanwhile"));
        }
        Ok(zip(names, numbers.bytes(), is_wanted))
    }
}

fn names(answer: &[u8], count: usize) -> Vec<String> {
    let strings = answer.get(STRINGS_HEADER..).unwrap_or_default();
    strings.chunks_exact(STRING_BYTES).take(count).map(super::attribute::text).collect()
}

fn zip(names: Vec<String>, answer: &[u8], is_wanted: impl Fn(&str) -> bool) -> Vec<Statistic> {
    let numbers = answer.get(STATISTICS_HEADER..).unwrap_or_default();
    let values = numbers.chunks_exact(NUMBER_BYTES).filter_map(|bytes| bytes.try_into().ok());
    let all = names.into_iter().zip(values.map(u64::from_ne_bytes));
    let wanted = all.filter(|(name, _)| is_wanted(name));
    wanted.map(|(name, value)| Statistic { name, value }).collect()
}

/// Any kind of socket will do.
fn open() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

/// With the type that the C library's `ioctl` takes, which is not everywhere that of the constant.
const SIOCETHTOOL: libc::Ioctl = libc::SIOCETHTOOL as libc::Ioctl;

fn ask(socket: &OwnedFd, interface: &str, question: &mut Fenced) -> io::Result<()> {
    let mut name = [0; libc::IFNAMSIZ];
    // The last byte stays zero.
    for (to, from) in name.iter_mut().take(libc::IFNAMSIZ - 1).zip(interface.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: question.start() },
    };
    // SAFETY: SIOCETHTOOL reads and writes the `ifreq` and the memory that it points to. That belongs
    // to `question`, which is borrowed mutably, and its fence keeps the kernel from writing beyond.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        let error = Driver::of("ctg-nowhere").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn the_loopback_device_has_no_statistics() {
        if let Some(driver) = Driver::of("lo").unwrap() {
            assert_eq!(driver.statistics("lo", |_| true).unwrap(), []);
        }
    }

    /// Fails when a name is given the number of another, as where those not wanted are left out
    /// before.
    #[test]
    fn a_statistic_that_is_wanted_has_its_own_number() {
        let mut strings = vec![0; STRINGS_HEADER + 3 * STRING_BYTES];
        for (at, name) in [(0, "tx_timeout"), (1, "pps_allowance_exceeded"), (2, "left_over")] {
            let start = STRINGS_HEADER + at * STRING_BYTES;
            strings[start..start + name.len()].copy_from_slice(name.as_bytes());
        }
        // The header first, as long as a number.
        let numbers = [u64::MAX, 1, 7, 9].map(u64::to_ne_bytes).concat();
        let found = zip(names(&strings, 2), &numbers, |name| name.starts_with("pps"));
        assert_eq!(found, [Statistic { name: "pps_allowance_exceeded".to_owned(), value: 7 }]);
    }
}
