//! Starts over a guard that is there which fail late: they leave all as it was.

use std::{collections::BTreeMap, fs, io, os::unix::process::CommandExt as _};

use anyhow::{Result, ensure};
use aya::{
    maps::{Array, Map, MapData},
    programs::{ProgramInfo, links::LinkInfo},
};
use ctguard_layout::{Environment, INTERFACE_SLOTS, Interface, Limits, Policy, maps, programs};
use ctguard_tests::{
    exec,
    object::{self, Program},
    pinned::Pinned,
    product::{self, Site, WAN},
    require,
};

const LAN: &str = "lan0";

/// What a start changes in the kernel.
#[derive(Debug, PartialEq, Eq)]
struct State {
    pins: Vec<String>,
    pinned_programs: Vec<u32>,
    /// Links with the programs in them.
    links: Vec<(u32, u32)>,
    filters: String,
    maps: BTreeMap<&'static str, Vec<u8>>,
    heartbeat: u64,
}

impl State {
    fn of(site: &Site, is_linked: bool) -> Result<Self> {
        let mut pins = fs::read_dir(site.pins())?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<Vec<_>>>()?;
        pins.sort();
        let names = [programs::INGRESS, programs::EGRESS, programs::CLOCK];
        let pinned_programs = names
            .iter()
            .map(|name| Ok(ProgramInfo::from_pin(site.pins().join(name))?.id()))
            .collect::<Result<_>>()?;
        let ids = |link: LinkInfo| (link.id(), link.program_id());
        let links = if is_linked { site.links(WAN)?.map(ids).to_vec() } else { Vec::new() };
        let mut filters = site.guarded().command("tc");
        filters.args(["filter", "show", "dev", WAN, "egress"]);
        Ok(Self {
            pins,
            pinned_programs,
            links,
            filters: exec::run(&mut filters)?,
            maps: BTreeMap::from([
                (maps::POLICY, values::<{ size_of::<Policy>() }>(site, maps::POLICY, 1)?),
                (
                    maps::ENVIRONMENT,
                    values::<{ size_of::<Environment>() }>(site, maps::ENVIRONMENT, 1)?,
                ),
                (maps::LIMITS, values::<{ size_of::<Limits>() }>(site, maps::LIMITS, 1)?),
                (
                    maps::INTERFACES,
                    values::<{ size_of::<Interface>() }>(site, maps::INTERFACES, INTERFACE_SLOTS)?,
                ),
            ]),
            heartbeat: Pinned::open(site.pins())?.heartbeat(),
        })
    }
}

pub(crate) fn values<const BYTES: usize>(site: &Site, name: &str, count: u32) -> Result<Vec<u8>> {
    let map = Map::Array(MapData::from_pin(site.pins().join(name))?);
    let array: Array<_, [u8; BYTES]> = Array::try_from(map)?;
    let values: Vec<_> = (0..count).map(|index| array.get(&index, 0)).collect::<Result<_, _>>()?;
    Ok(values.concat())
}

/// What the start that fails would change.
const CHANGES: [&str; 8] = [
    "--set",
    "source.tcp.rate=44",
    "--set",
    "prefix.tcp.rate=9",
    "--set",
    "interface.wan0.answer=off",
    "--new-flow-detection",
    "flow-cache",
];

/// Fails when a start leaves anything behind that fails after its programs are attached, because a
/// record of an earlier daemon cannot be read.
#[test]
fn a_start_whose_last_step_fails_changes_nothing() -> Result<()> {
    if !require::root("a_start_whose_last_step_fails_changes_nothing") {
        return Ok(());
    }
    let site = Site::build()?;
    site.connect("out1", LAN)?;
    let record = site.run_file("timeouts.json");
    for more in [&[][..], &["--egress-filter"]] {
        let good = [&["run", "-i", WAN, "--set", "source.tcp.rate=33"], more].concat();
        let bad = [&["run", "-i", WAN, "-i", LAN], &CHANGES[..], more].concat();
        site.start(&good)?.kill()?;
        let is_linked = more.is_empty();
        let before = State::of(&site, is_linked)?;
        fs::create_dir(&record)?;
        let answer = site.ctguard(&bad);
        let after = State::of(&site, is_linked);
        fs::remove_dir(&record)?;
        ensure!(answer?.errors.contains("timeouts.json"), "it fails for the record");
        let after = after?;
        ensure!(after == before, "before {before:#?}\nafter {after:#?}");
        ensure!(site.xdp(LAN)?.is_none() && !site.qdiscs(LAN)?.contains("clsact"));

        ensure!(site.start(&bad)?.stop()?.success(), "without the record it starts");
        site.ensure_gone()?;
    }
    fs::create_dir(&record)?;
    let answer = site.ctguard(&["run", "-i", WAN]);
    fs::remove_dir(&record)?;
    ensure!(answer?.errors.contains("timeouts.json"));
    site.ensure_gone()
}

