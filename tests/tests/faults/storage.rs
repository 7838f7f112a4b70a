//! Directories that are full or read-only.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    daemon::Daemon,
    exec,
    product::{Site, WAN, wait_for},
    require,
    sources::try_sources,
};

/// A file system of a few pages at a directory, until dropped.
struct Small(PathBuf);

impl Small {
    fn mount(path: &Path) -> Result<Self> {
        fs::create_dir_all(path)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=32k,mode=700", "tmpfs"]).arg(path);
        exec::run(&mut mount)?;
        Ok(Self(path.to_owned()))
    }

    fn remount(&self, how: &str) -> Result<()> {
        exec::run(Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0))?;
        Ok(())
    }

    /// Leaves no room.
    fn fill(&self) -> Result<()> {
        let filled = fs::write(self.0.join("filling"), vec![b'x'; 64 << 10]);
        ensure!(filled.is_err(), "there is more room than expected");
        Ok(())
    }

    fn empty(&self) -> Result<()> {
        for name in self.contents()?.into_keys().filter(|name| name.starts_with("filling")) {
            fs::remove_file(self.0.join(name))?;
        }
        Ok(())
    }

    /// All but what fills it.
    fn own(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut own = self.contents()?;
        own.retain(|name, _| !name.starts_with("filling"));
        Ok(own)
    }

    fn contents(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let files = fs::read_dir(&self.0)?.flatten();
        files
            .filter(|file| file.path().is_file())
            // One that is being replaced has another name by now.
            .filter_map(|file| {
                let content = fs::read(file.path()).ok()?;
                Some(Ok((file.file_name().to_string_lossy().into_owned(), content)))
            })
            .collect()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = exec::run(Command::new("umount").arg("-l").arg(&self.0));
    }
}

/// Fails when a state directory without room, or that may only be read, stops the guard or its commands, fills
/// the log, is filled with halves of files, or when what could not be kept is not kept as soon as it can.
#[test]
fn a_state_directory_that_is_full_or_read_only_stops_nothing() -> Result<()> {
    if !require::root("a_state_directory_that_is_full_or_read_only_stops_nothing") {
        return Ok(());
    }
    for is_full in [true, false] {
        let site = Site::build()?;
        let small = Small::mount(&site.state())?;
        if is_full {
            small.fill()?;
        } else {
            small.remount("ro")?;
        }
        let before = small.own()?;
        let daemon = site.guard()?;
        site.succeed(&["deny", "add", "203.0.113.0/24"])?;
        site.succeed(&["allow", "add", "192.0.2.0/24", "--for", "10m"])?;
        wait_for("a line on the lists", || {
            Ok(daemon.log()?.contains("cannot keep the lists").then_some(()))
        })?;
        let tried = try_sources(&site, &site.wire()?, 1, 100)?;
        ensure!(tried.admitted == 100, "{tried:?}");
        // Longer than the program waits for a daemon.
        std::thread::sleep(std::time::Duration::from_secs(3));
        let falls_back = site.status()?.pointer("/grant/fallback_active").cloned();
        ensure!(falls_back == Some(false.into()), "a living daemon grants: {falls_back:?}");
        for task in ["keep the lists", "keep the configuration", "record incidents"] {
            let told = daemon.log()?.matches(&format!("cannot {task}")).count();
            ensure!(told <= 1, "told once a minute: {}", daemon.log()?);
        }
        ensure!(!daemon.log()?.contains("panicked"), "{}", daemon.log()?);
        let state = site.state();
        let state = state.to_str().context("a path")?;
        let incidents = site.ctguard(&["incidents", "--state", state])?;
        ensure!(matches!(incidents.code, Some(0 | 1)), "{incidents:?}");
        ensure!(small.own()? == before, "halves of files are left: {:?}", small.own()?.keys());

        if is_full {
            small.empty()?;
        } else {
            small.remount("rw")?;
        }
        wait_for("the lists, kept", || {
            let own = small.own()?;
            let lists =
                own.iter().find(|(name, _)| name.starts_with("lists-") && name.ends_with("jsonl"));
            Ok(lists.filter(|(_, it)| it.windows(11).any(|it| it == b"203.0.113.0")).map(|_| ()))
        })?;
        // The end fails to keep what it can, and takes the guard along all the same.
        if is_full {
            small.fill()?;
        } else {
            // The daemon may be writing something else.
            wait_for("a read-only directory", || Ok(small.remount("ro").ok()))?;
        }
        site.succeed(&["deny", "add", "198.51.100.0/24"])?;
        ensure!(daemon.stop()?.success());
        site.ensure_gone()?;
        ensure!(
            small.own()?.keys().all(|name| !name.contains(".new")),
            "{:?}",
            small.own()?.keys()
        );
        drop(small);
    }
    Ok(())
}

/// Fails when `save` without room damages what was saved before, leaves half a file, says nothing or more than
/// a line, or when a reload stops working.
#[test]
fn a_save_without_room_leaves_what_was_saved_before() -> Result<()> {
    if !require::root("a_save_without_room_leaves_what_was_saved_before") {
        return Ok(());
    }
    for is_full in [true, false] {
        let site = Site::build()?;
        let directory = tempfile::tempdir()?;
        let small = Small::mount(directory.path())?;
        let file = directory.path().join("ctguard.toml");
        fs::write(&file, format!("interfaces = [\"{WAN}\"]\n"))?;
        let parts = directory.path().join("conf.d");
        fs::create_dir(&parts)?;
        let file = file.to_str().context("a path")?;
        let daemon: Daemon = site.start(&["run", "--config", file])?;
        site.succeed(&["set", "source.udp.burst=7"])?;
        site.succeed(&["save"])?;
        let saved = || -> Result<Vec<(String, String)>> {
            let files = fs::read_dir(&parts)?.flatten();
            let read = |file: fs::DirEntry| {
                let name = file.file_name().to_string_lossy().into_owned();
                Ok((name, fs::read_to_string(file.path())?))
            };
            files.map(read).collect()
        };
        let before = saved()?;
        ensure!(before.len() == 1 && before[0].1.contains('7'), "{before:?}");

        if is_full {
            small.fill()?;
        } else {
            small.remount("ro")?;
        }
        site.succeed(&["set", "source.udp.burst=8"])?;
        site.succeed(&["deny", "add", "203.0.113.0/24"])?;
        let refused = site.ctguard(&["save"])?;
        ensure!(refused.refusal(1)?.contains("90-saved.toml"), "{refused:?}");
        ensure!(saved()? == before, "{:?}", saved()?);
        ensure!(site.succeed(&["get", "source.udp.burst"])?.trim() == "8", "it stays in force");
        site.succeed(&["reload"])?;
        ensure!(site.succeed(&["get", "source.udp.burst"])?.trim() == "7", "as it was saved");

        if is_full {
            small.empty()?;
        } else {
            small.remount("rw")?;
        }
        site.succeed(&["set", "source.udp.burst=9"])?;
        site.succeed(&["save"])?;
        ensure!(saved()?[0].1.contains('9'), "{:?}", saved()?);
        ensure!(daemon.stop()?.success());
        site.ensure_gone()?;
    }
    Ok(())
}
