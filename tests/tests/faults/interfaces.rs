//! Interfaces that vanish and come back.

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    product::{OUTSIDE, Site, WAN, wait_for},
    require,
    sources::try_one_source,
};

/// Fails when an interface that is deleted and made again under its name stays unguarded, loses
/// its own settings, or when the daemon dies of it.
#[test]
fn an_interface_that_comes_back_is_guarded_again() -> Result<()> {
    if !require::root("an_interface_that_comes_back_is_guarded_again") {
        return Ok(());
    }
    let site = Site::build()?;
    let own = format!("interface.{WAN}.source.udp.burst");
    let daemon = site.start(&["run", "-i", WAN, "--set", &format!("{own}=3")])?;
    for round in 1..=3 {
        let index = site.index(WAN)?;
        site.guarded().ip(&[format!("link del {WAN}")])?;
        wait_for("the interface's end in the status", || {
            let attached = site.status()?.pointer("/interfaces/0/attached").cloned();
            Ok((attached != Some(true.into())).then_some(()))
        })?;
        site.connect(OUTSIDE, WAN)?;
        ensure!(site.index(WAN)? != index, "another device of the same name");
        wait_for("the program on the new interface", || site.xdp(WAN))?;
        wait_for("the new interface in the status", || {
            let status = site.status()?;
            let attached = status.pointer("/interfaces/0/attached") == Some(&true.into());
            Ok((attached && status.pointer("/interfaces/1").is_none()).then_some(()))
        })?;
        let tried = try_one_source(&site, &site.wire()?, round, 10)?;
        ensure!(tried.admitted <= 4 && tried.source >= 6, "its own ceiling holds: {tried:?}");
    }
    ensure!(site.succeed(&["get", &own])?.trim() == "3", "its settings stay");
    ensure!(daemon.stop()?.success());
    site.ensure_gone()
}

/// Fails when another device is guarded in the place of one that is gone, because the kernel gave it the same
/// index.
#[test]
fn a_device_that_has_the_index_of_one_that_is_gone_is_not_taken_for_it() -> Result<()> {
    if !require::root("a_device_that_has_the_index_of_one_that_is_gone_is_not_taken_for_it") {
        return Ok(());
    }
    let site = Site::build()?;
    let daemon = site.guard()?;
    for seen in [true, false] {
        let index = site.index(WAN)?;
        site.guarded().ip(&[format!("link del {WAN}")])?;
        if seen {
            wait_for("the interface's end in the status", || {
                let attached = site.status()?.pointer("/interfaces/0/attached").cloned();
                Ok((attached == Some(false.into())).then_some(()))
            })?;
        }
        site.guarded().ip(&[
            format!("link add other0 index {index} type veth peer name other1"),
            "link set other0 up".to_owned(),
        ])?;
        wait_for("the interface's end in the events", || {
            let gone = site.succeed(&["events"])?.matches("wan0 is gone").count();
            Ok((gone == if seen { 1 } else { 2 }).then_some(()))
        })?;
        std::thread::sleep(std::time::Duration::from_secs(2));
        ensure!(site.xdp("other0")?.is_none(), "it was not to be guarded: {}", daemon.log()?);
        site.connect(OUTSIDE, WAN)?;
        wait_for("the program on the new interface", || site.xdp(WAN))?;
        ensure!(site.xdp("other0")?.is_none());
        site.guarded().ip(&["link del other0"])?;
    }
    ensure!(daemon.stop()?.success());
    site.ensure_gone()
}

/// Fails when an interface that is renamed is lost, or keeps its old name in the status.
#[test]
fn an_interface_that_is_renamed_stays_guarded() -> Result<()> {
    if !require::root("an_interface_that_is_renamed_stays_guarded") {
        return Ok(());
    }
    let site = Site::build()?;
    let _daemon = site.guard()?;
    let [xdp, _] = site.links(WAN)?;
    site.guarded().ip(&[
        format!("link set {WAN} down"),
        format!("link set {WAN} name dsl0"),
        "link set dsl0 up".to_owned(),
    ])?;
    wait_for("the new name in the status", || {
        let name = site.status()?.pointer("/interfaces/0/name").cloned();
        Ok((name == Some("dsl0".into())).then_some(()))
    })?;
    ensure!(site.links("dsl0")?[0].id() == xdp.id(), "by the same link");
    Ok(())
}

/// Fails when a program that somebody tore off a guarded interface is not put back, or when somebody
/// who does it again and again fills the log.
#[test]
fn a_program_that_was_torn_off_is_put_back() -> Result<()> {
    if !require::root("a_program_that_was_torn_off_is_put_back") {
        return Ok(());
    }
    let site = Site::build()?;
    let daemon = site.start(&["run", "-i", WAN, "--set", "source.udp.burst=5"])?;
    let pin = site.pins().join(format!("xdp_{}", site.index(WAN)?));
    for _ in 0..5 {
        std::fs::remove_file(&pin).context("the link's only holder is its pin")?;
        wait_for("the program, put back", || {
            Ok((site.xdp(WAN)?.is_some() && pin.exists()).then_some(()))
        })?;
    }
    let log = daemon.log()?;
    let of_program = |line: &&str| line.contains(WAN) && !line.contains("is a veth");
    let told = log.lines().filter(of_program).count();
    ensure!((2..=5).contains(&told), "the start, and once a minute: {log}");
    ensure!(try_one_source(&site, &site.wire()?, 1, 200)?.source > 0, "and it limits");
    Ok(())
}
