//! Finds and removes the clsact qdisc, which kernels without TCX need.

use std::io;

use super::{
    attribute::{attribute, emitted, number},
    netlink::{dump, request},
};

const PARENT_CLSACT: u32 = 0xffff_fff1;
const PARENT_INGRESS: u32 = 0xffff_fff2;
const PARENT_EGRESS: u32 = 0xffff_fff3;
/// `TCA_KIND`.
const KIND: u16 = 1;

/// Whether `ifindex` has a clsact (or ingress) qdisc.
pub fn exists(ifindex: u32) -> io::Result<bool> {
    let qdiscs = dump(None, libc::RTM_GETQDISC, &traffic_control(ifindex, 0))?;
    let has =
        |qdisc: &[u8], at: usize, wanted| qdisc.get(at..at + 4).and_then(number) == Some(wanted);
    Ok(qdiscs.iter().any(|qdisc| has(qdisc, 4, ifindex) && has(qdisc, 12, PARENT_CLSACT)))
}

/// Removes the qdisc, unless it has filters.
pub fn remove_if_unused(ifindex: u32) -> io::Result<()> {
    for parent in [PARENT_INGRESS, PARENT_EGRESS] {
        if !dump(None, libc::RTM_GETTFILTER, &traffic_control(ifindex, parent))?.is_empty() {
            return Ok(());
        }
    }
    let mut body = traffic_control(ifindex, PARENT_CLSACT);
    body.extend(emitted(&[attribute(KIND, b"clsact\0")]));
    request(None, libc::RTM_DELQDISC, &body).map(|_| ())
}

/// `struct tcmsg`: family, index at 4, handle, parent at 12, info.
fn traffic_control(ifindex: u32, parent: u32) -> Vec<u8> {
    [0, ifindex, 0, parent, 0].map(u32::to_ne_bytes).concat()
}
