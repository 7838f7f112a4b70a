//! Generic netlink: families with dynamic ids, and their commands (`include/uapi/linux/genetlink.h`).

use std::io;

use netlink_packet_core::{DefaultNla, parse_u16};
use rustix::net::{Protocol, netlink::GENERIC};

use super::{
    attribute::{attribute, emitted, find},
    netlink::request,
};

/// `GENL_ID_CTRL`, the family that lists the others.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// All families used here have version 1, which the kernel ignores.
const VERSION: u8 = 1;
/// `struct genlmsghdr`: command, version, reserved.
const HEADER_LENGTH: usize = 4;

/// [`request`] or [`super::netlink::dump`].
type Exchange = fn(Option<Protocol>, u16, &[u8]) -> io::Result<Vec<Vec<u8>>>;

/// The attributes of each answer; `None` if the kernel has no such family or command, or the device
/// does not support it.
pub(super) fn ask(
    exchange: Exchange,
    family: &str,
    command: u8,
    attributes: &[DefaultNla],
) -> io::Result<Option<Vec<Vec<u8>>>> {
    let Some(id) = id(family)? else { return Ok(None) };
    match call(exchange, id, command, attributes) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        answers => answers.map(Some),
    }
}

fn id(family: &str) -> io::Result<Option<u16>> {
    let name = attribute(FAMILY_NAME, format!("{family}\0").as_bytes());
    match call(request, CONTROL, GET_FAMILY, &[name]) {
        Ok(answers) => {
            let id = answers.first().and_then(|answer| find(answer, FAMILY_ID));
            Ok(id.and_then(|value| parse_u16(value).ok()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn call(
    exchange: Exchange,
    id: u16,
    command: u8,
    attributes: &[DefaultNla],
) -> io::Result<Vec<Vec<u8>>> {
    let mut body = vec![command, VERSION, 0, 0];
    body.extend(emitted(attributes));
    let answers = exchange(Some(GENERIC), id, &body)?;
    Ok(answers.iter().filter_map(|answer| Some(answer.get(HEADER_LENGTH..)?.to_vec())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_that_no_kernel_has_is_told_from_an_error() {
        assert_eq!(id("nlctrl").unwrap(), Some(CONTROL));
        assert_eq!(id("ctguard").unwrap(), None);
    }
}
