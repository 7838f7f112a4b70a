//! Interfaces that are named and come later than the daemon.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use ctguard_layout::{Environment, maps};
use ctguard_tests::{
    daemon::Daemon,
    object::{self, Program},
    product::{Site, WAN, wait_for},
    require,
};
use serde_json::Value;
use tempfile::TempDir;

use super::takeover::values;

const LATE: &str = "late0";
const VLAN: &str = "wan0.20";

/// A configuration that a daemon reads.
struct File(TempDir);

impl File {
    fn new(text: &str) -> Result<Self> {
        let file = Self(tempfile::tempdir()?);
        file.write(text)?;
        Ok(file)
    }

    fn write(&self, text: &str) -> Result<()> {
        Ok(fs::write(self.path()?, text)?)
    }

    fn path(&self) -> Result<String> {
        let path = self.0.path().join("ctguard.toml");
        Ok(path.to_str().context("a path")?.to_owned())
    }

    fn start(&self, site: &Site, more: &[&str]) -> Result<Daemon> {
        site.start(&[&["run", "--config", &self.path()?], more].concat())
    }

    /// What a reload would change.
    fn difference(&self, site: &Site) -> Result<String> {
        let state = site.state();
        let state = state.to_str().context("a path")?;
        let answer = site.ctguard(&["config", "diff", &self.path()?, "--state", state])?;
        ensure!((answer.code == Some(0)) == answer.out.is_empty(), "{answer:?}");
        Ok(answer.out)
    }
}

/// A VLAN on the guarded interface; where the kernel has none, a macvlan, which leads to its device as well.
fn add_vlan(site: &Site, number: u32) -> Result<()> {
    let add = |kind: &str| {
        site.guarded().ip(&[format!("link add link {WAN} name {WAN}.{number} type {kind}")])
    };
    add(&format!("vlan id {number}")).or_else(|_| add("macvlan mode bridge"))
}

/// The names that are waited for, and why those are not guarded that are there.
fn waiting(site: &Site) -> Result<Vec<(String, Option<String>)>> {
    let status = site.status()?;
    let waiting = status.pointer("/waiting").and_then(Value::as_array).context("a list")?;
    let text = |it: &Value, key| it.get(key).and_then(Value::as_str).map(str::to_owned);
    Ok(waiting
        .iter()
        .map(|it| (text(it, "name").unwrap_or_default(), text(it, "obstacle")))
        .collect())
}

fn wait_until_none_is_waited_for(site: &Site) -> Result<()> {
    wait_for("the end of waiting", || Ok(waiting(site)?.is_empty().then_some(())))
}

fn guarded(site: &Site) -> Result<Vec<String>> {
    let status = site.status()?;
    let interfaces = status.pointer("/interfaces").and_then(Value::as_array).context("a list")?;
    let name = |it: &Value| it.get("name").and_then(Value::as_str).map(str::to_owned);
    Ok(interfaces.iter().filter_map(name).collect())
}

