//! Interfaces that XDP guards badly: resolved to the device to guard, or refused with the reason.

use anyhow::{Result, ensure};
use ctguard_tests::{
    product::{OUTSIDE, Site, WAN},
    require, syscall,
};

/// Fails when a bridge, a tunnel or a device without Ethernet frames is guarded, or refused without
/// saying what to guard instead.
#[test]
fn interfaces_that_cannot_be_guarded_are_refused_with_what_can() -> Result<()> {
    if !require::root("interfaces_that_cannot_be_guarded_are_refused_with_what_can") {
        return Ok(());
    }
    let site = Site::build()?;
    let _tun = site.guarded().run(|| Ok(syscall::open_tun("tun0")?))?;
    site.guarded().ip(&[
        "link add br0 type bridge".to_owned(),
        format!("link set {WAN} master br0"),
        "link add bare0 type bridge".to_owned(),
        "link add vx0 type vxlan id 7 dstport 4789 remote 192.0.2.9".to_owned(),
        "link set br0 up".to_owned(),
    ])?;
    let refused = [
        ("br0", format!("-i {WAN}")),
        ("bare0", "bridge".to_owned()),
        ("vx0", "by nftables on vx0".to_owned()),
        ("tun0", "by nftables on tun0".to_owned()),
        ("lo", "loopback".to_owned()),
        ("nosuch0", WAN.to_owned()),
        ("", "no interface".to_owned()),
    ];
    for (name, part) in refused {
        let answer = site.ctguard(&["run", "-i", name])?;
        let line = answer.refusal(2)?;
        ensure!(line.contains(&part), "-i {name}: {line}");
        ensure!(!site.pins().exists(), "-i {name} leaves no pins");
    }
    Ok(())
}

/// Fails when a bridge's port, a macvlan or an alternative name is not guarded at the device that
/// packets arrive on.
#[test]
fn names_are_resolved_to_the_device_that_packets_arrive_on() -> Result<()> {
    if !require::root("names_are_resolved_to_the_device_that_packets_arrive_on") {
        return Ok(());
    }
    let site = Site::build()?;
    site.guarded().ip(&[
        format!("link add link {WAN} name mac0 type macvlan mode bridge"),
        format!("link property add dev {WAN} altname uplink-to-the-provider"),
    ])?;
    for name in ["mac0", "uplink-to-the-provider"] {
        let daemon = site.start(&["run", "-i", name])?;
        ensure!(site.xdp(WAN)?.is_some(), "-i {name} guards {WAN}");
        ensure!(site.status()?.pointer("/interfaces/0/name") == Some(&WAN.into()), "{name}");
        let log = daemon.log()?;
        ensure!(name != "mac0" || log.contains("mac0"), "what was resolved is told: {log}");
        ensure!(daemon.stop()?.success());
        site.ensure_gone()?;
    }
    // Twice the same device is one.
    let daemon = site.start(&["run", "-i", WAN, "-i", "mac0"])?;
    ensure!(site.status()?.pointer("/interfaces/1").is_none());
    ensure!(daemon.stop()?.success());

    site.guarded().ip(&[
        "link del mac0".to_owned(),
        "link add br0 type bridge".to_owned(),
        format!("link set {WAN} master br0"),
    ])?;
    let daemon = site.guard()?;
    ensure!(site.xdp(WAN)?.is_some(), "a bridge's port is guarded itself");
    ensure!(daemon.stop()?.success());
    Ok(())
}

/// Fails when a macvlan whose device lies in another namespace is guarded as if it were a device.
#[test]
fn a_child_of_a_device_elsewhere_is_refused() -> Result<()> {
    if !require::root("a_child_of_a_device_elsewhere_is_refused") {
        return Ok(());
    }
    let site = Site::build()?;
    site.outside().ip(&[
        format!("link add link {OUTSIDE} name mac0 type macvlan mode bridge"),
        format!("link set mac0 netns {}", site.guarded().name()),
    ])?;
    let answer = site.ctguard(&["run", "-i", "mac0"])?;
    ensure!(answer.refusal(2)?.contains("namespace"), "{answer:?}");
    Ok(())
}
