//! The network namespace that this thread is in.

use std::{
    fs, io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
};

use rustix::net::{AddressFamily, SocketType, socket};

use crate::bpf::namespace_cookie;

/// Its inode number, unique while the namespace exists.
pub fn number() -> io::Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino())
}

/// A number that no other namespace gets until a reboot; `None` before Linux 5.14.
pub fn cookie() -> Option<u64> {
    let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None).ok()?;
    namespace_cookie(socket.as_fd()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::testing::TestTable;

    #[test]
    fn each_namespace_has_a_cookie_of_its_own() {
        assert_eq!(cookie(), cookie());
        let Some(other) = TestTable::make("each_namespace_has_a_cookie_of_its_own") else { return };
        assert!(cookie().is_some() && other.run(cookie).is_some_and(|it| Some(it) != cookie()));
    }
}