/// Fails when nothing is guarded because an interface comes late, when nobody is told, or when it is then not
/// guarded with its own settings; or when a reload unguards the device of a VLAN that came late.
#[test]
fn an_interface_that_comes_late_is_waited_for_and_guarded_when_it_comes() -> Result<()> {
    if !require::root("an_interface_that_comes_late_is_waited_for_and_guarded_when_it_comes") {
        return Ok(());
    }
    let site = Site::build()?;
    add_vlan(&site, 10)?;
    let own = format!("interface.{LATE}.source.udp.burst");
    let names = format!("\"{WAN}\", \"wan0.10\", \"{VLAN}\", \"{LATE}\"");
    let file = File::new(&format!("interfaces = [{names}]\n{own} = 3\n"))?;
    let daemon = file.start(&site, &[])?;
    let said =
        "no interface is called wan0.20 or late0; guarding each when it appears; there are: ";
    ensure!(daemon.log()?.contains(said), "{}", daemon.log()?);
    ensure!(site.succeed(&["events"])?.contains(said));
    let [xdp, _] = site.links(WAN)?;
    for shown in [site.succeed(&["status"])?, site.ctguard(&["doctor"])?.out] {
        ensure!(shown.contains("waiting wan0.20 (not there yet)"), "{shown}");
        ensure!(shown.contains("waiting late0 (not there yet)"), "{shown}");
    }
    let metric = "ctguard_interface_attached{interface=\"late0\",mode=\"none\"} 0";
    ensure!(site.succeed(&["metrics"])?.contains(metric));
    ensure!(file.difference(&site)?.is_empty(), "what is waited for is no difference");
    ensure!(site.succeed(&["reload"])?.contains("nothing changes"));

    add_vlan(&site, 20)?;
    wait_for("the VLAN", || Ok((waiting(&site)?.len() == 1).then_some(())))?;
    ensure!(site.succeed(&["events"])?.contains("wan0.20 is there; it is guarded at wan0"));
    ensure!(file.difference(&site)?.is_empty());
    ensure!(site.succeed(&["reload"])?.contains("nothing changes"));
    ensure!(site.links(WAN)?[0].id() == xdp.id(), "its device stays guarded");

    site.connect("outlate0", LATE)?;
    wait_for("the program on the late interface", || site.xdp(LATE))?;
    wait_until_none_is_waited_for(&site)?;
    ensure!(site.succeed(&["get", &own])?.trim() == "3", "its settings");
    let events = site.succeed(&["events"])?;
    ensure!(events.contains("late0 is there; guarding it"), "{events}");
    ensure!(!events.contains("guarding late0 again"), "it was never there: {events}");
    ensure!(file.difference(&site)?.is_empty());

    // From here on it goes and comes like any other.
    site.guarded().ip(&[format!("link del {LATE}")])?;
    wait_for("its end in the events", || {
        Ok(site.succeed(&["events"])?.contains("late0 is gone; waiting for it").then_some(()))
    })?;
    ensure!(waiting(&site)?.is_empty());
    site.connect("outlate0", LATE)?;
    wait_for("the program on the new one", || site.xdp(LATE))?;
    ensure!(site.succeed(&["events"])?.contains("guarding late0 again"));
    ensure!(daemon.stop()?.success());
    ensure!(site.xdp(LATE)?.is_none());
    site.ensure_gone()
}

/// Fails when a daemon lets go of a live device because the name that led to it is missing when it starts.
#[test]
fn a_start_over_a_guard_keeps_the_device_of_a_name_that_is_missing() -> Result<()> {
    if !require::root("a_start_over_a_guard_keeps_the_device_of_a_name_that_is_missing") {
        return Ok(());
    }
    let site = Site::build()?;
    site.connect("out1", "lan0")?;
    add_vlan(&site, 20)?;
    let own = format!("interface.{WAN}.source.udp.burst");
    let named =
        |names: &str| format!("interfaces = [{names}]\n[interface.{WAN}.source.udp]\nburst = 3\n");
    let file = File::new(&named("\"wan0.20\", \"lan0\""))?;
    ensure!(file.start(&site, &["--on-exit", "keep"])?.stop()?.success());
    let [xdp, _] = site.links(WAN)?;
    site.guarded().ip(&[format!("link del {VLAN}")])?;

    // A command line may name the missing VLAN too, but not mistype it.
    let mistyped = site.ctguard(&["run", "-i", "wna0.20"])?;
    ensure!(mistyped.refusal(2)?.contains("there is no interface wna0.20"), "{mistyped:?}");
    let daemon = site.start(&["run", "-i", VLAN, "--on-exit", "keep"])?;
    ensure!(site.links(WAN)?[0].id() == xdp.id(), "{}", daemon.log()?);
    ensure!(waiting(&site)? == [(VLAN.to_owned(), None)]);
    ensure!(daemon.stop()?.success());

    // The second time nobody knows why the device was guarded, as after an upgrade.
    for is_known in [true, false] {
        if !is_known {
            fs::remove_file(site.run_file("interfaces.json"))?;
        }
        let daemon = file.start(&site, &["--on-exit", "keep"])?;
        ensure!(site.links(WAN)?[0].id() == xdp.id(), "{}", daemon.log()?);
        ensure!(guarded(&site)? == ["wan0", "lan0"] || guarded(&site)? == ["lan0", "wan0"]);
        ensure!(waiting(&site)? == [(VLAN.to_owned(), None)]);
        ensure!(site.succeed(&["get", &own])?.trim() == "3", "its settings stay");
        ensure!(site.succeed(&["reload"])?.contains("nothing changes"));
        ensure!(file.difference(&site)?.is_empty());
        ensure!(site.links(WAN)?[0].id() == xdp.id());
        ensure!(daemon.stop()?.success());
    }

    let daemon = file.start(&site, &[])?;
    add_vlan(&site, 20)?;
    wait_until_none_is_waited_for(&site)?;
    ensure!(site.succeed(&["reload"])?.contains("nothing changes"));
    ensure!(site.links(WAN)?[0].id() == xdp.id());

    // What nobody names any more goes though another name is waited for.
    file.write(&named("\"wan0.20\", \"late0\""))?;
    ensure!(file.difference(&site)?.contains("no longer guarding lan0"));
    let said = site.succeed(&["reload"])?;
    ensure!(said.contains("no longer guarding lan0"), "{said}");
    ensure!(said.contains("waiting for late0: it is not there"), "{said}");
    file.write(&named("\"wan0.20\""))?;
    ensure!(file.difference(&site)? == "no longer waiting for late0\n");
    ensure!(site.succeed(&["reload"])? == "no longer waiting for late0\n");
    ensure!(waiting(&site)?.is_empty());
    ensure!(site.xdp("lan0")?.is_none() && site.xdp(WAN)?.is_some());
    ensure!(daemon.stop()?.success());
    site.ensure_gone()
}

