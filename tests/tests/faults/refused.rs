//! Starts that are refused: they change nothing, and say why in a line.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use aya::programs::xdp::XdpMode;
use ctguard_tests::{
    exec,
    object::{self, Program},
    product::{Answer, Site, WAN, wait_for},
    require,
};

const LAN: &str = "lan0";

/// Fails when two daemons steer one guard, or when the second does not say who is first.
#[test]
fn a_second_daemon_is_refused() -> Result<()> {
    if !require::root("a_second_daemon_is_refused") {
        return Ok(());
    }
    for more in [&[][..], &["--egress-filter"]] {
        refuse_a_second(more).with_context(|| format!("{more:?}"))?;
    }
    Ok(())
}

fn refuse_a_second(more: &[&'static str]) -> Result<()> {
    let site = Site::build()?;
    let daemon = site.start(&[&["run", "-i", WAN], more].concat())?;
    let filters =
        || exec::run(site.guarded().command("tc").args(["filter", "show", "dev", WAN, "egress"]));
    let own = filters()?;
    ensure!(own.is_empty() == more.is_empty(), "{own}");
    let program = site.xdp(WAN)?;
    let pid = format!("pid {}", daemon.pid());

    let same_pins = site.ctguard(&["run", "-i", WAN])?;
    ensure!(same_pins.refusal(1)?.contains(&pid), "{same_pins:?}");

    let other_pins = PathBuf::from("/run/ctguard/of-a-test");
    let second = ["run", "-i", WAN, "--pin-path", "/run/ctguard/of-a-test"];
    let same_interface = site.ctguard(&[&second[..], more].concat())?;
    let line = same_interface.refusal(1)?;
    let path = site.pins().to_string_lossy().into_owned();
    ensure!(line.contains(WAN) && line.contains(&pid) && line.contains(&path), "{line}");
    ensure!(!other_pins.exists(), "a refused start leaves no pins");

    let detached = site.ctguard(&["detach"])?;
    ensure!(detached.refusal(1)?.contains(&pid), "{detached:?}");

    ensure!(site.xdp(WAN)? == program, "the first guards on");
    ensure!(filters()? == own, "it watches what leaves: {own} then {}", filters()?);
    ensure!(site.number("/daemon/pid")? == u64::from(daemon.pid()));
    Ok(())
}

/// Fails when another's program is replaced, removed or not named, or when the start that met it
/// leaves anything.
#[test]
fn a_program_of_another_is_named_and_left_alone() -> Result<()> {
    if !require::root("a_program_of_another_is_named_and_left_alone") {
        return Ok(());
    }
    let site = Site::build()?;
    let _theirs = site.guarded().run(|| object::attach(Program::Pass, WAN))?;
    let id = site.xdp(WAN)?.context("the other's program")?;

    for mode in ["auto", "native", "generic"] {
        let answer = site.ctguard(&["run", "-i", WAN, "--mode", mode])?;
        let line = answer.refusal(1)?;
        ensure!(line.contains(WAN) && line.contains("lab_pass"), "--mode {mode}: {line}");
        ensure!(line.contains(&id.to_string()), "--mode {mode}: {line}");
        ensure!(site.xdp(WAN)? == Some(id), "it is still there");
        ensure!(!site.pins().exists(), "a refused start leaves no pins");
    }
    Ok(())
}

/// Fails when whoever allows an address right after a start is told to remove the guard.
#[test]
fn a_command_that_comes_during_a_start_is_told_to_wait() -> Result<()> {
    if !require::root("a_command_that_comes_during_a_start_is_told_to_wait") {
        return Ok(());
    }
    let site = Site::build()?;
    let daemon = site.start_into(&["run", "-i", WAN], Stdio::null())?;
    wait_for("the start", || {
        let answer = site.ctguard(&["allow", "add", "192.0.2.7"])?;
        if answer.code == Some(0) {
            return Ok(Some(()));
        }
        let line = answer.refusal(3)?;
        ensure!(line.contains("start one") || line.contains("is being started"), "{line}");
        Ok(None)
    })?;
    wait_for("the guard", || site.xdp(WAN))?;
    ensure!(daemon.stop()?.success());
    site.ensure_gone()
}

/// Fails when a restart finds the program of its predecessor, which the kernel takes off a little later,
/// loads for seconds, and then refuses because of what it found at first.
#[test]
fn a_program_that_goes_while_the_guard_is_loaded_is_not_in_its_way() -> Result<()> {
    if !require::root("a_program_that_goes_while_the_guard_is_loaded_is_not_in_its_way") {
        return Ok(());
    }
    let site = Site::build()?;
    let theirs = site.guarded().run(|| object::attach(Program::Pass, WAN))?;
    let daemon = site.start_into(&["run", "-i", WAN], Stdio::null())?;
    // It has read the interfaces by then.
    wait_for("its lock", || Ok(site.run_file("lock").exists().then_some(())))?;
    drop(theirs);
    wait_for("the guard", || Ok(site.xdp(WAN)?.filter(|_| site.status().is_ok())))?;
    ensure!(daemon.stop()?.success());
    site.ensure_gone()
}

/// Fails when a start that cannot guard all its interfaces guards some.
#[test]
fn of_two_interfaces_one_bad_means_neither() -> Result<()> {
    if !require::root("of_two_interfaces_one_bad_means_neither") {
        return Ok(());
    }
    let site = Site::build()?;
    site.connect("out1", LAN)?;
    let neither = |answer: &Answer, code: i32, named: &str| -> Result<()> {
        ensure!(answer.refusal(code)?.contains(named), "{answer:?}");
        ensure!(site.xdp(WAN)?.is_none(), "{WAN} is left alone: {answer:?}");
        ensure!(!site.qdiscs(WAN)?.contains("clsact"), "no filter is left: {answer:?}");
        ensure!(!site.pins().exists(), "no pins are left: {answer:?}");
        Ok(())
    };

    neither(&site.ctguard(&["run", "-i", WAN, "-i", "lo"])?, 2, "lo")?;
    let theirs = site.guarded().run(|| object::attach(Program::Pass, LAN))?;
    neither(&site.ctguard(&["run", "-i", WAN, "-i", LAN])?, 1, LAN)?;
    neither(&site.ctguard(&["run", "-i", WAN, "-i", LAN, "--egress-filter"])?, 1, LAN)?;
    drop(theirs);

    let daemon = site.start(&["run", "-i", WAN, "-i", LAN])?;
    ensure!(site.xdp(WAN)?.is_some() && site.xdp(LAN)?.is_some(), "both are guarded");
    let theirs = site.outside().run(|| object::attach(Program::Pass, "out1"))?;
    ensure!(daemon.stop()?.success());
    drop(theirs);
    ensure!(site.xdp(LAN)?.is_none(), "both are left");
    site.ensure_gone()
}

/// Fails when whoever would guard a port is not told which device above has a program.
#[test]
fn a_program_on_a_device_above_is_told_by_that_devices_name() -> Result<()> {
    const TEST: &str = "a_program_on_a_device_above_is_told_by_that_devices_name";
    if !require::root(TEST) {
        return Ok(());
    }
    let site = Site::build()?;
    site.guarded().ip(&[
        format!("link add link {WAN} name mac0 type macvlan mode bridge"),
        "link set mac0 up".to_owned(),
    ])?;
    let theirs = site.guarded().run(|| object::attach_in(XdpMode::Skb, Program::Pass, "mac0"))?;
    let answer = site.ctguard(&["run", "-i", WAN])?;
    let line = answer.refusal(1)?;
    ensure!(line.contains(&format!("mac0, a device above {WAN}, has an XDP program")), "{line}");
    let found = site.ctguard(&["doctor", "-i", WAN])?;
    ensure!(found.out.contains("mac0, a device above"), "{found:?}");
    drop(theirs);
    ensure!(site.guard()?.stop()?.success());
    site.ensure_gone()
}

/// Fails when a command reads or changes a guard of another release, or does not say what replaces it, or
/// when it cannot be removed.
#[test]
fn commands_leave_maps_of_another_release_alone() -> Result<()> {
    if !require::root("commands_leave_maps_of_another_release_alone") {
        return Ok(());
    }
    let site = Site::build()?;
    site.guard()?.kill()?;
    let pinned = site.pins().join("policy").to_string_lossy().into_owned();
    set_first_word(&pinned, 999)?;
    let verbs: [&[&str]; 5] = [
        &["status"],
        &["get"],
        &["set", "target=50%"],
        &["deny", "add", "192.0.2.1"],
        &["allow", "list"],
    ];
    for verb in verbs {
        let answer = site.ctguard(verb)?;
        let line = answer.refusal(6).with_context(|| verb.join(" "))?;
        ensure!(line.contains("999") && line.contains("layout"), "{verb:?}: {line}");
        ensure!(line.contains("ctguard run"), "{verb:?}: {line}");
        ensure!(site.xdp(WAN)?.is_some(), "{verb:?} leaves the program alone");
    }
    site.succeed(&["detach"])?;
    site.ensure_gone()
}

/// Changes the layout's version in a pinned policy map.
fn set_first_word(pinned: &str, word: u32) -> Result<()> {
    let map = aya::maps::MapData::from_pin(pinned)?;
    let size = usize::try_from(map.info()?.value_size())?;
    ensure!(size == size_of::<ctguard_layout::Policy>(), "a policy of {size} bytes");
    let mut array: aya::maps::Array<_, [u8; size_of::<ctguard_layout::Policy>()]> =
        aya::maps::Map::Array(map).try_into()?;
    let mut policy = array.get(&0, 0)?;
    policy[..4].copy_from_slice(&word.to_ne_bytes());
    Ok(array.set(0, policy, 0)?)
}

/// Fails when `--mode native` quietly falls back, `--mode generic` is not honoured, or a veth is guarded in
/// native mode unasked (see `a_challenged_container_gets_the_answer_to_its_syn`).
#[test]
fn the_mode_that_was_asked_for_is_the_mode_in_use() -> Result<()> {
    if !require::root("the_mode_that_was_asked_for_is_the_mode_in_use") {
        return Ok(());
    }
    let site = Site::build()?;
    for (asked, used) in [("auto", "generic"), ("native", "native"), ("generic", "generic")] {
        let daemon = site.start(&["run", "-i", WAN, "--mode", asked])?;
        let status = site.status()?;
        ensure!(
            status.pointer("/interfaces/0/mode") == Some(&used.into()),
            "--mode {asked}: {status}"
        );
        let shown = exec::run(site.guarded().command("ip").args(["link", "show", WAN]))?;
        let generic = shown.contains("xdpgeneric");
        ensure!(generic == (used == "generic"), "--mode {asked}: {shown}");
        ensure!(daemon.stop()?.success());
    }
    Ok(())
}
