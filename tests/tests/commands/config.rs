//! `config`, `reload` and `save`, and what a start finds.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    daemon::Daemon,
    product::{self, Site, WAN, answer, wait_for},
    require,
};
use tempfile::TempDir;

const LISTED: &str = "192.0.2.1/32";
const ADDED: &str = "198.51.100.0/24";

struct Files(TempDir);

impl Files {
    fn new(main: &str) -> Result<Self> {
        let files = Self(tempfile::tempdir()?);
        fs::create_dir(files.0.path().join("conf.d"))?;
        files.write(main)?;
        Ok(files)
    }

    fn write(&self, main: &str) -> Result<()> {
        Ok(fs::write(self.path(), main)?)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("ctguard.toml")
    }

    fn name(&self) -> String {
        self.path().display().to_string()
    }

    fn start(&self, site: &Site) -> Result<Daemon> {
        site.start(&["run", "--config", &self.name()])
    }
}

fn reload(site: &Site) -> Result<String> {
    site.succeed(&["reload"])
}

fn get(site: &Site, key: &str) -> Result<String> {
    Ok(site.succeed(&["get", key])?.trim().to_owned())
}

fn listed(site: &Site, list: &str) -> Result<String> {
    site.succeed(&[list, "list"])
}

#[test]
fn a_reload_brings_all_to_what_the_files_say_and_a_mistake_changes_nothing() -> Result<()> {
    if !require::root("a_reload_brings_all_to_what_the_files_say_and_a_mistake_changes_nothing") {
        return Ok(());
    }
    let site = Site::build()?;
    let files = Files::new(&format!(
        "interfaces = [\"{WAN}\"]\ntarget = \"80%\"\nallow = [\"{LISTED}\"]\n\
         [interface.{WAN}]\nanswer = false\n"
    ))?;
    let _daemon = files.start(&site)?;
    ensure!(get(&site, "target")? == "80%" && get(&site, "interface.wan0.answer")? == "off");
    ensure!(listed(&site, "allow")?.contains(LISTED));

    site.succeed(&["set", "target=70%", "source.tcp.rate=9/s"])?;
    site.succeed(&["allow", "add", ADDED])?;
    let next = format!("interfaces = [\"{WAN}\"]\ntarget = \"60%\"\ndeny = [\"203.0.113.0/24\"]\n");
    files.write(&next)?;
    let state = site.state();
    let state = state.to_str().context("a path")?;
    let diff = site.ctguard(&["config", "diff", &files.name(), "--state", state])?;
    ensure!(diff.code == Some(1), "{diff:?}");
    let said = reload(&site)?;
    ensure!(said == diff.out, "it is told before what a reload changes: {said}{diff:?}");
    for line in [
        "target 70% → 60%",
        "source.tcp.rate 9/s → 50/s",
        "interface.wan0.answer off → on",
        "allow - 192.0.2.1/32",
        "deny + 203.0.113.0/24",
    ] {
        ensure!(said.lines().any(|own| own == line), "{line} is not in {said}");
    }
    ensure!(get(&site, "target")? == "60%" && get(&site, "source.tcp.rate")? == "50/s");
    let allowed = listed(&site, "allow")?;
    ensure!(!allowed.contains(LISTED) && allowed.contains(ADDED), "{allowed}");
    ensure!(listed(&site, "deny")?.contains("203.0.113.0/24"));
    ensure!(reload(&site)? == "nothing changes\n");
    site.succeed(&["deny", "del", "203.0.113.0/24"])?;
    ensure!(reload(&site)? == "deny + 203.0.113.0/24\n", "it is denied again");
    ensure!(listed(&site, "deny")?.contains("203.0.113.0/24"));

    files.write(&format!("{next}[source.tcp]\nbrust = 5\n"))?;
    let refused = site.ctguard(&["reload"])?;
    let line = refused.refusal(78)?;
    ensure!(
        line.contains("ctguard.toml:5:1: unknown key source.tcp.brust, did you mean"),
        "{line}"
    );
    files.write("target = \"50%\"\ninterfaces = [\"wan0\", \"lo\"]\n")?;
    let refused = site.ctguard(&["reload"])?;
    ensure!(refused.refusal(78)?.contains("lo is the loopback device"), "{refused:?}");
    ensure!(get(&site, "target")? == "60%");
    // One more than a list takes, with what was added.
    let many: Vec<_> = (0..4096).map(|it| format!("\"10.9.{}.{}\"", it >> 8, it & 255)).collect();
    files.write(&format!("{next}allow = [{}]\n", many.join(", ")))?;
    let refused = site.ctguard(&["reload"])?;
    ensure!(refused.refusal(78)?.contains("allow would have 4097 prefixes"), "{refused:?}");
    ensure!(listed(&site, "allow")? == allowed, "nothing was changed");
    files.write(&format!("{next}allow = [{}]\n", many[1..].join(", ")))?;
    let said = reload(&site)?;
    ensure!(said.contains("and 4075 more like the last"), "{said}");
    let told = site.succeed(&["events"])?;
    ensure!(told.contains("configuration read again: ") && told.contains("not used"), "{told}");
    Ok(())
}