/// Fails when a reload refuses a name for which a start waits, when what is waited for is a difference for
/// ever, or when a section of the device under a late VLAN is a mistake.
#[test]
fn a_reload_waits_for_a_name_as_a_start_does() -> Result<()> {
    if !require::root("a_reload_waits_for_a_name_as_a_start_does") {
        return Ok(());
    }
    let site = Site::build()?;
    site.connect("out1", "lan0")?;
    let file = File::new("interfaces = [\"lan0\"]\n")?;
    let daemon = file.start(&site, &[])?;
    let answers = || -> Result<Vec<u8>> {
        let bytes = values::<{ size_of::<Environment>() }>(&site, maps::ENVIRONMENT, 1)?;
        let at = std::mem::offset_of!(Environment, daemon)
            + std::mem::offset_of!(ctguard_layout::DaemonFacts, answers);
        Ok(bytes[at..at + 4].to_vec())
    };
    let before = wait_for("how many answers fit onto the links", || {
        let answers = answers()?;
        Ok((answers != [0; 4]).then_some(answers))
    })?;
    let late =
        format!("interfaces = [\"lan0\", \"{VLAN}\"]\n[interface.{WAN}.source.udp]\nburst = 3\n");
    file.write(&late)?;
    ensure!(file.difference(&site)?.contains("waiting for wan0.20: it is not there"));
    let reloaded = site.succeed(&["reload"])?;
    ensure!(reloaded.contains("waiting for wan0.20: it is not there"), "{reloaded}");
    ensure!(daemon.log()?.contains("no interface is called wan0.20; guarding it when it appears"));
    ensure!(file.difference(&site)?.is_empty(), "what is waited for is no difference");
    ensure!(site.succeed(&["reload"])?.contains("nothing changes"));
    std::thread::sleep(Duration::from_millis(2500));
    ensure!(answers()? == before, "it carries nothing yet");
    let checked = site.ctguard(&["config", "check", &file.path()?])?;
    ensure!(checked.code == Some(0), "{checked:?}");
    ensure!(
        checked.errors.contains("interface wan0 is not guarded; its settings take effect only if")
    );

    add_vlan(&site, 20)?;
    wait_for("the program on the VLAN's device", || site.xdp(WAN))?;
    wait_until_none_is_waited_for(&site)?;
    let burst = format!("interface.{WAN}.source.udp.burst");
    ensure!(site.succeed(&["get", &burst])?.trim() == "3", "the device's settings");
    ensure!(file.difference(&site)?.is_empty());
    ensure!(daemon.stop()?.success());
    site.ensure_gone()?;

    // The same file at a start.
    site.guarded().ip(&[format!("link del {VLAN}")])?;
    let daemon = file.start(&site, &[])?;
    ensure!(guarded(&site)? == ["lan0"], "{}", daemon.log()?);
    ensure!(
        daemon.log()?.contains("interface wan0 is not guarded; its settings take effect only if")
    );
    add_vlan(&site, 20)?;
    wait_for("the program on the VLAN's device", || site.xdp(WAN))?;
    ensure!(site.succeed(&["get", &burst])?.trim() == "3", "the device's settings");
    file.write("interfaces = [\"lan0\"]\n")?;
    ensure!(site.succeed(&["reload"])?.contains("no longer guarding wan0"));
    ensure!(daemon.stop()?.success());
    site.ensure_gone()
}