/// Fails when a start over a running guard that cannot have another interface too disturbs it.
#[test]
fn a_guard_that_was_kept_survives_a_start_that_fails() -> Result<()> {
    if !require::root("a_guard_that_was_kept_survives_a_start_that_fails") {
        return Ok(());
    }
    let site = Site::build()?;
    site.connect("out1", LAN)?;
    site.start(&["run", "-i", WAN, "--set", "source.tcp.rate=33"])?.kill()?;
    let before = State::of(&site, true)?;

    let _theirs = site.guarded().run(|| object::attach(Program::Pass, LAN))?;
    let bad = [&["run", "-i", WAN, "-i", LAN], &CHANGES[..]].concat();
    ensure!(site.ctguard(&bad)?.errors.contains("lab_pass"), "another's program is in the way");
    let after = State::of(&site, true)?;
    ensure!(after == before, "before {before:#?}\nafter {after:#?}");
    ensure!(site.succeed(&["get", "source.tcp.rate"])?.trim() == "33/s", "the same settings");
    ensure!(!site.succeed(&["status", "--json"])?.contains(LAN), "no slot for it is left");
    Ok(())
}

/// Fails when a start that fails after its guard is complete, before the daemon is ready, is not
/// undone: here the kernel refuses it a timer.
#[test]
fn a_daemon_that_cannot_wait_for_ticks_changes_nothing() -> Result<()> {
    if !require::root("a_daemon_that_cannot_wait_for_ticks_changes_nothing") {
        return Ok(());
    }
    let site = Site::build()?;
    site.connect("out1", LAN)?;
    let refused = |arguments: &[&str]| -> Result<()> {
        let mut command = site.command(arguments);
        // SAFETY: between fork and exec it makes one system call, and allocates nothing.
        unsafe { command.pre_exec(refuse_timers) };
        let answer = product::answer(&mut command)?;
        ensure!(answer.code == Some(1) && answer.errors.contains("os error 24"), "{answer:?}");
        Ok(())
    };
    refused(&["run", "-i", WAN, "--on-exit", "keep"])?;
    site.ensure_gone()?;

    site.start(&["run", "-i", WAN, "--set", "source.tcp.rate=33"])?.kill()?;
    let before = State::of(&site, true)?;
    refused(&[&["run", "-i", WAN], &CHANGES[..]].concat())?;
    refused(&["run", "-i", LAN])?;
    let after = State::of(&site, true)?;
    ensure!(after == before, "before {before:#?}\nafter {after:#?}");
    ensure!(site.xdp(LAN)?.is_none());
    Ok(())
}

/// From now on `timerfd_create` fails with EMFILE in this process and its children (`seccomp(2)`).
fn refuse_timers() -> io::Result<()> {
    let step = |code: u32, jf, k: u32| {
        let code = u16::try_from(code).map_err(io::Error::other)?;
        io::Result::Ok(libc::sock_filter { code, jt: 0, jf, k })
    };
    let timer = u32::try_from(libc::SYS_timerfd_create).map_err(io::Error::other)?;
    let refused = libc::SECCOMP_RET_ERRNO | libc::EMFILE.cast_unsigned();
    let mut filter = [
        // The number of the call is the first word of `struct seccomp_data`.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)?,
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, timer)?,
        step(libc::BPF_RET | libc::BPF_K, 0, refused)?,
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW)?,
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: the call reads the program and its steps, which live until it returns.
    let set =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
