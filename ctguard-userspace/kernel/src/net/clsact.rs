//! The clsact qdisc, on kernels without TCX: whether it is there, and its removal.

use std::io;

use super::netlink::{Message, request};

const PARENT_CLSACT: u32 = 0xffff_fff1;
const PARENT_INGRESS: u32 = 0xffff_fff2;
const PARENT_EGRESS: u32 = 0xffff_fff3;
const KIND: u16 = 1;

/// Whether `ifindex` has a clsact (or ingress) qdisc.
pub fn exists(ifindex: u32) -> io::Result<bool> {
    let messages = request(libc::RTM_GETQDISC, true, &traffic_control(ifindex, 0))?;
    Ok(messages.iter().any(|message| {
        message.kind == libc::RTM_NEWQDISC
            && word(message, 4) == Some(ifindex)
            && word(message, 12) == Some(PARENT_CLSACT)
    }))
}

/// Removes the qdisc, unless somebody else's filters are in it.
pub fn remove_if_unused(ifindex: u32) -> io::Result<()> {
    for parent in [PARENT_INGRESS, PARENT_EGRESS] {
        let filters = request(libc::RTM_GETTFILTER, true, &traffic_control(ifindex, parent))?;
        if filters.iter().any(|message| message.kind == libc::RTM_NEWTFILTER) {
            return Ok(());
        }
    }
    let mut body = traffic_control(ifindex, PARENT_CLSACT);
    body.extend(11u16.to_ne_bytes());
    body.extend(KIND.to_ne_bytes());
    body.extend(b"clsact\0\0");
    request(libc::RTM_DELQDISC, false, &body).map(|_| ())
}

/// `struct tcmsg`.
fn traffic_control(ifindex: u32, parent: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    for word in [ifindex, 0, parent, 0] {
        body.extend(word.to_ne_bytes());
    }
    body
}

fn word(message: &Message, at: usize) -> Option<u32> {
    message.payload.get(at..)?.first_chunk().map(|&bytes| u32::from_ne_bytes(bytes))
}