/// Fails when an interface that comes and cannot be guarded is passed over without a word, or said again and
/// again, or when it leaves a slot behind.
#[test]
fn one_that_comes_and_cannot_be_guarded_says_why_once() -> Result<()> {
    if !require::root("one_that_comes_and_cannot_be_guarded_says_why_once") {
        return Ok(());
    }
    let site = Site::build()?;
    let daemon = site.start(&["run", "-i", WAN, "-i", LATE])?;
    site.guarded().ip(&[format!("link add {LATE} type bridge")])?;
    let obstacle = || Ok(waiting(&site)?.into_iter().find_map(|(_, obstacle)| obstacle));
    let why = wait_for("the reason", obstacle)?;
    ensure!(why.contains("late0 is a bridge"), "{why}");
    let shown = site.succeed(&["status"])?;
    ensure!(shown.contains("waiting late0 (cannot be guarded: late0 is a bridge"), "{shown}");
    site.connect("outother0", "other0")?;
    std::thread::sleep(Duration::from_secs(2));
    let said = "late0 is there and cannot be guarded: late0 is a bridge";
    ensure!(daemon.log()?.matches(said).count() == 1, "{}", daemon.log()?);
    ensure!(site.succeed(&["events"])?.matches(said).count() == 1);
    site.guarded().ip(&[format!("link del {LATE}")])?;
    wait_for("its end", || Ok(obstacle()?.is_none().then_some(())))?;

    // Somebody else's program is in the way.
    site.connect("outlate0", "tmp0")?;
    let theirs = site.guarded().run(|| object::attach(Program::Pass, "tmp0"))?;
    site.guarded().ip(&[
        "link set tmp0 down".to_owned(),
        format!("link set tmp0 name {LATE}"),
        format!("link set {LATE} up"),
    ])?;
    let why = wait_for("the reason", obstacle)?;
    ensure!(guarded(&site)? == [WAN], "no slot is left: {why}");
    std::thread::sleep(Duration::from_secs(2));
    let said = "late0 is there and cannot be guarded";
    ensure!(daemon.log()?.matches(said).count() == 2, "{}", daemon.log()?);
    ensure!(guarded(&site)? == [WAN]);
    drop(theirs);
    wait_until_none_is_waited_for(&site)?;
    ensure!(site.xdp(LATE)?.is_some() && guarded(&site)?.len() == 2);

    // The name of one that was guarded comes back as one that cannot be.
    site.guarded().ip(&[format!("link del {LATE}"), format!("link add {LATE} type bridge")])?;
    wait_for("the reason", || {
        let log = daemon.log()?;
        let mut lines = log.lines();
        let said = "cannot guard late0 again, so it is open to floods: late0 is a bridge";
        Ok(lines.any(|line| line.contains(said)).then_some(()))
    })?;
    ensure!(daemon.stop()?.success());
    site.ensure_gone()
}

