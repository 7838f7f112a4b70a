//! Lines that say which modules are loaded, how, and with which parameters, and are wrong.

use super::finding::{Finding, Findings};
use crate::host::{Boot, MAX, Named, Parameter, TableNumbers};

pub(super) fn check(boot: &Boot, table: Option<TableNumbers>, findings: &mut Findings) {
    findings.add(boot.loaded.iter().filter_map(unknown_module));
    findings.add(unknown_parameters(boot));
    findings.add(install(boot, table));
}

fn unknown_module(Named { file, name, exists, .. }: &Named) -> Option<Finding> {
    let spelt = name.replace('-', "_");
    let is_ours = spelt.contains("nf_conntrack") || spelt.starts_with("ip_conntrack");
    let (check, why) = if name.contains(char::is_whitespace) {
        (
            "module-line",
            "systemd takes the whole line as the module's name: conntrack is not loaded. Parameters \
             belong into modprobe.d",
        )
    } else {
        (
            "gone-module",
            "this kernel has no such module; what was nf_conntrack_ipv4 and _ipv6 until Linux 4.18 is \
             now part of nf_conntrack",
        )
    };
    let finding = Finding::fault(check, format!("{file} loads {name}, which does not exist"));
    let finding = finding.read(file, name).because(why);
    let command = format!("sed -i 's/^[ \\t]*{name}[ \\t]*$/nf_conntrack/' {file}");
    finding.by_editing(file, command).when(is_ours && !exists)
}

/// Advice on the web gives the module parameters that it does not have, such as `nf_conntrack_max`.
fn unknown_parameters(boot: &Boot) -> impl Iterator<Item = Finding> {
    let all = &boot.modprobe.parameters;
    // What follows a comment sign is taken for parameters as well, and does no harm.
    let is_wrong = |it: &&Parameter| {
        !it.is_known() && it.name.contains("conntrack") && it.name != "nf_conntrack"
    };
    all.iter().filter(is_wrong).map(move |wrong| {
        let Parameter { file, line, is_joined, name, .. } = wrong;
        let what =
            format!("{} sets a parameter {name}, which conntrack does not have", wrong.place());
        let finding = Finding::warning("unknown-parameter", what)
            .read(wrong.place(), name)
            .because("the kernel ignores it; the maximum and the timeouts are set by sysctl");
        let is_here = |it: &&Parameter| it.file == *file && it.line == *line;
        let is_alone = !is_joined && all.iter().filter(is_here).count() == 1;
        let command = if is_alone {
            format!("sed -i '{line}d' {file}")
        } else {
            // The kernel takes a dash for an underscore (`parameq`, kernel/params.c). A backslash at the
            // end joins the next line.
            let spelt = name.replace('_', "[-_]");
            format!("sed -i '{line}s/\\(^\\|[ \\t]\\){spelt}\\(=[^ \\t\\\\]*\\)\\?\\([ \\t\\\\]\\|$\\)/\\3/' {file}")
        };
        finding.by_editing(file, command)
    })
}

fn install(boot: &Boot, table: Option<TableNumbers>) -> Option<Finding> {
    let install = boot.install()?;
    let (place, command) = (&install.place, &install.command);
    if install.blocks() {
        let what = format!("{place} keeps conntrack from being loaded");
        return Finding::warning("blocked", what)
            .read(place, command)
            .because(
                "it is loaded now, but not after the next boot: rules that need it will fail, unless \
                 an initial RAM disk loads it",
            )
            .when(table.is_some() && !boot.built_in);
    }
    let repeats = install.repeats_options() && boot.hashsize().is_some();
    let note = Finding::note("install-line", format!("{place} says how conntrack is loaded"));
    let note = note.read(place, command);
    if repeats {
        return Some(note.because(
            "options of the module are given twice there, by modprobe and by the modprobe that it \
             runs; set the hash by net.netfilter.nf_conntrack_buckets in sysctl.d instead",
        ));
    }
    let why = if install.applies(MAX) {
        "whenever conntrack is loaded, settings of sysctl.d are applied again"
    } else {
        "modprobe runs this command instead of loading the module; what it sets comes after sysctl.d"
    };
    Some(note.because(why))
}
