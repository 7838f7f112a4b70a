//! What tells new flows from known ones: as asked for, as the kernel allows, across restarts.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    object::{self, Program},
    product::{self, Site, WAN},
    require,
};
use serde_json::{Value, json};

const FLOW_CACHE: [&str; 5] = ["run", "-i", WAN, "--new-flow-detection", "flow-cache"];
const CONNTRACK: [&str; 5] = ["run", "-i", WAN, "--new-flow-detection", "conntrack"];

fn detection(site: &Site) -> Result<Value> {
    site.status()?.get("new_flow_detection").cloned().context("the status tells the detection")
}

fn by_conntrack() -> Value {
    json!({ "mode": "conntrack", "reason": null })
}

fn by_flow_cache(reason: &str) -> Value {
    json!({ "mode": "flow-cache", "reason": reason })
}

fn ensure_detection(site: &Site, expected: &Value) -> Result<()> {
    let found = detection(site)?;
    ensure!(found == *expected, "{found} and not {expected}");
    Ok(())
}

/// Fails when conntrack is asked although the operator wants the flow cache, or when `status`
/// tells otherwise, with a daemon or without.
#[test]
fn the_flow_cache_can_be_forced() -> Result<()> {
    if !require::root("the_flow_cache_can_be_forced") {
        return Ok(());
    }
    let site = Site::build()?;
    let daemon = site.start(&FLOW_CACHE)?;
    ensure_detection(&site, &by_flow_cache("forced"))?;
    ensure!(!daemon.log()?.contains("flow cache"), "what was asked for is no news");
    daemon.kill()?;
    ensure_detection(&site, &by_flow_cache("forced"))?;
    let people = site.succeed(&["status"])?;
    ensure!(people.contains("detect  by the flow cache: "), "{people}");
    Ok(())
}

/// Fails when a kernel that has the functions is not asked, by default or by demand.
#[test]
fn conntrack_is_asked_where_it_can_be() -> Result<()> {
    let test = "conntrack_is_asked_where_it_can_be";
    if !require::root(test) || !require::conntrack_functions(test) {
        return Ok(());
    }
    let site = Site::build()?;
    for arguments in [&["run", "-i", WAN][..], &CONNTRACK] {
        let daemon = site.start(arguments)?;
        ensure_detection(&site, &by_conntrack()).with_context(|| arguments.join(" "))?;
        let people = site.succeed(&["status"])?;
        ensure!(people.contains("detect  by asking conntrack"), "{people}");
        ensure!(daemon.stop()?.success());
    }
    site.ensure_gone()
}

/// Fails when a start by default is refused where conntrack cannot be asked or does not say why,
/// or when one that demands it guards without.
#[test]
fn without_the_kernels_types_the_flow_cache_answers_unless_conntrack_is_demanded() -> Result<()> {
    let test = "without_the_kernels_types_the_flow_cache_answers_unless_conntrack_is_demanded";
    if !require::root(test) {
        return Ok(());
    }
    // In a mount namespace a guard is only made where another made the bpffs that it inherits.
    let site = Site::build()?;
    let neighbour = site.neighbour()?;
    let other = neighbour.guard()?;

    let types = Types::with(&site, &[])?;
    let answer = product::answer(&mut types.command(&site, &CONNTRACK)?)?;
    let line = answer.refusal(5)?;
    for part in ["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF", "--new-flow-detection auto"] {
        ensure!(line.contains(part), "it tells {part}: {line}");
    }
    ensure!(site.xdp(WAN)?.is_none() && !site.pins().exists(), "nothing is left");

    let daemon = site.start_by(types.command(&site, &["run", "-i", WAN])?)?;
    ensure_detection(&site, &by_flow_cache("types-unreadable"))?;
    let told = daemon.log()?;
    ensure!(told.contains("warning: new flows are told by the flow cache: "), "{told}");
    ensure!(told.contains("/sys/kernel/btf/vmlinux"), "{told}");
    ensure!(daemon.stop()?.success() && other.stop()?.success());
    site.ensure_gone()
}

/// Fails when a restart keeps the detection of the start before, attaches anew, or changes it
/// though it was refused before it replaced anything.
#[test]
fn a_restart_may_change_the_detection_in_place() -> Result<()> {
    let test = "a_restart_may_change_the_detection_in_place";
    if !require::root(test) || !require::conntrack_functions(test) {
        return Ok(());
    }
    let site = Site::build()?;
    site.start(&CONNTRACK)?.kill()?;
    let links = site.links(WAN)?.map(|link| link.id());

    let bad = [&FLOW_CACHE[..], &["--set", "interface.nosuch0.source.tcp.rate=5"]].concat();
    ensure!(site.ctguard(&bad)?.refusal(2)?.contains("nosuch0"));
    ensure_detection(&site, &by_conntrack()).context("after a start that was refused")?;

    for (arguments, expected) in
        [(FLOW_CACHE, by_flow_cache("forced")), (CONNTRACK, by_conntrack())]
    {
        let program = site.xdp(WAN)?;
        site.start(&arguments)?.kill()?;
        ensure_detection(&site, &expected)?;
        ensure!(site.links(WAN)?.map(|link| link.id()) == links, "the same links");
        ensure!(site.xdp(WAN)? != program, "another program");
    }
    Ok(())
}

