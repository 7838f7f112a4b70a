//! `ctguard detach`, after the daemon has died.

use anyhow::{Context as _, Result, ensure};
use aya::programs::loaded_programs;

use super::{
    report::Report,
    start::{egress, ingress},
};
use crate::{
    exec,
    product::{Site, WAN, wait_for},
};

pub(super) fn leaves_nothing(_: &mut Report) -> Result<()> {
    let site = Site::build()?;
    site.guard()?.kill()?;
    let programs = [ingress(&site)?.info()?.id(), egress(&site)?.info()?.id()];
    ensure!(site.xdp(WAN)?.is_some(), "the program outlives its daemon");

    site.succeed(&["detach"])?;
    site.ensure_gone()?;
    let filters =
        exec::run(site.guarded().command("tc").args(["filter", "show", "dev", WAN, "egress"]))?;
    ensure!(filters.trim().is_empty(), "a filter is left: {filters}");
    wait_for("the programs' end", || {
        let alive = loaded_programs()
            .filter_map(Result::ok)
            .any(|program| programs.contains(&program.id()));
        Ok((!alive).then_some(()))
    })
    .context("after detach")
}
