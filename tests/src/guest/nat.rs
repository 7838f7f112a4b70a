//! Through a router that masquerades: what the inside asked for comes back, unasked packets do
//! not come in.

use anyhow::{Context as _, Result, ensure};

use super::{
    report::Report,
    router::{PATHS, Router, SERVER_PORT},
    start::{CONNTRACK, FLOW_CACHE},
    traffic::count,
};
use crate::{frames, sources::judge_all};

const FLOWS: u16 = 20;
const UNASKED: u16 = 200;

/// Told by conntrack.
pub(super) fn by_conntrack(_: &mut Report) -> Result<()> {
    answers_pass(CONNTRACK)
}

/// Told by the flow cache.
pub(super) fn by_flow_cache(_: &mut Report) -> Result<()> {
    answers_pass(FLOW_CACHE)
}

fn answers_pass(detection: &str) -> Result<()> {
    let router = Router::build()?;
    let _daemon = router.guard(detection)?;
    for path in PATHS {
        router.ask(path, FLOWS)?.answer().with_context(|| format!("to {}", path.host))?;
    }

    let entries = count(router.site.guarded())?;
    ensure!(entries >= 2 * u64::from(FLOWS), "{entries} entries of {FLOWS} flows each");
    let wire = router.site.wire()?;
    for path in PATHS {
        let tried = judge_all(&router.site, &wire, UNASKED, |flow| {
            frames::udp((path.server, SERVER_PORT + 1), (path.router, 1024 + flow))
        })?;
        ensure!(tried.source > u64::from(UNASKED) / 2, "of unasked datagrams: {tried:?}");
    }
    Ok(())
}
