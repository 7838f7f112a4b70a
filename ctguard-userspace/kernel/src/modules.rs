//! Whether the kernel has a part of netfilter that answers over netlink. The kernel loads the module
//! of a part that is asked for (`nfnetlink_rcv_msg`, `net/netfilter/nfnetlink.c`), on the host if a
//! container asks, so who must load nothing finds out before.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::Path,
    sync::OnceLock,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    NfTables,
    Ctnetlink,
    /// Policies of `ct timeout` that belong to no table.
    Timeouts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// To ask loads nothing.
    Askable,
    Absent,
    /// It is not loaded as a module, and nothing says whether it is built in.
    Unknown,
}

impl Part {
    pub const fn module(self) -> &'static str {
        match self {
            Self::NfTables => "nf_tables",
            Self::Ctnetlink => "nf_conntrack_netlink",
            Self::Timeouts => "nfnetlink_cttimeout",
        }
    }

    /// A function of it, by which a kernel that has it built in is known.
    const fn function(self) -> &'static str {
        match self {
            Self::NfTables => "nft_register_expr",
            Self::Ctnetlink => "ctnetlink_dump_table",
            Self::Timeouts => "cttimeout_get_timeout",
        }
    }

    pub fn presence(self) -> Presence {
        // What is built in stays so; modules come and go.
        static BUILT_IN: [OnceLock<Presence>; 3] =
            [OnceLock::new(), OnceLock::new(), OnceLock::new()];
        let root = Path::new("/");
        if is_loaded(root, self) {
            return Presence::Askable;
        }
        *BUILT_IN[self as usize].get_or_init(|| without_module(root, self))
    }

    /// The same of a machine whose files are below `root`.
    pub fn presence_at(self, root: &Path) -> Presence {
        if is_loaded(root, self) { Presence::Askable } else { without_module(root, self) }
    }
}

fn is_loaded(root: &Path, part: Part) -> bool {
    root.join("sys/module").join(part.module()).exists()
}

fn without_module(root: &Path, part: Part) -> Presence {
    let text = |path: &str| fs::read_to_string(root.join(path)).ok();
    let cannot_load = match text("proc/modules") {
        Some(loaded) if loaded.lines().any(|line| names(line, part)) => true,
        Some(_) => {
            text("proc/sys/kernel/modules_disabled").is_some_and(|value| value.trim() == "1")
        }
        // A kernel without modules, unless all such files are hidden (`subset=pid`).
        None => !root.join("proc/modules").exists() && root.join("proc/filesystems").exists(),
    };
    if cannot_load {
        return Presence::Askable;
    }
    let release = text("proc/sys/kernel/osrelease").unwrap_or_default();
    let list = format!("lib/modules/{}/modules.builtin", release.trim());
    match text(&list) {
        Some(list) if list.contains(&format!("/{}.ko", part.module())) => Presence::Askable,
        Some(_) => Presence::Absent,
        None => by_functions(root, part.function()),
    }
}

/// A line of `/proc/modules` begins with a name.
fn names(line: &str, part: Part) -> bool {
    line.split_whitespace().next() == Some(part.module())
}

/// `/proc/kallsyms` has lines `address type name`, which anybody may read but for the addresses.
fn by_functions(root: &Path, function: &str) -> Presence {
    let Ok(file) = File::open(root.join("proc/kallsyms")) else { return Presence::Unknown };
    let mut found = Presence::Unknown;
    for line in BufReader::new(file).split(b'\n') {
        let Ok(line) = line else { return Presence::Unknown };
        let Some(name) = line.split(|&byte| byte == b' ').nth(2) else { continue };
        found = Presence::Absent;
        // Compilers add endings such as `.llvm.1234`; a module's name follows a tab.
        let rest = name.strip_prefix(function.as_bytes());
        if rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'.' | b'\t'))) {
            return Presence::Askable;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: (&str, &str) = ("proc/sys/kernel/osrelease", "6.8.0-40-generic\n");
    const MODULES: (&str, &str) = ("proc/modules", "bridge 380928 0 - Live 0x0000000000000000\n");
    const SYMBOLS: &str = "0000000000000000 T _text\n0000000000000000 t ctnetlink_dump_table\n";
    const BUILT_IN: &str = "lib/modules/6.8.0-40-generic/modules.builtin";

    fn presence(part: Part, files: &[(&str, &str)]) -> Presence {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        part.presence_at(root.path())
    }

    /// Fails when a container without `/lib/modules` makes the host load a module.
    #[test]
    fn a_container_without_a_list_of_modules_asks_only_for_what_the_kernel_has() {
        let of = |part, symbols| presence(part, &[RELEASE, MODULES, ("proc/kallsyms", symbols)]);
        assert_eq!(of(Part::NfTables, SYMBOLS), Presence::Absent);
        assert_eq!(of(Part::Ctnetlink, SYMBOLS), Presence::Askable);
        let similar = "0 t cttimeout_get_timeout_of_others\n";
        assert_eq!(of(Part::Timeouts, similar), Presence::Absent);
        assert_eq!(of(Part::NfTables, "0 T nft_register_expr.llvm.12\n"), Presence::Askable);
        assert_eq!(of(Part::NfTables, "0 T nft_register_expr\t[nf_tables]\n"), Presence::Askable);
        assert_eq!(of(Part::NfTables, ""), Presence::Unknown, "hidden");
        assert_eq!(presence(Part::NfTables, &[RELEASE, MODULES]), Presence::Unknown);
    }

    #[test]
    fn a_module_that_is_loaded_is_asked_and_one_that_is_not_is_absent() {
        let list = (BUILT_IN, "kernel/net/netfilter/nfnetlink.ko\n");
        let of = |file| presence(Part::NfTables, &[RELEASE, MODULES, list, file]);
        assert_eq!(of(("etc/hostname", "")), Presence::Absent);
        assert_eq!(of(("sys/module/nf_tables/refcnt", "2\n")), Presence::Askable);
        assert_eq!(of(("proc/modules", "nf_tables 380928 2 - Live 0x0\n")), Presence::Askable);
        assert_eq!(of((BUILT_IN, "kernel/net/netfilter/nf_tables.ko\n")), Presence::Askable);
    }

    #[test]
    fn a_kernel_that_cannot_load_modules_may_be_asked_for_anything() {
        let filesystems = ("proc/filesystems", "nodev\tsysfs\n");
        assert_eq!(presence(Part::Timeouts, &[RELEASE, filesystems]), Presence::Askable);
        assert_eq!(presence(Part::Timeouts, &[]), Presence::Unknown, "only processes are shown");
        let locked = ("proc/sys/kernel/modules_disabled", "1\n");
        assert_eq!(presence(Part::Timeouts, &[RELEASE, MODULES, locked]), Presence::Askable);
    }
}
