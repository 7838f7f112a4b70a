//! Pins that somebody removes, one by one or with the file system that they are on.

use std::{fs, io, path::Path};

use anyhow::{Result, ensure};
use ctguard_layout::maps;
use ctguard_tests::{
    exec,
    product::{Site, WAN, wait_for},
    require,
    sources::{try_one_source, try_sources},
};

/// So slow that no token comes in a moment in which the sender has to wait.
const LIMIT: [&str; 2] = ["source.udp.burst=3", "source.udp.rate=1"];

/// Fails when nobody can ask a guard any more whose pins were removed, when it is open to floods from then
/// on, forgets what was set, or leaves something behind in the end.
#[test]
fn pins_that_somebody_removes_are_made_again() -> Result<()> {
    if !require::root("pins_that_somebody_removes_are_made_again") {
        return Ok(());
    }
    for more in [&[][..], &["--egress-filter"]] {
        let site = Site::build()?;
        let daemon = site
            .start(&[&["run", "-i", WAN, "--set", LIMIT[0], "--set", LIMIT[1]], more].concat())?;
        site.succeed(&["deny", "add", "203.0.113.0/24"])?;
        let pins = site.pins();
        let all = names(pins)?;
        let without_links = |path: &Path| !path.to_string_lossy().contains('_') || path.is_dir();
        // All of them, one of them, the links' names left, the directory itself.
        for round in 1..=4 {
            for entry in fs::read_dir(pins)? {
                let path = entry?.path();
                let goes = match round {
                    2 => path.ends_with(maps::POLICY),
                    3 => without_links(&path),
                    _ => true,
                };
                if !goes {
                    continue;
                }
                remove(&path)?;
            }
            if round == 4 {
                // The daemon may have pinned some of them again.
                wait_for("the end of the directory", || {
                    for entry in fs::read_dir(pins)? {
                        let _ = remove(&entry?.path());
                    }
                    Ok(fs::remove_dir(pins).ok())
                })?;
            }
            wait_for("the pins, made again", || {
                let there = pins.exists() && site.xdp(WAN)?.is_some();
                let made = there.then(|| names(pins)).transpose()?.unwrap_or_default();
                Ok(all.iter().all(|name| made.contains(name)).then_some(()))
            })?;
            let tried = try_one_source(&site, &site.wire()?, round, 10)?;
            ensure!(tried.source >= 6, "it limits as before: {tried:?}");
        }
        ensure!(site.succeed(&["get", "source.udp.burst"])?.trim() == "3", "settings stay");
        ensure!(site.succeed(&["deny", "list"])?.contains("203.0.113.0/24"), "lists stay");
        let told = daemon.log()?.matches("cannot keep the pins").count();
        ensure!(told == 1, "told once a minute: {}", daemon.log()?);
        ensure!(daemon.stop()?.success());
        site.ensure_gone()?;
    }
    Ok(())
}

/// Fails when an unmounted bpffs ends the guard, or a daemon that ends right then calls that a failure.
#[test]
fn a_bpffs_that_somebody_unmounts_is_mounted_again() -> Result<()> {
    if !require::root("a_bpffs_that_somebody_unmounts_is_mounted_again") {
        return Ok(());
    }
    let site = Site::build()?;
    let mount = format!("/run/{}", site.guarded().name());
    let path = format!("{mount}/guard");
    let at_pins = |words: &[&'static str]| [words, &["--pin-path", path.as_str()]].concat();
    let daemon = site.start(&at_pins(&["run", "-i", WAN]))?;
    let unmount = || {
        // The daemon may have a file open there.
        wait_for("the end of the mount", || {
            Ok(exec::run(std::process::Command::new("umount").arg(&mount)).ok())
        })
    };
    for _ in 0..3 {
        unmount()?;
        wait_for("the program, attached again", || {
            let there = Path::new(&path).join(format!("xdp_{}", site.index(WAN)?)).exists();
            Ok((there && site.xdp(WAN)?.is_some()).then_some(()))
        })?;
        site.succeed(&at_pins(&["status"]))?;
    }
    // Without a wait it may meet either.
    unmount()?;
    ensure!(daemon.stop()?.success());
    wait_for("the program's end", || Ok(site.xdp(WAN)?.is_none().then_some(())))?;
    let _ = fs::remove_dir(&mount);
    ensure!(!Path::new(&mount).exists(), "{mount} is left");
    Ok(())
}

/// Fails when a daemon takes over a guard that lost a map, whose program then reads zeroes.
#[test]
fn a_guard_that_lost_a_map_is_made_anew() -> Result<()> {
    if !require::root("a_guard_that_lost_a_map_is_made_anew") {
        return Ok(());
    }
    let site = Site::build()?;
    for lost in [maps::ENVIRONMENT, maps::GRANT, maps::SOURCES] {
        site.guard()?.kill()?;
        fs::remove_file(site.pins().join(lost))?;
        let daemon = site.guard()?;
        ensure!(daemon.log()?.contains(&format!("lost {lost}, so it is made anew")));
        let tried = try_sources(&site, &site.wire()?, 1, 200)?;
        ensure!(tried.admitted == 200, "it grants: {tried:?}");
        ensure!(daemon.stop()?.success());
        site.ensure_gone()?;
    }
    Ok(())
}

fn remove(pin: &Path) -> io::Result<()> {
    if pin.is_dir() { fs::remove_dir(pin) } else { fs::remove_file(pin) }
}

fn names(pins: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(pins)?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}
