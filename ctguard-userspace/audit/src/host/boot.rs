//! Which modules are loaded at boot, and with which options.
//!
//! `modules-load.d` is read like `sysctl.d`. All files of `modprobe.d` count, and the last option for
//! a parameter wins (modprobe.d(5)).

use super::machine::{Host, TOPS, Unread};

/// Debian's older list.
const MODULES: &str = "/etc/modules";
const OF_UDEV: [&str; 4] = ["/etc", "/run", "/usr/lib", "/lib"];
const SCRIPTS: [&str; 3] = ["/etc/rc.local", "/etc/rc.d/rc.local", "/etc/init.d/local"];

#[derive(Clone, Debug, Default)]
pub struct Boot {
    /// The files that name modules, and the modules.
    pub loaded: Vec<(String, String)>,
    /// The last `options nf_conntrack hashsize=`: its file and its value.
    pub hashsize: Option<(String, String)>,
    pub has_udev_rule: bool,
    /// A script that sets the size of the hash.
    pub hashsize_script: Option<String>,
    /// Conntrack is part of the kernel, not a module.
    pub built_in: bool,
}

impl Boot {
    pub fn read(host: &Host) -> Result<Self, Unread> {
        let mut boot = Self { built_in: host.is_built_in("nf_conntrack")?, ..Self::default() };
        let mut lists = host.drop_ins(&TOPS, "modules-load.d", ".conf")?;
        lists.push(MODULES.to_owned());
        for file in lists {
            let text = host.text(&file)?.unwrap_or_default();
            let names = text.lines().filter_map(|line| line.split_whitespace().next());
            let names = names.filter(|name| !name.starts_with(['#', ';']));
            boot.loaded.extend(names.map(|name| (file.clone(), name.to_owned())));
        }
        for file in host.drop_ins(&TOPS, "modprobe.d", ".conf")? {
            let text = host.text(&file)?.unwrap_or_default();
            if let Some(value) = text.lines().filter_map(hashsize).next_back() {
                boot.hashsize = Some((file, value.to_owned()));
            }
        }
        for file in host.drop_ins(&OF_UDEV, "udev/rules.d", ".rules")? {
            boot.has_udev_rule |= has_line(host, &file, &["nf_conntrack"])?;
        }
        for file in SCRIPTS {
            let sets = ["nf_conntrack/parameters/hashsize", "nf_conntrack_buckets"];
            let found = has_line(host, file, &sets)?.then(|| file.to_owned());
            boot.hashsize_script = found.or(boot.hashsize_script);
        }
        Ok(boot)
    }

    /// Whether conntrack is loaded before sysctl files are applied, or they are applied again then.
    pub fn conntrack_is_early(&self) -> bool {
        self.built_in
            || self.has_udev_rule
            || self.loaded.iter().any(|(_, module)| module == "nf_conntrack")
    }
}

fn has_line(host: &Host, file: &str, words: &[&str]) -> Result<bool, Unread> {
    let text = host.text(file)?.unwrap_or_default();
    let mut lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    Ok(lines.any(|line| words.iter().any(|word| line.contains(word))))
}

/// N, of a line `options nf_conntrack hashsize=N`.
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
