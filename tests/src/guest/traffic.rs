//! Real packets into a guarded host that tracks connections: what is admitted becomes an entry,
//! what is refused does not.

use anyhow::{Context as _, Result, ensure};

use super::report::Report;
use crate::{
    addresses::Family,
    exec, frames,
    netns::Handle,
    product::{Site, WAN, wait_for},
    sources::judge_all,
    sysctl,
};

/// Where `frames` addresses its frames.
const STATION: &str = "04:04:04:04:04:04";
const FLOWS: u16 = 200;
const BURST: u64 = 10;

pub(super) fn makes_entries(_: &mut Report) -> Result<()> {
    let site = Site::build()?;
    let (ipv4, ipv6) = (Family::Ipv4.router_wan(), Family::Ipv6.router_wan());
    site.guarded().ip(&[
        format!("link set {WAN} address {STATION}"),
        format!("address add {ipv4}/24 dev {WAN}"),
        format!("address add {ipv6}/64 dev {WAN} nodad"),
    ])?;
    track(site.guarded())?;
    let _daemon = site.start(&[
        "run",
        "-i",
        WAN,
        "--set",
        "source.udp.rate=1",
        "--set",
        "source.udp.burst=10",
    ])?;
    let wire = site.wire()?;
    let mut entries = count(site.guarded())?;
    for family in [Family::Ipv4, Family::Ipv6] {
        let (source, router) = (family.flood_source(), family.router_wan());
        let tried =
            judge_all(&site, &wire, FLOWS, |flow| frames::udp((source, 1024 + flow), (router, 9)))?;
        ensure!((BURST..u64::from(FLOWS) / 2).contains(&tried.admitted), "{family:?}: {tried:?}");
        entries += tried.admitted;
        wait_for(&format!("{entries} entries ({family:?})"), || {
            let count = count(site.guarded())?;
            ensure!(count <= entries, "{count} entries, and {entries} admitted in all");
            Ok((count == entries).then_some(()))
        })?;
    }
    Ok(())
}

/// Switches conntrack on in a namespace, as any stateful rule does.
pub(super) fn track(namespace: &Handle) -> Result<()> {
    let rules = "table inet track {
            chain input {
                type filter hook input priority filter; policy accept;
                ct state new accept
            }
        }";
    exec::run_with_input(namespace.command("nft").args(["-f", "-"]), rules)
        .context("cannot switch conntrack on")?;
    Ok(())
}

/// Entries of a namespace.
pub(super) fn count(namespace: &Handle) -> Result<u64> {
    let text = namespace.run(|| sysctl::read("net.netfilter.nf_conntrack_count"))?;
    text.parse().context("nf_conntrack_count is a number")
}
