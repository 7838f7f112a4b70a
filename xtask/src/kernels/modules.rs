//! The kernel modules that the guest loads, in the order of what they need.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Loaded at once: devices, VLANs, the places where programs are attached.
const BASE: &[&str] = &["llc", "stp", "garp", "mrp", "8021q", "veth", "sch_ingress", "cls_bpf"];

/// Loaded once ctguard was tried without: conntrack, and rules that use it.
const CONNTRACK: &[&str] = &[
    "libcrc32c",
    "nf_defrag_ipv4",
    "nf_defrag_ipv6",
    "nf_conntrack",
    "nfnetlink",
    "nf_conntrack_netlink",
    "nf_nat",
    "nf_tables",
    "nft_ct",
    "nft_chain_nat",
    "nft_masq",
];

/// Some kernels have these built in without saying so, or no more.
const OPTIONAL: &[&str] = &["libcrc32c"];

/// The files of the modules, by where the guest looks for them.
pub(super) fn find(unpacked: &Path) -> Result<Vec<(String, PathBuf)>> {
    let (mut files, mut built_in) = (BTreeMap::new(), String::new());
    // Where /usr is merged into /, and where it isn't.
    for modules in ["lib/modules", "usr/lib/modules"].map(|path| unpacked.join(path)) {
        if modules.is_dir() {
            collect(&modules, &mut files, &mut built_in)?;
        }
    }
    let mut found = Vec::new();
    for (stage, names) in [("base", BASE), ("conntrack", CONNTRACK)] {
        for (number, name) in names.iter().enumerate() {
            let is_built_in = built_in.lines().any(|line| line.ends_with(&format!("/{name}.ko")));
            match files.get(*name) {
                Some(path) => found.push((in_guest(stage, number, path), path.clone())),
                None if is_built_in || OPTIONAL.contains(name) => {}
                None => bail!("{} has no module {name}", unpacked.display()),
            }
        }
    }
    Ok(found)
}

fn in_guest(stage: &str, number: usize, path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("modules/{stage}/{number:02}-{name}")
}

fn collect(
    directory: &Path,
    files: &mut BTreeMap<String, PathBuf>,
    built_in: &mut String,
) -> Result<()> {
    let unreadable = || format!("cannot read {}", directory.display());
    for entry in fs::read_dir(directory).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_symlink() {
            // `build` and `source` lead out of the package.
        } else if path.is_dir() {
            collect(&path, files, built_in)?;
        } else if name == "modules.builtin" {
            *built_in += &fs::read_to_string(&path).with_context(unreadable)?;
        } else if let Some((module, _)) = name.split_once(".ko") {
            files.insert(module.to_owned(), path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_modules_sort_in_the_order_of_loading() {
        let first = in_guest("base", 2, Path::new("kernel/net/8021q/8021q.ko.xz"));
        let later = in_guest("base", 10, Path::new("kernel/drivers/net/veth.ko"));
        assert_eq!(first, "modules/base/02-8021q.ko.xz");
        assert!(first < later);
    }
}
