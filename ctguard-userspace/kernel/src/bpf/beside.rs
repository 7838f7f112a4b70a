//! Makes a guard beside one of another map layout, and puts it in that one's place.
//!
//! `PINS_next` gets maps and programs of its own, and the links of the guard at `PINS`, which stay pinned
//! there too. Renames put it in place: `PINS` becomes `PINS_former`, `PINS_next` becomes `PINS`. Whatever
//! step a crash follows, one of the directories is a whole guard, and [`finish`] puts that at `PINS`.

use std::{
    fs::{self, DirBuilder},
    io,
    os::{fd::AsFd as _, unix::fs::DirBuilderExt as _},
};

use super::{
    Attachment, Pins,
    bpffs::is_bpffs,
    pins::{ignore_missing, remove_directory_if_there},
    syscall,
};

/// Makes the directory for the new guard, with everything of the old one but its maps.
pub fn begin(pins: &Pins) -> io::Result<Pins> {
    let next = pins.next();
    DirBuilder::new().mode(0o700).create(next.path())?;
    for entry in fs::read_dir(pins.path())? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        if entry.file_type()?.is_dir() {
            fs::create_dir(next.path().join(name))?;
        } else if !Pins::is_map(&name.to_string_lossy()) {
            syscall::pin(syscall::open_pin(&path)?.as_fd(), &next.path().join(name))?;
        }
    }
    Ok(next)
}

/// Puts the new guard in the place of the old one, whose maps then go.
pub fn replace(pins: &Pins) -> io::Result<()> {
    let (next, former) = (pins.next(), pins.former());
    fs::rename(pins.path(), former.path())?;
    if let Err(error) = fs::rename(next.path(), pins.path()) {
        fs::rename(former.path(), pins.path())?;
        return Err(error);
    }
    // The next start, or whoever removes the guard, tries again.
    let _ = forget(&former);
    Ok(())
}

/// Ends what an earlier start left that was cut short. Whoever calls it holds the daemon's lock.
pub fn finish(pins: &Pins) -> io::Result<()> {
    // Elsewhere, what has such a name is not ours.
    if !is_bpffs(pins.path())? {
        return Ok(());
    }
    let (next, former) = (pins.next(), pins.former());
    if !pins.path().exists() {
        ignore_missing(fs::rename(former.path(), pins.path()))?;
    }
    forget(&former)?;
    // Filters on devices that only the new one was on are held by no pin.
    let own = if pins.path().exists() { pins.attached()? } else { Vec::new() };
    let begun = if next.path().exists() { next.attached()? } else { Vec::new() };
    // A link that took the place of one in another mode is pinned only there.
    for &ifindex in begun.iter().filter(|index| own.contains(index)) {
        if next.has_xdp(ifindex)? && !pins.has_xdp(ifindex)? {
            fs::rename(next.xdp(ifindex), pins.xdp(ifindex))?;
        }
    }
    for ifindex in begun.into_iter().filter(|index| !own.contains(index)) {
        Attachment::detach(&next, ifindex)?;
    }
    forget(&next)
}

/// Removes a directory of pins. What they pinned alone goes with them.
pub fn forget(pins: &Pins) -> io::Result<()> {
    let entries = match fs::read_dir(pins.path()) {
        Ok(entries) => entries,
        Err(error) => return ignore_missing(Err(error)),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    remove_directory_if_there(pins.path())
}
