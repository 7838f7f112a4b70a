//! `nf_conntrack_tcp_loose`, which decides whether an ACK of no connection makes an entry.

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    frames::{self, flags},
    netns::Handle,
    product::{Site, wait_for},
    require,
};

use crate::{
    counts::Counts,
    home::{self, Family, detections},
};

const LOOSE: &str = "net.netfilter.nf_conntrack_tcp_loose";

/// Fails when the guard goes by what the setting was when it started.
#[test]
fn tcp_loose_is_followed_while_the_guard_runs() -> Result<()> {
    if !require::root("tcp_loose_is_followed_while_the_guard_runs") {
        return Ok(());
    }
    for detection in detections() {
        let site = Site::build()?;
        let _daemon = home::guard(&site, detection, &[])?;
        let mut port = 0;
        for (loose, charged) in [("0", false), ("1", true), ("0", false)] {
            set(site.guarded(), loose)?;
            wait_for("a strange ACK to be judged by the setting", || {
                port += 1;
                Ok((is_charged(&site, 1024 + port)? == charged).then_some(()))
            })
            .with_context(|| format!("{detection}, {LOOSE} = {loose}"))?;
            for _ in 0..3 {
                port += 1;
                ensure!(is_charged(&site, 1024 + port)? == charged, "{detection}, {loose}");
            }
        }
    }
    Ok(())
}

fn set(namespace: &Handle, value: &str) -> Result<()> {
    namespace.sysctl(&[(LOOSE, value)])
}

/// Sends an ACK of no connection and tells whether it was taken for a new flow.
fn is_charged(site: &Site, port: u16) -> Result<bool> {
    let wire = site.wire()?;
    let before = Counts::read(site)?;
    let [from, to] = [Family::Ipv4.client(1), Family::Ipv4.public(1)];
    wire.send(&frames::tcp((from, port), (to, 22), flags::ACK)?)?;
    wait_for("a verdict on an ACK", || {
        let since = before.until_now(site)?;
        Ok(match (since.new_flows(), since.makes_no_entry) {
            (0, 0) => None,
            (new_flows, _) => Some(new_flows > 0),
        })
    })
}
