//! What a guard counted, and floods that it must count as such.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    netns::Handle,
    product::{Site, wait_for},
    table,
};
use serde_json::Value;

use crate::talk;

/// New flows of all classes, and packets of known ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) admitted: u64,
    pub(crate) refused: u64,
    pub(crate) known: u64,
    pub(crate) makes_no_entry: u64,
    /// New flows of class tcp, which are among them.
    pub(crate) tcp: u64,
}

impl Counts {
    /// Since the guard is there.
    pub(crate) fn read(site: &Site) -> Result<Self> {
        let status = site.status()?;
        let number = |pointer: &str| {
            let counter = status.pointer(pointer).and_then(Value::as_u64);
            counter.with_context(|| format!("no number at {pointer} of {status}"))
        };
        let mut counts = Self {
            known: number("/counters/packets/known")?,
            makes_no_entry: number("/counters/packets/makes_no_entry")?,
            tcp: number("/counters/tcp/seen")?,
            ..Self::default()
        };
        for class in ["tcp", "udp", "other"] {
            counts.admitted += number(&format!("/counters/{class}/admitted"))?;
            for limit in ["source", "grant", "fallback", "deny"] {
                counts.refused += number(&format!("/counters/{class}/refused/{limit}"))?;
            }
        }
        Ok(counts)
    }

    /// What came since.
    pub(crate) fn until_now(self, site: &Site) -> Result<Self> {
        let now = Self::read(site)?;
        Ok(Self {
            admitted: now.admitted - self.admitted,
            refused: now.refused - self.refused,
            known: now.known - self.known,
            makes_no_entry: now.makes_no_entry - self.makes_no_entry,
            tcp: now.tcp - self.tcp,
        })
    }

    /// New flows.
    pub(crate) const fn new_flows(self) -> u64 {
        self.admitted + self.refused
    }
}

/// Waits until `flows` new flows have been judged since `before`, and no more.
pub(crate) fn wait_for_verdicts(site: &Site, before: Counts, flows: u64) -> Result<Counts> {
    wait_for(&format!("a verdict on each of {flows} new flows"), || {
        let since = before.until_now(site)?;
        ensure!(since.new_flows() <= flows, "{flows} new flows and not {since:?}");
        Ok((since.new_flows() == flows).then_some(since))
    })
}

/// Unsolicited packets of a flood.
const UNSOLICITED: u16 = 50;
/// No flow of a test has ports from here on.
const UNSOLICITED_PORT: u16 = 40_000;

/// Sends datagrams that nobody asked for from `source`; fails when more than the ceiling's are let
/// in, or make an entry.
pub(crate) fn ensure_limited(
    site: &Site,
    from: &Handle,
    source: IpAddr,
    destination: IpAddr,
) -> Result<()> {
    let sender = talk::udp(from, SocketAddr::new(source, 0))?;
    let (before, entries) = (Counts::read(site)?, table::count(site.guarded())?);
    let began = Instant::now();
    for port in UNSOLICITED_PORT..UNSOLICITED_PORT + UNSOLICITED {
        sender.send_to(b"hello", SocketAddr::new(destination, port))?;
    }
    let counts = wait_for_verdicts(site, before, UNSOLICITED.into())?;
    let most = 2 + began.elapsed().as_secs();
    ensure!(counts.admitted <= most, "{counts:?}, and {most} at most may be let in");
    let made = table::count(site.guarded())?.saturating_sub(entries);
    ensure!(made <= counts.admitted, "{made} entries of {counts:?}");
    Ok(())
}