#[test]
fn a_reload_guards_new_interfaces_and_releases_former_ones() -> Result<()> {
    if !require::root("a_reload_guards_new_interfaces_and_releases_former_ones") {
        return Ok(());
    }
    let site = Site::build()?;
    site.connect("outer1", "wan1")?;
    let files = Files::new(&format!("interfaces = [\"{WAN}\"]\n"))?;
    let _daemon = site.start(&["run", "--config", &files.name(), "--mode", "auto"])?;
    let program = site.xdp(WAN)?.context("it is guarded")?;

    // A macvlan is guarded through the device below.
    site.guarded().ip(&[format!("link add link {WAN} name above0 type macvlan")])?;
    files.write(&format!("interfaces = [\"{WAN}\", \"above0\", \"{WAN}\"]\n"))?;
    ensure!(site.ctguard(&["config", "diff", &files.name()])?.out.is_empty());
    ensure!(reload(&site)? == "nothing changes\n");
    // The command line says the mode.
    files.write(&format!("interfaces = [\"{WAN}\"]\nmode = \"generic\"\non-exit = \"keep\"\n"))?;
    ensure!(reload(&site)? == "on-exit = keep at the next start\n");
    files.write(&format!("interfaces = [\"{WAN}\"]\n"))?;
    ensure!(reload(&site)? == "on-exit = detach at the next start\n");

    files.write(&format!("interfaces = [\"{WAN}\", \"wan1\"]\ninterface.wan1.zone = 0\n"))?;
    ensure!(reload(&site)? == "guarding wan1\n");
    ensure!(site.xdp(WAN)? == Some(program), "the first keeps its program");
    ensure!(site.xdp("wan1")?.is_some());
    ensure!(get(&site, "interface.wan1.answer")? == "on");

    files.write("interfaces = [\"wan1\"]\n")?;
    ensure!(reload(&site)? == "no longer guarding wan0\n");
    ensure!(site.xdp(WAN)?.is_none() && site.xdp("wan1")?.is_some());
    ensure!(site.status()?["interfaces"].as_array().is_some_and(|all| all.len() == 1));
    Ok(())
}

