//! A guarded interface that is moved into another network namespace, and comes back.

use anyhow::{Result, ensure};
use ctguard_tests::{
    exec,
    product::{Site, WAN, wait_for},
    require,
    sources::try_one_source,
};

/// Fails when a program, a filter or a clsact stays on an interface that was moved into another network
/// namespace, when the guard keeps pins of it, when nobody is told, or when it is not guarded with its settings as
/// soon as it is back.
#[test]
fn an_interface_that_is_moved_to_another_namespace_is_let_go_and_guarded_when_it_is_back()
-> Result<()> {
    if !require::root(
        "an_interface_that_is_moved_to_another_namespace_is_let_go_and_guarded_when_it_is_back",
    ) {
        return Ok(());
    }
    for more in [&[][..], &["--egress-filter"]] {
        let site = Site::build()?;
        // So slow that no token comes in a moment in which the sender has to wait.
        let own = [("burst", 3), ("rate", 1)];
        let own = own.map(|(key, value)| format!("interface.{WAN}.source.udp.{key}={value}"));
        let run = ["run", "-i", WAN, "--set", &own[0], "--set", &own[1]];
        let daemon = site.start(&[&run[..], more].concat())?;
        for round in 1..=2 {
            let index = site.index(WAN)?;
            move_away(&site)?;
            wait_for("the interface's end in the status", || {
                let attached = site.status()?.pointer("/interfaces/0/attached").cloned();
                Ok((attached == Some(false.into())).then_some(()))
            })?;
            wait_until_bare(&site)?;
            for pin in ["xdp", "tcx", "filter", "clsact"] {
                let pin = site.pins().join(format!("{pin}_{index}"));
                ensure!(!pin.exists(), "{} is left", pin.display());
            }
            move_back(&site)?;
            wait_for("the program on the interface", || site.xdp(WAN))?;
            wait_for("the interface in the status", || {
                let attached = site.status()?.pointer("/interfaces/0/attached").cloned();
                Ok((attached == Some(true.into())).then_some(()))
            })?;
            let tried = try_one_source(&site, &site.wire()?, round, 10)?;
            ensure!(tried.admitted <= 4 && tried.source >= 6, "its own ceiling holds: {tried:?}");
        }
        let events = site.succeed(&["events"])?;
        ensure!(events.matches("wan0 is gone; waiting for it").count() == 2, "{events}");
        ensure!(events.matches("guarding wan0 again").count() == 2, "{events}");
        ensure!(daemon.stop()?.success());
        site.ensure_gone()?;
    }
    Ok(())
}

/// Without a daemon the program goes along: its link is pinned. Fails when a start does not guard the interface
/// that was away, or when `detach` leaves anything on one that is.
#[test]
fn an_interface_that_was_away_without_a_daemon_is_guarded_by_the_next() -> Result<()> {
    if !require::root("an_interface_that_was_away_without_a_daemon_is_guarded_by_the_next") {
        return Ok(());
    }
    let site = Site::build()?;
    for more in [&[][..], &["--egress-filter"]] {
        let run = [
            &["run", "-i", WAN, "--set", "source.udp.burst=3", "--set", "source.udp.rate=1"],
            more,
        ]
        .concat();
        site.start(&run)?.kill()?;
        move_away(&site)?;
        move_back(&site)?;
        let daemon = site.start(&run)?;
        ensure!(site.xdp(WAN)?.is_some());
        let tried = try_one_source(&site, &site.wire()?, 1, 10)?;
        ensure!(tried.source >= 6, "it limits: {tried:?}");
        daemon.kill()?;

        move_away(&site)?;
        site.succeed(&["detach"])?;
        wait_until_bare(&site)?;
        move_back(&site)?;
        site.ensure_gone()?;
    }
    Ok(())
}

fn move_away(site: &Site) -> Result<()> {
    site.guarded().ip(&[format!("link set {WAN} netns {}", site.outside().name())])
}

fn move_back(site: &Site) -> Result<()> {
    site.outside().ip(&[format!("link set {WAN} netns {}", site.guarded().name())])?;
    site.guarded().ip(&[format!("link set {WAN} up")])
}

/// Waits until the interface has nothing of the guard where it is.
fn wait_until_bare(site: &Site) -> Result<()> {
    wait_for("the end of the guard on the moved interface", || {
        let shown = outside(site, "ip", &["-d", "link", "show", WAN])?;
        let qdiscs = outside(site, "tc", &["qdisc", "show"])?;
        Ok((!shown.contains("xdp") && !qdiscs.contains("clsact")).then_some(()))
    })
}

fn outside(site: &Site, program: &str, arguments: &[&str]) -> Result<String> {
    exec::run(site.outside().command(program).args(arguments))
}
