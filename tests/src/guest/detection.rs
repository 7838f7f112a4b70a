//! What tells new flows from known ones: conntrack, through its module's types, or the flow cache.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::{Value, json};

use super::{
    report::Report,
    router::{Asked, PATHS, Router},
    start::{CONNTRACK, FLOW_CACHE, KERNEL},
};
use crate::{
    product::{Site, WAN, wait_for},
    sources::tried,
};

/// Flows that are older than the guard.
const FLOWS: u16 = 20;
const TYPES: &str = "/sys/kernel/btf";
const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";

/// Conntrack is asked by itself, and knows at once what was there before the guard.
pub(super) fn knows_older_flows(_: &mut Report) -> Result<()> {
    let router = Router::build()?;
    let asked = PATHS.map(|path| router.ask(path, FLOWS));
    let _daemon = router.guard("auto")?;
    ensure_detection(&router.site, &json!({ "mode": "conntrack", "reason": null }))?;
    answered(&router.site, asked)
}

/// The flow cache learns it from a dump of the table, over ctnetlink.
pub(super) fn flow_cache_learns(_: &mut Report) -> Result<()> {
    let router = Router::build()?;
    let asked = PATHS.map(|path| router.ask(path, FLOWS));
    let _daemon = router.guard(FLOW_CACHE)?;
    let forced = json!({ "mode": "flow-cache", "reason": "forced" });
    ensure_detection(&router.site, &forced)?;
    wait_for("a dump of the table", || {
        let complete = router.site.status()?.pointer("/known_flows/complete") == Some(&true.into());
        Ok(complete.then_some(()))
    })?;
    answered(&router.site, asked)
}

fn answered(site: &Site, asked: [Result<Asked>; 2]) -> Result<()> {
    for asked in asked {
        let answered = asked?.answer();
        answered.with_context(|| format!("judged: {:?}", tried(site)))?;
    }
    Ok(())
}

/// Where the module tells no types, the flow cache answers, unless conntrack was insisted on.
pub(super) fn falls_back(_: &mut Report) -> Result<()> {
    let kernel = fs::read(KERNEL_TYPES).with_context(|| format!("cannot read {KERNEL_TYPES}"))?;
    mount("tmpfs", TYPES, "tmpfs", MountFlags::empty(), None).context("cannot hide the types")?;
    let outcome = fs::write(Path::new(KERNEL_TYPES), kernel)
        .context("cannot show the kernel's own types")
        .and_then(|()| without_module_types());
    unmount(TYPES, UnmountFlags::empty()).context("cannot show the types again")?;
    outcome
}

fn without_module_types() -> Result<()> {
    let site = Site::build()?;
    let answer = site.ctguard(&["run", "-i", WAN, "--new-flow-detection", CONNTRACK])?;
    let line = answer.refusal(KERNEL)?;
    ensure!(line.contains("--new-flow-detection auto"), "{line}");

    let _daemon = site.guard()?;
    ensure_detection(&site, &json!({ "mode": "flow-cache", "reason": "functions-missing" }))
}

fn ensure_detection(site: &Site, expected: &Value) -> Result<()> {
    let status = site.status()?;
    let found = status.get("new_flow_detection");
    ensure!(found == Some(expected), "{found:?} and not {expected}");
    Ok(())
}
