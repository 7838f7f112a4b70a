//! `ctguard doctor --interface` before devices that are there.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    object::{self, Program},
    product::{self, Site, WAN},
    require, sysctl,
};
use serde_json::Value;

/// All that is told of an interface, and of what a guard on it needs.
const CHECKS: [&str; 17] = [
    "bpffs",
    "channels",
    "driver",
    "guard-jit",
    "guard-kernel",
    "interface",
    "limited-frames",
    "link-reset",
    "lockdown",
    "merging",
    "mtu",
    "native",
    "other-program",
    "queues",
    "rights",
    "spread",
    "vlan-tags",
];

/// What doctor tells, by the name of its check.
struct Told(Value);

impl Told {
    fn by(command: &mut Command) -> Result<Self> {
        let answer = product::answer(command)?;
        ensure!(matches!(answer.code, Some(0 | 1)), "{answer:?}");
        Ok(Self(serde_json::from_str(&answer.out).context("doctor's JSON")?))
    }

    fn of(site: &Site, interface: &str) -> Result<Self> {
        Self::by(&mut site.command(&["doctor", "--json", "--interface", interface]))
    }

    fn all(&self, list: &str) -> impl Iterator<Item = &Value> {
        let all = self.0.get(list).and_then(Value::as_array).into_iter().flatten();
        all.filter(|one| one["check"].as_str().is_some_and(|check| CHECKS.contains(&check)))
    }

    /// The severity of `check` and what it says; none where it found nothing.
    fn found(&self, check: &str) -> Option<(&str, &str)> {
        let found = self.all("findings").find(|finding| finding["check"] == check)?;
        Some((found["severity"].as_str()?, found["what"].as_str()?))
    }
}

/// Fails when a right device is called wrong, or something of it cannot be read. A veth tells its
/// XDP features, offloads and channels, whose numbers are this kernel's.
#[test]
fn nothing_is_told_of_a_veth_guarded_or_not() -> Result<()> {
    const TEST: &str = "nothing_is_told_of_a_veth_guarded_or_not";
    if !require::root(TEST) || !require::release_binary(TEST) {
        return Ok(());
    }
    let site = Site::build()?;
    let is_silent = |when: &str| -> Result<()> {
        let told = Told::of(&site, WAN)?;
        let found: Vec<_> = told.all("findings").chain(told.all("skipped")).collect();
        ensure!(found.is_empty(), "{when}: {found:?}");
        Ok(())
    };
    is_silent("unguarded")?;
    site.guarded().ip(&[format!("link set {WAN} mtu 9000")])?;
    is_silent("with a large MTU")?;
    let guard = site.guard()?;
    is_silent("guarded")?;
    ensure!(guard.stop()?.success());
    Ok(())
}

#[test]
fn a_device_without_native_xdp_is_told_by_what_it_says_itself() -> Result<()> {
    const TEST: &str = "a_device_without_native_xdp_is_told_by_what_it_says_itself";
    if !require::root(TEST) || !require::release_binary(TEST) {
        return Ok(());
    }
    let site = Site::build()?;
    site.guarded().ip(&["link add slow0 type ifb", "link set slow0 up"])?;
    let told = Told::of(&site, "slow0")?;
    let native = told.found("native").context("generic XDP is not foretold")?;
    ensure!(native == ("note", "the driver of slow0 does not support native XDP"), "{native:?}");
    Ok(())
}

#[test]
fn a_port_of_a_bridge_that_netfilter_does_not_see_is_told_with_its_addresses() -> Result<()> {
    const TEST: &str = "a_port_of_a_bridge_that_netfilter_does_not_see_is_told_with_its_addresses";
    if !require::root(TEST) || !require::release_binary(TEST) {
        return Ok(());
    }
    let site = Site::build()?;
    site.guarded().ip(&[
        "link add br0 type bridge nf_call_iptables 0 nf_call_ip6tables 0".to_owned(),
        format!("link set {WAN} master br0"),
    ])?;
    for key in ["net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"] {
        if sysctl::path(key).exists() {
            site.guarded().sysctl(&[(key, "0")])?;
        }
    }
    let told = Told::of(&site, WAN)?;
    let found = told.found("limited-frames").context("the bridge is not told")?;
    ensure!(found.0 == "note" && found.1.contains("does not see what crosses br0"), "{found:?}");
    Ok(())
}

