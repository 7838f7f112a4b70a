//! Generic netlink: families that the kernel numbers when they come, and their commands
//! (`include/uapi/linux/genetlink.h`).

use std::io;

use netlink_packet_core::{DefaultNla, NLA_F_NESTED};
use rustix::net::netlink;

use super::{
    link::attributes_of,
    netlink::{emitted, request_of},
};

/// `GENL_ID_CTRL`, the family that knows the others.
const CONTROL: Family = Family { id: 16, version: 2 };
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `struct genlmsghdr`: command, version, reserved.
const HEADER_LENGTH: usize = 4;

/// A family of this kernel's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    id: u16,
    version: u8,
}

impl Family {
    /// None where the kernel has no such family; `version` is the one that its header file has.
    pub(super) fn find(name: &str, version: u8) -> io::Result<Option<Self>> {
        let mut wanted = name.as_bytes().to_vec();
        wanted.push(0);
        let found = CONTROL.request(GET_FAMILY, false, &[DefaultNla::new(FAMILY_NAME, wanted)]);
        match found {
            Ok(answers) => {
                let attributes = answers.first().map(Vec::as_slice).unwrap_or_default();
                let id = attributes_of(attributes).find(|(kind, _)| *kind == FAMILY_ID);
                let id = id.and_then(|(_, value)| value.try_into().ok()).map(u16::from_ne_bytes);
                Ok(id.map(|id| Self { id, version }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The attributes of each answer.
    pub(super) fn request(
        self,
        command: u8,
        dump: bool,
        attributes: &[DefaultNla],
    ) -> io::Result<Vec<Vec<u8>>> {
        let mut body = vec![command, self.version, 0, 0];
        body.extend(emitted(attributes));
        let answers = request_of(Some(netlink::GENERIC), self.id, dump, &body)?;
        let whole = answers.into_iter().filter(|answer| answer.payload.len() >= HEADER_LENGTH);
        Ok(whole.map(|mut answer| answer.payload.split_off(HEADER_LENGTH)).collect())
    }
}

/// An attribute that holds others.
pub(super) fn nested(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    DefaultNla::new(kind | NLA_F_NESTED, emitted(attributes))
}

/// An answer, or none where the device has nothing to tell.
pub(super) fn if_supported<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        answer => answer.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_that_no_kernel_has_is_told_from_an_error() {
        assert!(Family::find("nlctrl", 2).unwrap().is_some());
        assert!(Family::find("ctguard", 1).unwrap().is_none());
    }
}
