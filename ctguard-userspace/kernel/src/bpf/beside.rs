//! Makes a guard beside one of another map layout, and puts it in that one's place.
//!
//! `PINS_next` gets maps and programs of its own, and the links of the guard at `PINS`, which stay pinned
//! there too. Renames put it in place: `PINS` becomes `PINS_former`, `PINS_next` becomes `PINS`. Whatever
//! step a crash follows, one of the directories is a whole guard, and [`finish`] puts that at `PINS`.

use std::{
    fs::{self, DirBuilder},
    io,
    os::{fd::AsFd as _, unix::fs::DirBuilderExt as _},
    path::Path,
};

use aya::maps::{MapInfo, MapType};
use ctguard_layout::{FeedEntry, maps};

use super::{
    Attachment, Pins,
    bpffs::is_bpffs,
    pins::{ignore_missing, remove_directory_if_there},
    syscall,
};

/// The lists of feeds, each with the bytes of an address. They are used as they are, so whoever changes
/// what they hold has to rename them.
const LISTS_OF_FEEDS: [(&str, usize); 4] = [
    (maps::FEED_ALLOW_V4, 4),
    (maps::FEED_ALLOW_V6, 16),
    (maps::FEED_DENY_V4, 4),
    (maps::FEED_DENY_V6, 16),
];

/// Makes the directory for the new guard, with everything of the old one but its maps. The lists of feeds
/// go along: reading them again takes as long as their servers do.
pub fn begin(pins: &Pins) -> io::Result<Pins> {
    let next = pins.next();
    DirBuilder::new().mode(0o700).create(next.path())?;
    for entry in fs::read_dir(pins.path())? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        if entry.file_type()?.is_dir() {
            fs::create_dir(next.path().join(name))?;
        } else if !Pins::is_map(&name.to_string_lossy()) {
            pin_too(&path, &next.path().join(name))?;
        }
    }
    for (name, address_bytes) in LISTS_OF_FEEDS {
        if is_list_of_feeds(&pins.map(name), address_bytes) {
            pin_too(&pins.map(name), &next.map(name))?;
        }
    }
    Ok(next)
}

fn pin_too(pinned: &Path, path: &Path) -> io::Result<()> {
    syscall::pin(syscall::open_pin(pinned)?.as_fd(), path)
}

/// Whether the map is there, and could have been made by this release.
fn is_list_of_feeds(path: &Path, address_bytes: usize) -> bool {
    MapInfo::from_pin(path).is_ok_and(|map| {
        matches!(map.map_type(), Ok(MapType::LpmTrie))
            && map.key_size() as usize == size_of::<u32>() + address_bytes
            && map.value_size() as usize == size_of::<FeedEntry>()
            && map.max_entries() == FeedEntry::MAP_CAPACITY
    })
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
