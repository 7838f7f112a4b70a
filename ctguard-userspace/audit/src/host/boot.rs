//! Which modules are loaded at boot, and with which options.
//!
//! `modules-load.d` is read as `sysctl.d` is; of `modprobe.d` every file counts, and of options for
//! one parameter the last (modprobe.d(5)).

use super::{Host, Unread};

const LOAD_DIRECTORIES: [&str; 5] = [
    "/etc/modules-load.d",
    "/run/modules-load.d",
    "/usr/local/lib/modules-load.d",
    "/usr/lib/modules-load.d",
    "/lib/modules-load.d",
];
const OPTION_DIRECTORIES: [&str; 5] = [
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
];
/// Debian's list from before `modules-load.d`.
const MODULES: &str = "/etc/modules";
const UDEV_DIRECTORIES: [&str; 4] =
    ["/etc/udev/rules.d", "/run/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d"];
/// Scripts that people put commands into which the next boot shall run.
const SCRIPTS: [&str; 3] = ["/etc/rc.local", "/etc/rc.d/rc.local", "/etc/init.d/local"];

/// A module that a file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedModule {
    pub file: String,
    pub module: String,
}

/// `options MODULE PARAMETER=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleOption {
    pub file: String,
    pub value: String,
}

/// What a machine does to conntrack when it boots.
#[derive(Clone, Debug, Default)]
pub struct Boot {
    /// Modules loaded at boot.
    pub loaded: Vec<NamedModule>,
    /// The last `options nf_conntrack hashsize=`.
    pub hashsize: Option<ModuleOption>,
    /// A udev rule that does something when conntrack appears.
    pub udev_rule: Option<String>,
    /// A script that sets the size of the hash.
    pub hashsize_script: Option<String>,
    /// Conntrack is part of the kernel, not a module.
    pub built_in: bool,
}

impl Boot {
    pub fn read(host: &Host) -> Result<Self, Unread> {
        let built_in = host.is_built_in("nf_conntrack")?;
        let mut boot = Self { built_in, ..Self::default() };
        for file in host.drop_ins(&LOAD_DIRECTORIES, ".conf")?.iter().chain([&MODULES.to_owned()]) {
            let text = host.text(file)?.unwrap_or_default();
            let names = text.lines().filter_map(|line| line.split_whitespace().next());
            let names = names.filter(|name| !name.starts_with(['#', ';']));
            boot.loaded.extend(
                names.map(|name| NamedModule { file: file.clone(), module: name.to_owned() }),
            );
        }
        for file in host.drop_ins(&OPTION_DIRECTORIES, ".conf")? {
            let text = host.text(&file)?.unwrap_or_default();
            if let Some(value) = text.lines().filter_map(hashsize).next_back() {
                boot.hashsize = Some(ModuleOption { file, value: value.to_owned() });
            }
        }
        for file in host.drop_ins(&UDEV_DIRECTORIES, ".rules")? {
            let text = host.text(&file)?.unwrap_or_default();
            if text.lines().any(|line| !line.starts_with('#') && line.contains("nf_conntrack")) {
                boot.udev_rule = Some(file);
            }
        }
        for file in SCRIPTS {
            let text = host.text(file)?.unwrap_or_default();
            let sets = |line: &str| {
                !line.trim_start().starts_with('#')
                    && (line.contains("nf_conntrack/parameters/hashsize")
                        || line.contains("nf_conntrack_buckets"))
            };
            if text.lines().any(sets) {
                boot.hashsize_script = Some(file.to_owned());
            }
        }
        Ok(boot)
    }

    /// Whether conntrack is there when sysctl files are read, or they are read again when it comes.
    pub fn conntrack_is_early(&self) -> bool {
        self.built_in
            || self.udev_rule.is_some()
            || self.loaded.iter().any(|named| named.module == "nf_conntrack")
    }
}

/// The hash size of a line `options nf_conntrack hashsize=N`.
fn hashsize(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    if words.next()? != "options" || words.next()? != "nf_conntrack" {
        return None;
    }
    words.filter_map(|word| word.strip_prefix("hashsize=")).next_back()
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Fake, *};

    #[test]
    fn options_of_other_modules_and_comments_are_passed_over() {
        assert_eq!(hashsize("options nf_conntrack  expect_hashsize=5 hashsize=1024"), Some("1024"));
        assert_eq!(hashsize("# options nf_conntrack hashsize=1024"), None);
        assert_eq!(hashsize("options nf_nat hashsize=1024"), None);
    }

    #[test]
    fn a_module_counts_as_early_by_file_by_rule_and_when_built_in() {
        let none = Fake::new("boot-none", &[("/proc/sys/kernel/osrelease", "6.1\n")]);
        assert!(!Boot::read(&none.host).unwrap().conntrack_is_early());
        none.write("/etc/modules-load.d/a.conf", "# nf_conntrack\n nf_conntrack \n");
        assert!(Boot::read(&none.host).unwrap().conntrack_is_early());

        let rule = Fake::new(
            "boot-rule",
            &[("/etc/udev/rules.d/9.rules", "ACTION==\"add\", KERNEL==\"nf_conntrack\"\n")],
        );
        assert!(Boot::read(&rule.host).unwrap().conntrack_is_early());

        let built_in = Fake::new(
            "boot-builtin",
            &[
                ("/proc/sys/kernel/osrelease", "6.1\n"),
                ("/lib/modules/6.1/modules.builtin", "kernel/net/netfilter/nf_conntrack.ko\n"),
            ],
        );
        assert!(Boot::read(&built_in.host).unwrap().conntrack_is_early());
    }

    #[test]
    fn a_script_that_sets_the_hash_is_found_and_a_comment_in_it_is_not() {
        let fake =
            Fake::new("boot-script", &[("/etc/rc.local", "#echo 1 > nf_conntrack_buckets\n")]);
        assert_eq!(Boot::read(&fake.host).unwrap().hashsize_script, None);
        fake.write("/etc/rc.local", "echo 1 > /sys/module/nf_conntrack/parameters/hashsize\n");
        let found = Boot::read(&fake.host).unwrap().hashsize_script;
        assert_eq!(found.as_deref(), Some("/etc/rc.local"));
    }
}
