//! How a guard starts: refused where it must be, else attached as this kernel allows.

use anyhow::{Context as _, Result, ensure};
use aya::programs::{ProgramInfo, SchedClassifier, Xdp};
use aya_obj::programs::XdpAttachType;
use ctguard_layout::programs;
use serde_json::Value;

use super::{machine::is_at_least, report::Report};
use crate::{
    exec,
    product::{Site, WAN},
};

/// What `--new-flow-detection` takes.
pub(super) const CONNTRACK: &str = "conntrack";
pub(super) const FLOW_CACHE: &str = "flow-cache";

/// The exit code for a kernel that lacks something.
pub(super) const KERNEL: i32 = 5;

/// A start without conntrack: it may be loaded later, by the first rule that needs it.
pub(super) fn without_conntrack(_: &mut Report) -> Result<()> {
    let site = Site::build()?;
    let answer = site.ctguard(&["run", "-i", WAN, "--new-flow-detection", CONNTRACK])?;
    answer.refusal(KERNEL)?;

    let daemon = site.guard()?;
    let status = site.status()?;
    let at = |pointer: &str| status.pointer(pointer).with_context(|| format!("no {pointer}"));
    ensure!(at("/conntrack/loaded")? == &Value::Bool(false), "{status}");
    ensure!(at("/new_flow_detection/mode")? == FLOW_CACHE, "{status}");
    ensure!(at("/new_flow_detection/reason")? == "not-loaded", "{status}");
    ensure!(daemon.stop()?.success(), "an end on SIGTERM is a success");
    site.ensure_gone()
}

/// A start with it, by each detection.
pub(super) fn guards(report: &mut Report) -> Result<()> {
    let site = Site::build()?;
    for (detection, fact) in
        [(CONNTRACK, "ingress_by_conntrack"), (FLOW_CACHE, "ingress_by_flow_cache")]
    {
        let daemon = site.start(&["run", "-i", WAN, "--new-flow-detection", detection])?;
        ensure_status(&site.status()?, detection)?;
        report.fact(fact, verified(&ingress(&site)?.info()?)?)?;
        report.fact("egress", verified(&egress(&site)?.info()?)?)?;
        report.fact("egress_by", watch(&site)?)?;
        ensure!(daemon.stop()?.success(), "an end on SIGTERM is a success");
        site.ensure_gone()?;
    }
    Ok(())
}

fn ensure_status(status: &Value, detection: &str) -> Result<()> {
    let at = |pointer: &str| status.pointer(pointer).with_context(|| format!("no {pointer}"));
    ensure!(at("/interfaces/0/name")? == WAN, "{status}");
    ensure!(at("/interfaces/0/mode")? == "native", "{status}");
    ensure!(at("/interfaces/0/attached")? == &Value::Bool(true), "{status}");
    ensure!(at("/new_flow_detection/mode")? == detection, "{status}");
    ensure!(at("/daemon/running")? == &Value::Bool(true), "{status}");
    ensure!(at("/conntrack/max")?.as_u64().is_some_and(|max| max > 0), "{status}");
    Ok(())
}

/// The program that judges, from its pin.
pub(super) fn ingress(site: &Site) -> Result<Xdp> {
    let path = site.pins().join(programs::INGRESS);
    Xdp::from_pin(&path, XdpAttachType::Interface).context("no pinned ingress program")
}

/// The program that watches what leaves, from its pin.
pub(super) fn egress(site: &Site) -> Result<SchedClassifier> {
    let path = site.pins().join(programs::EGRESS);
    SchedClassifier::from_pin(&path).context("no pinned egress program")
}

/// How what leaves is watched: as it must be on this kernel, and in no other way.
fn watch(site: &Site) -> Result<&'static str> {
    let filters =
        exec::run(site.guarded().command("tc").args(["filter", "show", "dev", WAN, "egress"]))?;
    let by_filter = filters.contains(programs::EGRESS);
    let by_link = site.links(WAN).is_ok();
    let expected_link = is_at_least(6, 6)?;
    ensure!(
        (by_link, by_filter) == (expected_link, !expected_link),
        "TCX link: {by_link}, filter: {by_filter} ({filters})"
    );
    Ok(if by_link { "TCX" } else { "clsact" })
}

fn verified(info: &ProgramInfo) -> Result<u32> {
    info.verified_instruction_count().context("the kernel tells no count of instructions")
}