/// Fails when a daemon does not start again, or reads no configuration again, because of an interface that it
/// tolerated while it ran.
#[test]
fn what_a_running_daemon_tolerates_fails_no_start_and_no_reload() -> Result<()> {
    if !require::root("what_a_running_daemon_tolerates_fails_no_start_and_no_reload") {
        return Ok(());
    }
    let site = Site::build()?;
    site.guarded().ip(&[format!("link add {LATE} type bridge")])?;
    site.connect("outother0", "other0")?;
    let theirs = site.guarded().run(|| object::attach(Program::Pass, "other0"))?;
    let file = File::new(&format!("interfaces = [\"{WAN}\", \"{LATE}\", \"other0\"]\n"))?;
    for _ in 0..2 {
        let daemon = file.start(&site, &["--on-exit", "keep"])?;
        let log = daemon.log()?;
        ensure!(log.contains("late0 is there and cannot be guarded: late0 is a bridge"), "{log}");
        ensure!(log.contains("other0 is there and cannot be guarded"), "{log}");
        ensure!(!log.contains("no interface is called"), "{log}");
        ensure!(guarded(&site)? == [WAN], "no slot is left: {log}");
        ensure!(waiting(&site)?.iter().all(|(_, obstacle)| obstacle.is_some()));
        ensure!(waiting(&site)?.len() == 2);
        ensure!(site.succeed(&["reload"])?.contains("nothing changes"));
        ensure!(file.difference(&site)?.is_empty());
        ensure!(daemon.stop()?.success());
    }

    let daemon = file.start(&site, &[])?;
    drop(theirs);
    wait_for("the program on the other interface", || site.xdp("other0"))?;
    site.guarded().ip(&["link add br1 type bridge".to_owned()])?;
    file.write(&format!("interfaces = [\"{WAN}\", \"{LATE}\", \"other0\", \"br1\"]\n"))?;
    let refused = site.ctguard(&["reload"])?;
    ensure!(refused.refusal(78)?.contains("br1 is a bridge"), "{refused:?}");
    ensure!(daemon.stop()?.success());
    site.ensure_gone()?;

    // Nothing is left that could be guarded.
    file.write(&format!("interfaces = [\"{LATE}\"]\n"))?;
    let refused = site.ctguard(&["run", "--config", &file.path()?])?;
    ensure!(refused.refusal(2)?.contains("late0 is a bridge"), "{refused:?}");
    ensure!(!Path::new(site.pins()).exists());
    Ok(())
}

/// Fails when a daemon that has nothing to guard yet does not start, or leaves anything behind.
#[test]
fn a_daemon_that_guards_nothing_yet_waits_and_leaves_nothing_behind() -> Result<()> {
    if !require::root("a_daemon_that_guards_nothing_yet_waits_and_leaves_nothing_behind") {
        return Ok(());
    }
    let site = Site::build()?;
    let file = File::new(&format!("interfaces = [\"{LATE}\", \"{VLAN}\"]\n"))?;
    let daemon = file.start(&site, &[])?;
    ensure!(daemon.log()?.contains("guarding nothing yet, table "), "{}", daemon.log()?);
    ensure!(waiting(&site)?.len() == 2 && guarded(&site)?.is_empty());
    ensure!(daemon.stop()?.success());
    site.ensure_gone()?;

    let daemon = file.start(&site, &[])?;
    add_vlan(&site, 20)?;
    wait_for("the program on the VLAN's device", || site.xdp(WAN))?;
    ensure!(waiting(&site)? == [(LATE.to_owned(), None)]);
    ensure!(daemon.stop()?.success());
    site.ensure_gone()?;

    // On a command line a name that is the only one may be mistyped.
    let refused = site.ctguard(&["run", "-i", LATE])?;
    ensure!(refused.refusal(2)?.contains("there is no interface late0; there are wan0"));
    ensure!(!Path::new(site.pins()).exists());
    Ok(())
}

/// Fails when a device that gets the missing name besides its own, or instead of it, is lost at a reload.
#[test]
fn a_guarded_device_that_gets_the_name_that_is_waited_for_stays_guarded() -> Result<()> {
    if !require::root("a_guarded_device_that_gets_the_name_that_is_waited_for_stays_guarded") {
        return Ok(());
    }
    let site = Site::build()?;
    let file = File::new(&format!("interfaces = [\"{WAN}\", \"uplink\", \"dsl0\"]\n"))?;
    let daemon = file.start(&site, &[])?;
    let [xdp, _] = site.links(WAN)?;
    site.guarded().ip(&[format!("link property add dev {WAN} altname uplink")])?;
    wait_for("the other name", || Ok((waiting(&site)?.len() == 1).then_some(())))?;
    ensure!(site.succeed(&["reload"])?.contains("nothing changes"));
    file.write("interfaces = [\"uplink\", \"dsl0\"]\n")?;
    ensure!(site.succeed(&["reload"])?.contains("nothing changes"));
    site.guarded().ip(&[
        format!("link set {WAN} down"),
        format!("link set {WAN} name dsl0"),
        "link set dsl0 up".to_owned(),
    ])?;
    wait_until_none_is_waited_for(&site)?;
    file.write("interfaces = [\"dsl0\"]\n")?;
    ensure!(site.succeed(&["reload"])?.contains("nothing changes"));
    ensure!(site.links("dsl0")?[0].id() == xdp.id(), "by the same link");
    ensure!(daemon.stop()?.success());
    ensure!(site.xdp("dsl0")?.is_none() && !site.pins().exists());
    Ok(())
}