#[test]
fn lists_and_settings_outlive_a_reboot_and_a_damaged_file() -> Result<()> {
    if !require::root("lists_and_settings_outlive_a_reboot_and_a_damaged_file") {
        return Ok(());
    }
    let site = Site::build()?;
    let files = Files::new(&format!(
        "interfaces = [\"{WAN}\"]\ntarget = \"80%\"\nallow = [\"{LISTED}\"]\n"
    ))?;
    let daemon = files.start(&site)?;
    site.succeed(&["allow", "add", ADDED])?;
    site.succeed(&["deny", "add", "203.0.113.7", "--for", "1h"])?;
    wait_for("the lists to be kept", || {
        let kept = fs::read_to_string(kept_lists(&site)?).unwrap_or_default();
        ensure!(!kept.contains(LISTED), "the configuration has it: {kept}");
        Ok((kept.contains(ADDED) && kept.contains("203.0.113.7/32")).then_some(()))
    })?;
    // As a reboot does: all pins are gone.
    daemon.stop()?;
    site.ensure_gone()?;

    for damaged in ["interfaces = [\"wan", "interfaces = [\"wan0\"]\ninterface.wna0.zone = 5\n"] {
        files.write(damaged)?;
        let daemon = files.start(&site)?;
        ensure!(get(&site, "target")? == "80%", "the last good one, instead of {damaged}");
        daemon.stop()?;
    }
    // Another file may be meant to drop nothing, and the last good one drops.
    let other = format!("{}l", files.name());
    let refuses = |what: &str| -> Result<()> {
        let answer = site.ctguard(&["run", "--config", &other])?;
        ensure!(answer.code.is_some_and(|code| code != 0), "{what}: {answer:?}");
        ensure!(answer.errors.contains("ctguard.tomll"), "{what}: {answer:?}");
        Ok(())
    };
    refuses("missing")?;
    fs::write(&other, "interfaces = [\"wan")?;
    refuses("damaged")?;
    let daemon = files.start(&site)?;
    let allowed = listed(&site, "allow")?;
    ensure!(allowed.contains(LISTED) && allowed.contains(ADDED), "{allowed}");
    let denied = listed(&site, "deny")?;
    ensure!(denied.contains("203.0.113.7") && !denied.contains("never"), "{denied}");
    let allowed = site.succeed(&["allow", "add", "203.0.113.7"])?;
    ensure!(allowed.ends_with("goes first: ctguard deny del 203.0.113.7/32\n"), "{allowed}");
    site.succeed(&["allow", "del", "203.0.113.7"])?;

    // What was added just before the end is kept.
    site.succeed(&["allow", "add", "198.51.101.0/24"])?;
    daemon.stop()?;
    let daemon = files.start(&site)?;
    ensure!(listed(&site, "allow")?.contains("198.51.101.0/24"));

    // A guard that is taken over forgets what the files no longer list.
    daemon.kill()?;
    files.write(&format!("interfaces = [\"{WAN}\"]\n"))?;
    let _daemon = files.start(&site)?;
    let allowed = listed(&site, "allow")?;
    ensure!(!allowed.contains(LISTED) && allowed.contains(ADDED), "{allowed}");
    ensure!(get(&site, "target")? == "85%");
    Ok(())
}

/// The file that the daemon keeps lists in.
fn kept_lists(site: &Site) -> Result<PathBuf> {
    let entries = fs::read_dir(site.state())?.collect::<Result<Vec<_>, _>>()?;
    let names = entries.iter().map(fs::DirEntry::path);
    let lists = names.filter(|path| path.extension().is_some_and(|end| end == "jsonl"));
    let mut lists = lists.filter(|path| path.to_string_lossy().contains("lists-"));
    Ok(lists.next().unwrap_or_default())
}

#[test]
fn what_is_saved_is_what_a_reload_finds() -> Result<()> {
    if !require::root("what_is_saved_is_what_a_reload_finds") {
        return Ok(());
    }
    let site = Site::build()?;
    let files = Files::new(&format!("# ours\ninterfaces = [\"{WAN}\"]\ntarget = \"80%\"\n"))?;
    let (path, saved) = (files.name(), files.0.path().join("conf.d/90-saved.toml"));
    let _daemon = files.start(&site)?;
    let diff = site.ctguard(&["config", "diff", &path])?;
    ensure!(diff.code == Some(0) && diff.out.is_empty(), "{diff:?}");

    site.succeed(&["set", "target=70%", "source.tcp.rate=9/s", "interface.wan0.answer=off"])?;
    site.succeed(&["allow", "add", ADDED])?;
    let diff = site.ctguard(&["config", "diff", &path])?;
    ensure!(diff.code == Some(1) && diff.out.contains("target 70% → 80%"), "{diff:?}");
    site.succeed(&["save", "--config", &path])?;
    let text = fs::read_to_string(&saved)?;
    for part in ["target = \"70%\"", "[source.tcp]\nrate = \"9/s\"", "[interface.wan0]", ADDED] {
        ensure!(text.contains(part), "{part} is not in {text}");
    }
    ensure!(fs::read_to_string(files.path())?.starts_with("# ours"), "the other file stays");
    ensure!(reload(&site)? == format!("allow + {ADDED}\n"), "it is the configuration's now");
    ensure!(site.succeed(&["save", "--config", &path])?.is_empty(), "nothing is left to save");

    // Two files list it, and only one of them is written.
    files.write(&format!("interfaces = [\"{WAN}\"]\ntarget = \"80%\"\nallow = [\"{ADDED}\"]\n"))?;
    site.succeed(&["allow", "del", ADDED])?;
    let saving = site.ctguard(&["save", "--config", &path])?;
    ensure!(saving.out == format!("allow - {ADDED}\n"), "{saving:?}");
    let warning = format!("ctguard.toml:3:10 lists {ADDED}; remove it there");
    ensure!(saving.errors.contains(&warning), "{saving:?}");
    let shown = site.succeed(&["config", "show", "--origin", &path])?;
    let target = format!("target 70%  ({}:", saved.display());
    ensure!(shown.contains(&target) && shown.contains("dry-run off  (default)"), "{shown}");
    Ok(())
}

