//! What the object costs: the verifier's work, memory, and the binary that carries it.

use std::{
    collections::BTreeSet,
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, Result, ensure};
use aya::{maps::MapData, programs::ProgramInfo};
use ctguard_layout as layout;
use ctguard_layout::{List, ListEntry};
use ctguard_tests::{
    data_path::{DataPath, Setup},
    product::{self, Site, WAN},
    require,
};

/// The kernel gives up at a million (`BPF_COMPLEXITY_LIMIT_INSNS`); older ones find fewer states
/// equal, so two thirds are left to them.
const MOST_INSTRUCTIONS: u32 = 300_000;
/// A fifth above what the larger program has: more would make packets dearer.
const MOST_TRANSLATED: u32 = 18_500;
const MIB: u64 = 1 << 20;
const MOST_MAP_BYTES: u64 = 32 * MIB;
const MOST_BINARY_BYTES: u64 = 8 * MIB;
/// The flow cache of a table of 2^20 entries or more, which is the largest that is made.
const MOST_FLOW_LINES: u32 = 1 << 18;
const MOST_KNOWN_WORDS: u32 = 1 << 19;

/// Fails when a change makes the program so branchy that kernels may refuse it.
#[test]
fn the_verifier_is_done_long_before_it_gives_up() -> Result<()> {
    if !require::root("the_verifier_is_done_long_before_it_gives_up") {
        return Ok(());
    }
    for (asks_conntrack, detection) in [(false, "flow cache"), (true, "conntrack")] {
        let path = DataPath::load(Setup { asks_conntrack, ..Setup::default() })?;
        for info in [path.ingress_info()?, path.egress_info()?] {
            let name = info.name_as_str().context("a program has a name")?;
            let processed = info.verified_instruction_count().context("since Linux 5.16")?;
            let translated = info.size_translated().context("root sees the size")? / 8;
            println!(
                "{detection}: {name}: {processed} instructions verified, {translated} in the program"
            );
            ensure!(processed <= MOST_INSTRUCTIONS, "{name}: {processed} instructions verified");
            ensure!(translated <= MOST_TRANSLATED, "{name}: {translated} instructions");
        }
    }
    Ok(())
}

/// Fails when the object has a map that is not pinned, so that a restart would lose it, or lacks
/// one that userspace opens.
#[test]
fn the_objects_maps_are_those_that_are_pinned() -> Result<()> {
    if !require::root("the_objects_maps_are_those_that_are_pinned") {
        return Ok(());
    }
    let path = DataPath::load(Setup::default())?;
    let found: BTreeSet<String> = path.map_names().into_iter().collect();
    // Not pinned: the log's own ring buffer, scratch memory, and constants in sections of LLVM's choice.
    let constants = found.iter().map(String::as_str).filter(|name| name.starts_with(".rodata"));
    let unpinned = constants.chain(["AYA_LOGS", "decision", "headers"]);
    let expected: BTreeSet<String> =
        layout::maps::PINNED.into_iter().chain(unpinned).map(ToOwned::to_owned).collect();
    ensure!(found == expected, "{found:?} and not {expected:?}");
    Ok(())
}

/// Fails when the maps of the largest table, all lists of the operator full, take more than they may.
#[test]
fn all_maps_fit_in_32_mebibytes() -> Result<()> {
    if !require::root("all_maps_fit_in_32_mebibytes") {
        return Ok(());
    }
    let mut path = DataPath::load(Setup {
        flow_lines: MOST_FLOW_LINES,
        known_words: MOST_KNOWN_WORDS,
        ..Setup::default()
    })?;
    for entry in 0..ListEntry::CAPACITY {
        let [_, _, high, low] = entry.to_be_bytes();
        for list in [List::AllowV4, List::DenyV4] {
            path.list_ipv4(list, [10, 0, high, low], 32, 0)?;
        }
        for list in [List::AllowV6, List::DenyV6] {
            let address = [0x20, 1, 0x0d, 0xb8, 0, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 1];
            path.list_ipv6(list, address, 128, 0)?;
        }
    }
    let bytes = map_bytes(&path.ingress_info()?)?;
    println!("all maps of the largest table: {:.1} MiB", mebibytes(bytes));
    ensure!(bytes <= MOST_MAP_BYTES, "{bytes} bytes of maps");
    Ok(())
}

/// Fails when a guard as it is started takes more, or tells less than it takes.
#[test]
fn a_guard_as_it_is_started_tells_the_memory_of_its_maps() -> Result<()> {
    if !require::root("a_guard_as_it_is_started_tells_the_memory_of_its_maps") {
        return Ok(());
    }
    let site = Site::build()?;
    let _daemon = site.guard()?;
    let program = site.xdp(WAN)?.context("a program on the interface")?;
    let info = aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .find(|info| u64::from(info.id()) == program)
        .context("the program is loaded")?;
    let bytes = map_bytes(&info)?;
    let told = site.number("/maps/bytes")?;
    println!("maps of a guard as it is started: {:.1} MiB", mebibytes(bytes));
    ensure!(bytes <= MOST_MAP_BYTES, "{bytes} bytes of maps");
    // The program uses unpinned maps too: constants, the log's.
    ensure!(told <= bytes && told * 100 >= bytes * 90, "{told} told of {bytes}");
    Ok(())
}

/// Fails when the shipped binary outgrows what small routers can hold.
#[test]
fn the_release_binary_fits_a_small_router() -> Result<()> {
    if !require::release_binary("the_release_binary_fits_a_small_router") {
        return Ok(());
    }
    let bytes = fs::metadata(product::binary()?)?.len();
    println!("target/release/ctguard: {:.1} MiB", mebibytes(bytes));
    ensure!(bytes <= MOST_BINARY_BYTES, "{bytes} bytes");
    Ok(())
}

/// What the kernel charges for the maps that a program uses (`memlock` in their fdinfo).
fn map_bytes(info: &ProgramInfo) -> Result<u64> {
    let ids = info.map_ids()?.context("root sees the maps of a program")?;
    let charged = ids.into_iter().map(|id| {
        let map = MapData::from_id(id)?;
        let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
        let facts = fs::read_to_string(path)?;
        let bytes = facts.lines().find_map(|line| line.strip_prefix("memlock:"));
        Ok(bytes.context("a map's memory is told")?.trim().parse::<u64>()?)
    });
    charged.sum()
}

#[expect(clippy::cast_precision_loss, reason = "sizes below 2^52")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}
