//! A machine of files below a directory, which tune works on as on any.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context as _, Result};
use ctguard_tests::product;

/// A machine of files: a router with the values of a small machine, and files of its own.
const MACHINE: &[(&str, &str)] = &[
    ("proc/meminfo", "MemTotal: 1048576 kB\nMemAvailable: 524288 kB\n"),
    ("proc/sys/net/ipv4/ip_forward", "1\n"),
    ("proc/sys/net/netfilter/nf_conntrack_count", "512\n"),
    ("proc/sys/net/netfilter/nf_conntrack_max", "7680\n"),
    ("proc/sys/net/netfilter/nf_conntrack_buckets", "7680\n"),
    ("proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", "432000\n"),
    ("proc/sys/net/netfilter/nf_conntrack_tcp_timeout_syn_sent", "120\n"),
    ("etc/sysctl.d/99-sysctl.conf", "# somebody else's\nnet.ipv4.ip_forward = 1\n"),
    ("usr/lib/systemd/systemd-sysctl", ""),
    ("usr/bin/udevadm", ""),
];

/// Files by path, without the directory that tune keeps its record in.
pub(super) type Files = BTreeMap<PathBuf, Option<Vec<u8>>>;

pub(super) struct Machine(pub(super) PathBuf);

impl Machine {
    pub(super) fn new(name: &str) -> Result<Self> {
        let root = std::env::temp_dir().join(format!("ctguard-tune-{}-{name}", std::process::id()));
        let machine = Self(root);
        for (path, text) in MACHINE {
            machine.write(path, text)?;
        }
        Ok(machine)
    }

    pub(super) fn files(&self) -> Result<Files> {
        let mut files = Files::new();
        collect(&self.0, &self.0, &mut files)?;
        Ok(files)
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(product::binary()?);
        command.args(["tune", "--root"]).arg(&self.0).args(arguments);
        Ok(command)
    }

    pub(super) fn tune(&self, arguments: &[&str]) -> Result<Output> {
        Ok(self.command(arguments)?.output()?)
    }

    pub(super) fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().context("a file has a directory")?)?;
        Ok(fs::write(path, text)?)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn collect(directory: &Path, root: &Path, files: &mut Files) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.strip_prefix(root)?.to_owned();
        if name == Path::new("var") {
            continue;
        }
        if path.is_dir() {
            files.insert(name, None);
            collect(&path, root, files)?;
        } else {
            files.insert(name, Some(fs::read(&path)?));
        }
    }
    Ok(())
}