#[test]
fn anothers_program_is_told_by_its_name_and_another_guard_by_its_pins() -> Result<()> {
    const TEST: &str = "anothers_program_is_told_by_its_name_and_another_guard_by_its_pins";
    if !require::root(TEST) || !require::release_binary(TEST) {
        return Ok(());
    }
    let site = Site::build()?;
    let attached = site.guarded().run(|| object::attach(Program::Pass, WAN))?;
    let told = Told::of(&site, WAN)?;
    let found = told.found("other-program").context("the program is not found")?;
    ensure!(found.0 == "fault" && found.1.contains("lab_pass"), "{found:?}");
    // aya holds a link, which `ip link set … off` cannot take off.
    let finding = told.all("findings").find(|it| it["check"] == "other-program");
    let finding = finding.context("the program is not found")?.to_string();
    ensure!(finding.contains(&format!("(pid {})", std::process::id())), "{finding}");
    ensure!(!finding.contains("ip link set dev"), "{finding}");
    drop(attached);

    let _guard = site.guard()?;
    let mut elsewhere = site.command(&["doctor", "--json", "--interface", WAN]);
    elsewhere.args(["--pin-path", "/run/ctguard/elsewhere"]);
    let told = Told::by(&mut elsewhere)?;
    let found = told.found("other-program").context("the guard is not found")?;
    let pins = site.pins().display().to_string();
    ensure!(found.0 == "fault" && found.1.contains(&pins), "{found:?}");
    Ok(())
}

/// Fails when doctor looks for a bpffs at `/sys/fs/bpf`, which no guard needs.
#[test]
fn pins_that_would_die_with_the_command_are_told() -> Result<()> {
    const TEST: &str = "pins_that_would_die_with_the_command_are_told";
    if !require::root(TEST) || !require::release_binary(TEST) {
        return Ok(());
    }
    let site = Site::build()?;
    let lasts = Path::new("/run/ctguard").exists();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", site.guarded().name()]).arg(product::binary()?);
    let told = Told::by(command.args(["doctor", "--json", "--interface", WAN]))?;
    let found = told.found("bpffs").map(|(severity, _)| severity);
    ensure!(found == (!lasts).then_some("fault"), "{found:?}, and one that lasts: {lasts}");
    Ok(())
}

#[test]
fn a_container_is_told_that_pins_die_with_it() -> Result<()> {
    const TEST: &str = "a_container_is_told_that_pins_die_with_it";
    if !require::root(TEST) || !require::program(TEST, "unshare") {
        return Ok(());
    }
    let site = Site::build()?;
    let mut command = site.guarded().command("unshare");
    command.args(["--pid", "--fork", "--mount", "--mount-proc"]).arg(product::binary()?);
    let told = Told::by(command.args(["doctor", "--json", "--interface", WAN]))?;
    ensure!(told.found("bpffs") == Some(("warning", "pins die with this container")));
    Ok(())
}

#[test]
fn root_without_a_capability_is_told_which_one() -> Result<()> {
    const TEST: &str = "root_without_a_capability_is_told_which_one";
    if !require::root(TEST) || !require::program(TEST, "setpriv") {
        return Ok(());
    }
    let site = Site::build()?;
    for (kept, missing) in [("-bpf,-sys_admin", "CAP_BPF"), ("-net_admin", "CAP_NET_ADMIN")] {
        let mut command = site.guarded().command("setpriv");
        command.arg(format!("--bounding-set={kept}")).arg("--").arg(product::binary()?);
        let told = Told::by(command.args(["doctor", "--json", "--interface", WAN]))?;
        let found = told.found("rights").context("the missing capability is not found")?;
        ensure!(found.0 == "fault" && found.1.contains(missing), "{found:?}");
    }
    Ok(())
}