/// Fails when a check calls a file usable that a reload refuses.
#[test]
fn a_check_refuses_an_interface_that_a_reload_refuses() -> Result<()> {
    if !require::root("a_check_refuses_an_interface_that_a_reload_refuses") {
        return Ok(());
    }
    let site = Site::build()?;
    site.guarded().ip(&["link add br0 type bridge".to_owned()])?;
    let files = Files::new(&format!("interfaces = [\"{WAN}\"]\n"))?;
    let daemon = files.start(&site)?;
    files.write(&format!("interfaces = [\"{WAN}\", \"br0\"]\n"))?;
    let why = "br0 is a bridge, which XDP guards badly";
    let check = || site.ctguard(&["config", "check", &files.name()]);
    let checked = check()?;
    let line = checked.refusal(78)?;
    ensure!(line.contains("ctguard.toml:1:1: ") && line.contains(why), "{line}");
    ensure!(site.ctguard(&["reload"])?.refusal(78)?.contains(why));
    ensure!(daemon.stop()?.success());

    // A start guards the other, so a reload of the same file is fine.
    let checked = check()?;
    ensure!(checked.code == Some(0) && checked.errors.contains(why), "{checked:?}");
    let daemon = files.start(&site)?;
    let waiting = "br0 (cannot be guarded";
    wait_for("the reason", || Ok(site.succeed(&["status"])?.contains(waiting).then_some(())))?;
    let checked = check()?;
    ensure!(checked.code == Some(0), "{checked:?}");
    ensure!(checked.errors.contains(&format!("warning: {why}")), "{checked:?}");
    ensure!(checked.errors.contains("the daemon waits until it can be guarded"), "{checked:?}");
    ensure!(reload(&site)? == "nothing changes\n");
    ensure!(daemon.stop()?.success());
    Ok(())
}

/// Fails when the signal of a reload ends a daemon of a release that does not catch it: this process.
#[test]
fn a_daemon_that_cannot_reload_is_not_asked() -> Result<()> {
    if !require::root("a_daemon_that_cannot_reload_is_not_asked") {
        return Ok(());
    }
    let site = Site::build()?;
    let files = Files::new(&format!("interfaces = [\"{WAN}\"]\n"))?;
    files.start(&site)?.kill()?;
    let lock = fs::File::open(site.run_file("lock"))?;
    lock.lock()?;
    ensure!(site.ctguard(&["reload"])?.refusal(1)?.contains("restart it"));
    drop(lock);
    site.ctguard(&["reload"])?.refusal(3)?;
    Ok(())
}

#[test]
fn a_configuration_can_be_checked_without_a_guard() -> Result<()> {
    let run = |arguments: &[&str]| {
        answer(Command::new(product::binary()?).args(arguments).env_remove("RUST_LOG"))
    };
    let files = Files::new("target = \"80%\"\n")?;
    let good = run(&["config", "check", &files.name()])?;
    ensure!(good.code == Some(0) && good.out.ends_with("ctguard.toml: can be used\n"), "{good:?}");
    ensure!(good.errors.contains("no interface is named"), "{good:?}");
    files.write("interfaces = [\"nowhere0\"]\n")?;
    let absent = run(&["config", "check", &files.name()])?;
    ensure!(absent.code == Some(0), "it may be there at the start: {absent:?}");
    ensure!(absent.errors.contains("warning: there is no interface nowhere0"), "{absent:?}");
    files.write("target = 80\n")?;
    let bad = run(&["config", "check", &files.name()])?;
    ensure!(bad.refusal(78)?.contains("ctguard.toml:1:1: target is a number"), "{bad:?}");
    let missing = run(&["config", "check", "/nonexistent/ctguard.toml"])?;
    ensure!(missing.refusal(78)?.contains("/nonexistent/ctguard.toml"), "{missing:?}");

    let shipped = include_str!("../../../packaging/ctguard.toml");
    let default = run(&["config", "default"])?.out;
    ensure!(shipped == default, "packaging/ctguard.toml is what `ctguard config default` prints");
    Ok(())
}
