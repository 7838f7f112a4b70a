//! A guard on an interface whose addresses are on a VLAN.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result, ensure};

use super::{report::Report, router::ask, traffic::track};
use crate::{
    exec, frames,
    product::{OUTSIDE, Site, WAN},
    sources::judge_all,
};

const VLAN: u16 = 5;
const GUARDED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const FLOODER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const FLOWS: u16 = 20;
const FLOOD: u16 = 200;

/// As hardware without VLAN offload gives frames to XDP.
pub(super) fn in_frames(_: &mut Report) -> Result<()> {
    guarded_below("off")
}

/// As the stack hands frames on with offload: the tag is beside the frame, where XDP cannot see it.
pub(super) fn beside_frames(_: &mut Report) -> Result<()> {
    guarded_below("on")
}

fn guarded_below(offload: &str) -> Result<()> {
    let site = Site::build()?;
    for (namespace, device, address) in
        [(site.outside(), OUTSIDE, NEIGHBOUR), (site.guarded(), WAN, GUARDED)]
    {
        let switches = ["-K", device, "tx-vlan-offload", offload, "rx-vlan-offload", offload];
        exec::run(namespace.command("ethtool").args(switches))?;
        namespace.ip(&[
            format!("link add link {device} name {device}.{VLAN} type vlan id {VLAN}"),
            format!("link set {device}.{VLAN} up"),
            format!("address add {address}/24 dev {device}.{VLAN}"),
        ])?;
    }
    track(site.guarded())?;
    let child = format!("{WAN}.{VLAN}");
    let _daemon = site.start(&[
        "run",
        "-i",
        &child,
        "--set",
        "source.udp.rate=1",
        "--set",
        "source.udp.burst=1",
    ])?;
    let status = site.status()?;
    let on_parent = status.pointer("/interfaces/0/name").is_some_and(|name| name == WAN);
    ensure!(on_parent, "the guard is not on {WAN}: {status}");

    ask((site.guarded(), GUARDED.into()), (site.outside(), NEIGHBOUR.into()), FLOWS)
        .and_then(|asked| asked.answer())
        .context("over the VLAN")?;
    let tried = judge_all(&site, &site.wire()?, FLOOD, |flow| {
        tagged(&frames::udp((IpAddr::V4(FLOODER), 1024 + flow), (IpAddr::V4(GUARDED), 9))?)
    })?;
    ensure!(tried.source > u64::from(FLOOD) / 2, "of a tagged flood: {tried:?}");
    Ok(())
}

/// The frame with a tag of [`VLAN`] behind its addresses.
fn tagged(frame: &[u8]) -> Result<Vec<u8>> {
    let (addresses, rest) = frame.split_at_checked(12).context("a frame has two addresses")?;
    let tag = [[0x81, 0x00], VLAN.to_be_bytes()].concat();
    Ok([addresses, &tag, rest].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_lies_between_the_addresses_and_the_type() {
        let frame = tagged(&[[1; 12].as_slice(), &[8, 0, 69]].concat()).unwrap();
        assert_eq!(frame[10..], [1, 1, 0x81, 0, 0, 5, 8, 0, 69]);
        assert!(tagged(&[1; 11]).is_err());
    }
}
