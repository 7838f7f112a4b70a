//! Frames judged by the programs of a started guard, through their pins (`BPF_PROG_TEST_RUN`).

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use aya::{
    TestRunOptions,
    programs::{SchedClassifier, TestRun as _, Xdp},
};

use super::{
    report::Report,
    start::{CONNTRACK, FLOW_CACHE, egress, ingress},
};
use crate::{
    addresses::Family,
    data_path::Action,
    frames::{self, flags},
    product::{Site, WAN},
};

/// A burst that is soon spent, and a rate that does not fill it while a test runs. A SYN beyond it is
/// refused, not challenged.
const CEILINGS: [&str; 10] = [
    "--set",
    "interface.wan0.answer=off",
    "--set",
    "source.tcp.rate=1",
    "--set",
    "source.tcp.burst=5",
    "--set",
    "source.udp.rate=1",
    "--set",
    "source.udp.burst=5",
];
const BURST: usize = 5;
/// Flows that are tried; a ceiling of one a second lets half of them pass within a minute only.
const FLOWS: u16 = 100;
/// Bytes of a TCP header that hide its flags.
const TINY: usize = 8;

/// The programs of a guard, as if frames came and went on its interface.
struct Pinned {
    ingress: Xdp,
    egress: SchedClassifier,
    index: u32,
}

pub(super) fn judges(_: &mut Report) -> Result<()> {
    for detection in [CONNTRACK, FLOW_CACHE] {
        judges_by(detection).with_context(|| format!("told by {detection}"))?;
    }
    Ok(())
}

fn judges_by(detection: &str) -> Result<()> {
    let site = Site::build()?;
    let arguments = ["run", "-i", WAN, "--new-flow-detection", detection];
    let _daemon = site.start(&[arguments.as_slice(), &CEILINGS].concat())?;
    let pinned = Pinned {
        ingress: ingress(&site)?,
        egress: egress(&site)?,
        index: u32::try_from(site.index(WAN)?)?,
    };
    for family in [Family::Ipv4, Family::Ipv6] {
        // Test runs look the device up in the namespace of their thread.
        site.guarded()
            .run(|| burst(&pinned, family).and_then(|()| known(&pinned, family, detection)))
            .and_then(|()| listed(&site, &pinned, family))
            .with_context(|| format!("{family:?}"))?;
    }
    site.guarded().run(|| tiny_fragment(&pinned))
}

/// A source opens as many flows as its burst has, and then no more.
fn burst(pinned: &Pinned, family: Family) -> Result<()> {
    let passed = pinned.passing(|port| syn(family.far_client(0), family, port))?;
    ensure!((BURST..usize::from(FLOWS) / 2).contains(&passed), "{passed} SYNs passed");
    Ok(())
}

/// What was asked for passes, the ceiling of the source spent; but that it was asked for only
/// conntrack itself can tell where it is asked, and it saw no test run.
fn known(pinned: &Pinned, family: Family, detection: &str) -> Result<()> {
    let (server, router) = (family.far_server(), family.router_wan());
    for port in 0..FLOWS {
        pinned.leave(&frames::udp((router, 1024 + port), (server, 53))?)?;
    }
    let unasked = pinned.passing(|port| frames::udp((server, 54), (router, 1024 + port)))?;
    ensure!(unasked < usize::from(FLOWS) / 2, "{unasked} datagrams passed that nobody asked for");
    let answers = pinned.passing(|port| frames::udp((server, 53), (router, 1024 + port)))?;
    let vouched = if detection == FLOW_CACHE { usize::from(FLOWS) } else { 0 };
    ensure!(
        (vouched..=vouched + usize::from(FLOWS) / 2).contains(&answers),
        "{answers} answers passed of {FLOWS}"
    );
    Ok(())
}

/// Nothing of a denied source passes, everything of an allowed one.
fn listed(site: &Site, pinned: &Pinned, family: Family) -> Result<()> {
    let (denied, allowed) = (family.far_client(1), family.far_client(2));
    site.succeed(&["deny", "add", &denied.to_string()])?;
    site.succeed(&["allow", "add", &allowed.to_string()])?;
    let passing = |source| site.guarded().run(|| pinned.passing(|port| syn(source, family, port)));
    let (of_denied, of_allowed) = (passing(denied)?, passing(allowed)?);
    ensure!(of_denied == 0, "{of_denied} SYNs of a denied source passed");
    ensure!(of_allowed == usize::from(FLOWS), "{of_allowed} SYNs of an allowed source passed");
    Ok(())
}

/// A first fragment that hides the flags never passes.
fn tiny_fragment(pinned: &Pinned) -> Result<()> {
    const IP: usize = 14;
    const TCP: usize = IP + 20;
    let mut frame = syn(Family::Ipv4.far_client(3), Family::Ipv4, 1)?;
    frame.truncate(TCP + TINY);
    let [high, low] = u16::try_from(frame.len() - IP)?.to_be_bytes();
    frame[IP + 2..IP + 4].copy_from_slice(&[high, low]);
    // More fragments, at offset 0.
    frame[IP + 6] = 0x20;
    ensure!(pinned.judge(&frame)? == Action::Drop, "a tiny fragment passed");
    Ok(())
}

fn syn(source: IpAddr, family: Family, port: u16) -> Result<Vec<u8>> {
    frames::tcp((source, 1024 + port), (family.router_wan(), 80), flags::SYN)
}

impl Pinned {
    /// How many of [`FLOWS`] frames, told apart by a port, pass.
    fn passing(&self, frame: impl Fn(u16) -> Result<Vec<u8>>) -> Result<usize> {
        let verdicts = (0..FLOWS).map(|port| self.judge(&frame(port)?));
        let verdicts = verdicts.collect::<Result<Vec<_>>>()?;
        Ok(verdicts.into_iter().filter(|verdict| *verdict == Action::Pass).count())
    }

    fn judge(&self, frame: &[u8]) -> Result<Action> {
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index,
        // egress_ifindex.
        let context = [0, u32::try_from(frame.len())?, 0, self.index, 0, 0];
        let context: Vec<u8> = context.into_iter().flat_map(u32::to_ne_bytes).collect();
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        match self.ingress.test_run(options)?.return_value {
            1 => Ok(Action::Drop),
            2 => Ok(Action::Pass),
            other => anyhow::bail!("the program returned {other}"),
        }
    }

    fn leave(&self, frame: &[u8]) -> Result<()> {
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        let verdict = self.egress.test_run(options)?.return_value;
        ensure!(verdict == u32::MAX, "the egress program returned {verdict}");
        Ok(())
    }
}
