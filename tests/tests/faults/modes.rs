//! A start in another XDP mode than that of the guard that it takes over.

use anyhow::{Result, ensure};
use ctguard_tests::{
    exec,
    product::{Site, WAN},
    require,
};

/// Fails when a changed `mode` in the configuration keeps the daemon from starting again, opens the
/// interface, or is ignored without a word.
#[test]
fn a_start_in_another_mode_keeps_the_former_one_and_says_so() -> Result<()> {
    if !require::root("a_start_in_another_mode_keeps_the_former_one_and_says_so") {
        return Ok(());
    }
    let site = Site::build()?;
    for (former, next) in [("native", "generic"), ("generic", "native")] {
        site.start(&["run", "-i", WAN, "--mode", former])?.kill()?;
        let before = site.links(WAN)?;
        let daemon = site.start(&["run", "-i", WAN, "--mode", next])?;
        let said = format!("{WAN} goes on in {former} mode; to change it: ctguard detach --stop");
        ensure!(daemon.log()?.contains(&said), "{}", daemon.log()?);
        let after = site.links(WAN)?;
        ensure!(after[0].id() == before[0].id(), "the same link");
        ensure!(after[0].program_id() != before[0].program_id(), "a new program");
        ensure!(mode(&site)? == former);
        let status = site.status()?;
        ensure!(status.pointer("/interfaces/0/mode") == Some(&former.into()), "{status}");

        site.succeed(&["detach", "--stop"])?;
        let daemon = site.start(&["run", "-i", WAN, "--mode", next])?;
        ensure!(mode(&site)? == next && !daemon.log()?.contains("goes on in"), "{}", daemon.log()?);
        ensure!(daemon.stop()?.success());
        site.ensure_gone()?;
    }
    Ok(())
}

/// The mode in which the kernel runs the program.
fn mode(site: &Site) -> Result<&'static str> {
    let shown = exec::run(site.guarded().command("ip").args(["link", "show", WAN]))?;
    Ok(if shown.contains("xdpgeneric") { "generic" } else { "native" })
}