/// Fails when a start that is refused half way leaves a program of the other kind, or says that it
/// is being replaced.
#[test]
fn a_start_that_is_refused_half_way_leaves_the_detection_as_it_was() -> Result<()> {
    let test = "a_start_that_is_refused_half_way_leaves_the_detection_as_it_was";
    if !require::root(test) || !require::conntrack_functions(test) {
        return Ok(());
    }
    let site = Site::build()?;
    site.connect("out1", "lan0")?;
    site.start(&CONNTRACK)?.kill()?;
    let program = site.xdp(WAN)?;

    let theirs = site.guarded().run(|| object::attach(Program::Pass, "lan0"))?;
    let both = [&FLOW_CACHE[..], &["-i", "lan0"]].concat();
    ensure!(site.ctguard(&both)?.refusal(1)?.contains("lan0"));
    ensure_detection(&site, &by_conntrack())?;
    ensure!(site.xdp(WAN)? == program, "the program that asks conntrack still runs");
    drop(theirs);

    site.start(&both)?.kill()?;
    ensure_detection(&site, &by_flow_cache("forced"))
}

/// Fails when a program that the kernel refuses, or whose options are laid out in an unknown way,
/// is not replaced by the one that does without, or when the reason is not told in a line.
#[test]
fn a_program_that_the_kernel_refuses_is_replaced_or_its_reason_told() -> Result<()> {
    let test = "a_program_that_the_kernel_refuses_is_replaced_or_its_reason_told";
    if !require::root(test) {
        return Ok(());
    }
    let site = Site::build()?;
    let neighbour = site.neighbour()?;
    let other = neighbour.guard()?;
    for (options_bytes, reason, told) in
        [(16, "refused", "is not a function"), (20, "options-unknown", "20 bytes")]
    {
        let types = Types::with(&site, &[("vmlinux", false_types(options_bytes))])?;
        let answer = product::answer(&mut types.command(&site, &CONNTRACK)?)?;
        let line = answer.refusal(5)?;
        ensure!(line.contains(told) && line.len() < 500, "{line}");

        let daemon = site.start_by(types.command(&site, &["run", "-i", WAN])?)?;
        ensure_detection(&site, &by_flow_cache(reason))?;
        ensure!(daemon.log()?.contains(told), "{}", daemon.log()?);
        ensure!(daemon.log()?.lines().count() < 5, "no flood of words: {}", daemon.log()?);
        ensure!(daemon.stop()?.success());
    }
    ensure!(other.stop()?.success());
    site.ensure_gone()
}

/// A directory in the place of `/sys/kernel/btf`, for the commands that are started with it.
struct Types(PathBuf);

impl Types {
    fn with(site: &Site, files: &[(&str, Vec<u8>)]) -> Result<Self> {
        let types = Self(std::env::temp_dir().join(format!("{}-btf", site.guarded().name())));
        std::fs::create_dir_all(&types.0)?;
        for (name, bytes) in files {
            std::fs::write(types.0.join(name), bytes)?;
        }
        Ok(types)
    }

    fn command(&self, site: &Site, arguments: &[&str]) -> Result<Command> {
        let mut command = site.guarded().command("unshare");
        let bind = "mount --bind \"$0\" /sys/kernel/btf && exec \"$@\"";
        command.args(["--mount", "--", "sh", "-c", bind]).arg(&self.0);
        command.arg(product::binary()?).args(arguments);
        Ok(command)
    }
}

impl Drop for Types {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Types (Documentation/bpf/btf.rst) that call the kernel's second and third type conntrack's
/// functions, which they are on no kernel.
fn false_types(options_bytes: u32) -> Vec<u8> {
    const STRUCT: u32 = 4;
    const FUNCTION: u32 = 12;
    const PROTOTYPE: u32 = 13;
    let strings = b"\0bpf_xdp_ct_lookup\0bpf_ct_release\0bpf_ct_opts\0";
    // Offset of the name, kind, and what the kind says.
    let types = [
        [0, PROTOTYPE << 24, 0],
        [1, FUNCTION << 24, 1],
        [19, FUNCTION << 24, 1],
        [34, STRUCT << 24, options_bytes],
    ];
    let types: Vec<u8> = types.iter().flatten().flat_map(|word: &u32| word.to_ne_bytes()).collect();
    let [types_bytes, strings_bytes] =
        [types.len(), strings.len()].map(|bytes| u32::try_from(bytes).unwrap_or(0).to_ne_bytes());
    let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
    bytes.extend([1, 0]);
    for word in [24_u32.to_ne_bytes(), [0; 4], types_bytes, types_bytes, strings_bytes] {
        bytes.extend(word);
    }
    [&bytes[..], &types, strings].concat()
}
