//! New flows from the outside of a site, as many as are asked for, each from another source.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    frames,
    product::{Site, wait_for},
    wire::Wire,
};

const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));

/// What became of new UDP flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Admitted.
    pub admitted: u64,
    /// Refused by their source's ceiling.
    pub source: u64,
    /// Challenged.
    pub challenged: u64,
    /// Refused by the grant.
    pub grant: u64,
    /// Refused by the fallback rate.
    pub fallback: u64,
    /// Refused by the deny list.
    pub deny: u64,
}

/// Opens `flows` UDP flows from as many sources, `round` telling them from earlier ones, and tells
/// what became of them once each has been judged.
pub fn try_sources(site: &Site, wire: &Wire, round: u8, flows: u16) -> Result<Tried> {
    judge_all(site, wire, flows, |flow| {
        let [high, low] = flow.to_be_bytes();
        let source = IpAddr::V4(Ipv4Addr::new(96, round, high, low));
        frames::udp((source, 1024), (ROUTER, 9))
    })
}

/// Opens `flows` UDP flows from one source.
pub fn try_one_source(site: &Site, wire: &Wire, round: u8, flows: u16) -> Result<Tried> {
    let source = IpAddr::V4(Ipv4Addr::new(192, 0, 2, round));
    judge_all(site, wire, flows, |flow| frames::udp((source, 1024 + flow), (ROUTER, 9)))
}

/// Sends `flows` frames, each a new UDP flow, and tells what became of them.
pub fn judge_all(
    site: &Site,
    wire: &Wire,
    flows: u16,
    frame: impl Fn(u16) -> Result<Vec<u8>>,
) -> Result<Tried> {
    let before = tried(site)?;
    (0..flows).try_for_each(|flow| wire.send(&frame(flow)?))?;
    wait_for(&format!("a verdict on each of {flows} flows"), || {
        let since = tried(site)?.since(before);
        ensure!(since.sum() <= flows.into(), "{since:?} of {flows} flows");
        Ok((since.sum() == u64::from(flows)).then_some(since))
    })
}

impl Tried {
    fn since(self, earlier: Self) -> Self {
        Self {
            admitted: self.admitted - earlier.admitted,
            source: self.source - earlier.source,
            challenged: self.challenged - earlier.challenged,
            grant: self.grant - earlier.grant,
            fallback: self.fallback - earlier.fallback,
            deny: self.deny - earlier.deny,
        }
    }

    fn sum(self) -> u64 {
        self.admitted + self.source + self.challenged + self.grant + self.fallback + self.deny
    }
}

/// What became of all new UDP flows so far.
pub fn tried(site: &Site) -> Result<Tried> {
    let status = site.status()?;
    let number = |name: &str| {
        let counter = status.pointer(&format!("/counters/udp/{name}")).and_then(Value::as_u64);
        counter.with_context(|| format!("no counter {name} in {status}"))
    };
    Ok(Tried {
        admitted: number("admitted")?,
        source: number("refused/source")?,
        challenged: number("challenged")?,
        grant: number("refused/grant")?,
        fallback: number("refused/fallback")?,
        deny: number("refused/deny")?,
    })
}
