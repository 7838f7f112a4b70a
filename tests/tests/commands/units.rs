//! The systemd units in `packaging/`: what they restrict, and that the daemon works with what is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    exec,
    product::{Site, WAN, answer, wait_for},
    require,
};

/// Those of the daemon, whose mounts and pins are to outlive it.
const DAEMONS: [&str; 2] = ["ctguard.service", "ctguard@.service"];

/// What gives a service a mount namespace (`exec_needs_mount_namespace`, systemd's `src/core/execute.c`),
/// or a user namespace, where its capabilities are worth nothing.
const NAMESPACES: [&str; 36] = [
    "BindPaths",
    "BindReadOnlyPaths",
    "DynamicUser",
    "ExecPaths",
    "ExtensionDirectories",
    "ExtensionImages",
    "IPCNamespacePath",
    "InaccessiblePaths",
    "LogNamespace",
    "MountAPIVFS",
    "MountFlags",
    "MountImages",
    "NetworkNamespacePath",
    "NoExecPaths",
    "PrivateBPF",
    "PrivateDevices",
    "PrivateIPC",
    "PrivateMounts",
    "PrivateNetwork",
    "PrivatePIDs",
    "PrivateTmp",
    "PrivateUsers",
    "ProcSubset",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "ReadOnlyPaths",
    "ReadWritePaths",
    "RootDirectory",
    "RootImage",
    "TemporaryFileSystem",
];

/// Fails when pins that a unit's daemon makes would vanish with it.
#[test]
fn no_daemon_has_a_mount_namespace_of_its_own() -> Result<()> {
    for unit in DAEMONS {
        for (key, _) in options(unit)? {
            ensure!(!NAMESPACES.contains(&key.as_str()), "{unit} has {key}");
        }
    }
    Ok(())
}

/// Fails when a unit is more exposed than docs/threat-model.md says.
#[test]
fn units_are_exposed_no_more_than_documented() -> Result<()> {
    if !require::program("units_are_exposed_no_more_than_documented", "systemd-analyze") {
        return Ok(());
    }
    let version = exec::run(Command::new("systemd-analyze").arg("--version"))?;
    if !version.starts_with("systemd 252") {
        println!("not tried: another release may weigh options otherwise: {version}");
        return Ok(());
    }
    let page = fs::read_to_string(repository().join("docs/threat-model.md"))?;
    for unit in DAEMONS.iter().chain(&["ctguard-metrics.service"]) {
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["security", "--offline=yes", "--no-pager"]).arg(path(unit));
        let said = exec::run(&mut analyze)?;
        let (_, said) = said.split_once("Overall exposure level").context("no exposure level")?;
        let exposure: f64 =
            said.split(' ').find_map(|word| word.parse().ok()).context("a number")?;
        println!("{unit}: {exposure}");
        let row = page.lines().find(|line| line.starts_with(&format!("| `{unit}` |")));
        let documented = row.and_then(|row| row.split('|').nth(2)?.trim().parse::<f64>().ok());
        let documented = documented.with_context(|| format!("no row for {unit}"))?;
        ensure!(exposure <= documented, "{unit}: {exposure}, {documented} is documented");
    }
    Ok(())
}

/// Fails when the daemon or a command that the unit runs makes a system call that the unit refuses.
#[test]
fn the_unit_allows_every_system_call_of_the_daemon() -> Result<()> {
    let test = "the_unit_allows_every_system_call_of_the_daemon";
    if !require::root(test)
        || !require::program(test, "strace")
        || !require::program(test, "systemd-analyze")
    {
        return Ok(());
    }
    let site = Site::build()?;
    let counts = tempfile::tempdir()?;
    let traced = |name: &str, arguments: &[&str]| -> Result<(Command, PathBuf)> {
        let file = counts.path().join(name);
        let mut command = site.guarded().command("strace");
        // The tracer is a grandchild, so signals reach ctguard.
        command.args(["-D", "-f", "-c", "-o"]).arg(&file);
        command.arg(ctguard_tests::product::binary()?).args(arguments);
        Ok((command, file))
    };
    let (command, daemon_calls) = traced("daemon", &["run", "-i", WAN, "--on-exit", "keep"])?;
    let daemon = site.start_by(command)?;
    site.succeed(&["deny", "add", "203.0.113.0/24"])?;
    fs::remove_file(site.pins().join("policy"))?;
    wait_for("the pin, made again", || Ok(site.pins().join("policy").exists().then_some(())))?;
    let (mut command, reload_calls) = traced("reload", &["reload"])?;
    ensure!(answer(&mut command)?.code == Some(0));
    ensure!(daemon.stop()?.success());
    let (mut command, detach_calls) = traced("detach", &["detach"])?;
    ensure!(answer(&mut command)?.code == Some(0));

    let allowed = allowed()?;
    for file in [daemon_calls, reload_calls, detach_calls] {
        let made = wait_for("the counts", || {
            let names = names(&fs::read_to_string(&file).unwrap_or_default());
            Ok((!names.is_empty()).then_some(names))
        })?;
        let refused: Vec<_> = made.difference(&allowed).collect();
        ensure!(refused.is_empty(), "{}: {refused:?}", file.display());
        ensure!(made.contains("bpf"), "{made:?}");
    }
    Ok(())
}

/// What the unit of the daemon allows, by systemd's own groups.
fn allowed() -> Result<BTreeSet<String>> {
    let shown = exec::run(Command::new("systemd-analyze").args(["syscall-filter", "--no-pager"]))?;
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut group = "";
    for line in shown.lines() {
        let word = line.trim().trim_start_matches("# ");
        if line.starts_with('@') {
            group = word;
        } else if line.starts_with(' ') && !line.trim().starts_with('#') {
            groups.entry(group).or_default().push(word);
        }
    }
    let filter = options(DAEMONS[0])?.into_iter().find(|(key, _)| key == "SystemCallFilter");
    let (_, filter) = filter.context("the unit has no filter")?;
    let (mut allowed, mut open) = (BTreeSet::new(), filter.split(' ').collect::<Vec<_>>());
    while let Some(name) = open.pop() {
        match groups.get(name) {
            Some(names) => open.extend(names),
            None => drop(allowed.insert(name.to_owned())),
        }
    }
    Ok(allowed)
}

/// The last column of `strace -c`.
fn names(counts: &str) -> BTreeSet<String> {
    let rows =
        counts.lines().filter(|row| row.trim().starts_with(|first: char| first.is_ascii_digit()));
    let names = rows.filter_map(|row| row.split_whitespace().last());
    names.filter(|name| *name != "total").map(str::to_owned).collect()
}

fn options(unit: &str) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(path(unit))?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let options = lines.filter_map(|line| line.split_once('='));
    Ok(options.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

fn path(unit: &str) -> PathBuf {
    repository().join("packaging").join(unit)
}

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
