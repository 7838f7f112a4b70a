//! Which modules are loaded at boot, by whom, and with which options.
//!
//! systemd and `OpenRC` read `modules-load.d` like `sysctl.d`; systemd takes the whole line as a name.
//! `OpenRC` reads `/etc/conf.d/modules` besides, and older Red Hats run `/etc/sysconfig/modules`. systemd reads
//! `modules_load=` of the kernel's command line too, and heeds the blacklist of `modprobe.d`. procd
//! reads `/etc/modules.d` alone, where a line may have parameters, and no `modprobe.d`.

use super::{
    machine::{Host, TOPS, Unread},
    modprobe::{
        COMMAND_LINE, CONNTRACK, Dependencies, HeldBack, Install, Modprobe, Parameter, underscores,
    },
};

/// Debian's older list, and Alpine's.
const MODULES: &str = "/etc/modules";
const OF_OPENRC: &str = "/etc/conf.d/modules";
const OF_RED_HAT: &str = "/etc/sysconfig/modules";
const OF_PROCD: &str = "/etc/modules.d";
const OF_UDEV: [&str; 4] = ["/etc", "/run", "/usr/lib", "/lib"];
const SCRIPTS: [&str; 3] = ["/etc/rc.local", "/etc/rc.d/rc.local", "/etc/init.d/local"];

/// What starts a machine, and so decides which files count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Init {
    Systemd,
    /// `OpenWrt`.
    Procd,
    /// `OpenRC`, or scripts of System V.
    #[default]
    Scripts,
}

impl Init {
    pub fn of(host: &Host) -> Self {
        let is_there = |path: &&str| host.is_there(path);
        if ["/sbin/procd", "/etc/openwrt_release"].iter().any(is_there) {
            return Self::Procd;
        }
        // A copy may lack one of them.
        let systemd = ["/run/systemd/system", "/usr/lib/systemd/systemd", "/lib/systemd/systemd"];
        if systemd.iter().any(is_there) { Self::Systemd } else { Self::Scripts }
    }
}

/// A module that is named for the next boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub file: String,
    /// As it is written.
    pub name: String,
    /// Whether there is such a module, as far as is known.
    pub exists: bool,
    pub brings_conntrack: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Boot {
    pub init: Init,
    pub loaded: Vec<Named>,
    pub modprobe: Modprobe,
    /// Rules of udev that apply settings when conntrack is loaded.
    pub udev_rules: Vec<String>,
    /// A script that sets the size of the hash.
    pub hashsize_script: Option<String>,
    /// Conntrack is part of the kernel, not a module.
    pub built_in: bool,
}

impl Boot {
    pub fn read(host: &Host) -> Result<Self, Unread> {
        let (built_in, init) = (host.is_built_in(CONNTRACK)?, Init::of(host));
        let modprobe =
            if init == Init::Procd { Modprobe::default() } else { Modprobe::read(host)? };
        let mut boot = Self { init, modprobe, built_in, ..Self::default() };
        boot.read_modules(host)?;
        for file in host.drop_ins(&OF_UDEV, "udev/rules.d", ".rules")? {
            let text = host.text(&file)?.unwrap_or_default();
            boot.udev_rules
                .extend(lines(&text).filter(|it| it.contains(CONNTRACK)).map(str::to_owned));
        }
        for file in SCRIPTS {
            let text = host.text(file)?.unwrap_or_default();
            let sets = ["nf_conntrack/parameters/hashsize", "nf_conntrack_buckets"];
            if lines(&text).any(|line| sets.iter().any(|word| line.contains(word))) {
                boot.hashsize_script = Some(file.to_owned());
            }
        }
        Ok(boot)
    }

    fn read_modules(&mut self, host: &Host) -> Result<(), Unread> {
        let known = Dependencies::read(host)?;
        let text = |file: &str| Ok(host.text(file)?.unwrap_or_default());
        if self.init == Init::Procd {
            for name in host.names(OF_PROCD)? {
                let file = format!("{OF_PROCD}/{name}");
                self.add_procd(&known, &file, &text(&file)?);
            }
            return Ok(());
        }
        if self.init == Init::Systemd {
            for name in self.modprobe.loads.clone() {
                self.add(&known, COMMAND_LINE, &name);
            }
        }
        let mut lists = host.drop_ins(&TOPS, "modules-load.d", ".conf")?;
        lists.push(MODULES.to_owned());
        for file in lists {
            for line in lines(&text(&file)?).filter(|line| !line.starts_with(';')) {
                // Where scripts read the list, parameters may follow.
                let name = line.split_ascii_whitespace().next().unwrap_or_default();
                let is_whole = self.init == Init::Systemd;
                self.add(&known, &file, if is_whole { line } else { name });
            }
        }
        for line in lines(&text(OF_OPENRC)?) {
            if let Some((variable, names)) = line.split_once('=')
                && variable.trim().starts_with("modules")
            {
                let names = names.split(['"', '\'', ' ', '\t']).filter(|name| !name.is_empty());
                names.for_each(|name| self.add(&known, OF_OPENRC, name));
            }
        }
        for name in host.names(OF_RED_HAT)?.iter().filter(|name| name.ends_with(".modules")) {
            let file = format!("{OF_RED_HAT}/{name}");
            // They are run, if they are executable.
            let modprobes = if host.is_executable(&file) { text(&file)? } else { String::new() };
            for line in lines(&modprobes).filter(|line| line.contains("modprobe")) {
                let words =
                    line.split_ascii_whitespace().skip_while(|it| !it.ends_with("modprobe"));
                let names = words.skip(1).take_while(|word| !word.contains(['>', '|', ';', '&']));
                let names = names.filter(|word| !word.starts_with('-'));
                names.for_each(|name| self.add(&known, &file, name));
            }
        }
        Ok(())
    }

    fn add(&mut self, known: &Dependencies, file: &str, name: &str) {
        let spelt = underscores(name);
        let alias = self.modprobe.alias(&spelt);
        let module = known.module(alias.unwrap_or(&spelt));
        // systemd heeds the blacklist, modprobe only where a name stands for another module.
        let is_held_back = |module: &str| {
            let heeds = self.init == Init::Systemd || module != spelt;
            heeds && self.modprobe.is_blacklisted(module)
        };
        let brings = module.filter(|module| !is_held_back(module)).is_some_and(|module| {
            known.needs_conntrack(module)
                || self.modprobe.along_with(module).any(|along| known.needs_conntrack(along))
        });
        let exists = module.is_some() || alias.is_some();
        let (file, name) = (file.to_owned(), name.to_owned());
        let named = Named { file, name, exists, brings_conntrack: brings };
        self.loaded.push(named);
    }

    fn add_procd(&mut self, known: &Dependencies, file: &str, text: &str) {
        for (number, line) in (1..).zip(text.lines()) {
            let mut words = line.split_ascii_whitespace();
            let Some(name) = words.next().filter(|name| !name.starts_with('#')) else { continue };
            self.add(known, file, name);
            if underscores(name) == CONNTRACK {
                self.modprobe.note(file, &[(number, line)], words);
            }
        }
    }

    /// Whether the next boot sets this key: conntrack is loaded before sysctl files are applied, or
    /// they are applied again then.
    pub fn sets_in_time(&self, key: &str) -> bool {
        let rule = |rule: &String| {
            let prefix =
                if key.starts_with("net.nf_") { "net/nf_conntrack" } else { "net/netfilter" };
            !rule.contains("--prefix") || rule.replace('.', "/").contains(prefix)
        };
        self.built_in
            || self.udev_rules.iter().any(rule)
            || self.install().is_some_and(|install| install.applies(key))
            || !self.is_blocked() && self.loaded.iter().any(|named| named.brings_conntrack)
    }

    pub fn install(&self) -> Option<&Install> {
        self.modprobe.install.as_ref()
    }

    pub fn is_blocked(&self) -> bool {
        self.modprobe.is_refused || self.install().is_some_and(Install::blocks)
    }

    /// What keeps a list of modules from loading conntrack by its name.
    pub fn held_back(&self) -> impl Iterator<Item = &HeldBack> {
        let all = self.modprobe.held_back.iter();
        // Only systemd heeds the blacklist.
        all.filter(|it| self.init == Init::Systemd || it.text.starts_with("alias"))
    }

    /// The size of the hash with which the module is loaded. A kernel of which conntrack is part knows
    /// only its own command line.
    pub fn hashsize(&self) -> Option<&Parameter> {
        let last = self.modprobe.last("hashsize");
        last.filter(|found| !self.built_in || found.file.starts_with("/proc"))
    }
}

/// Trimmed lines that are neither empty nor a comment.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::{super::testing::Fake, *};

    const MAX: &str = "net.netfilter.nf_conntrack_max";
    const OLD_MAX: &str = "net.nf_conntrack_max";

    fn with(files: &[(&str, &str)]) -> Boot {
        let fake = Fake::new("boot", &[("/proc/sys/kernel/osrelease", "6.1\n")]);
        for (path, text) in files {
            fake.write(path, text);
        }
        Boot::read(&fake.host).unwrap()
    }

    #[test]
    fn a_module_counts_as_early_by_any_list_that_the_system_reads() {
        let is_early = |files: &[(&str, &str)]| with(files).sets_in_time(MAX);
        assert!(!is_early(&[]));
        for (file, text) in [
            ("/etc/modules-load.d/a.conf", "# nf_conntrack\n nf-conntrack \n"),
            ("/usr/lib/modules-load.d/a.conf", "nf_conntrack_ftp\n"),
            ("/etc/modules-load.d/lb.conf", "ip_vs\n"),
            ("/etc/modules", "nf_conntrack hashsize=5\n"),
            ("/etc/conf.d/modules", "modules=\"loop nf_conntrack\"\n"),
            ("/etc/udev/rules.d/9.rules", "ACTION==\"add\", KERNEL==\"nf_conntrack\"\n"),
            ("/lib/modules/6.1/modules.builtin", "kernel/net/netfilter/nf_conntrack.ko\n"),
        ] {
            assert!(is_early(&[(file, text)]), "{file}");
        }
        assert!(!is_early(&[("/etc/modules.d/nf-conntrack", "nf_conntrack\n")]), "only procd");
        let procd = ("/etc/openwrt_release", "");
        assert!(is_early(&[procd, ("/etc/modules.d/nf-conntrack", "nf_conntrack\n")]));
        assert!(!is_early(&[procd, ("/etc/modules-load.d/a.conf", "nf_conntrack\n")]));
        let block = ("/etc/modprobe.d/no.conf", "install nf_conntrack /bin/true\n");
        assert!(!is_early(&[block, ("/etc/modules-load.d/a.conf", "nf_conntrack\n")]));
        let soft = ("/etc/modprobe.d/s.conf", "softdep dummy post: nf_conntrack\n");
        assert!(is_early(&[soft, ("/etc/modules-load.d/a.conf", "dummy\n")]));
    }

    /// Measured with kmod 30: `modprobe -b` does as systemd does.
    #[test]
    fn a_module_that_is_held_back_is_early_only_by_what_needs_it() {
        let is_early = |files: &[(&str, &str)]| with(files).sets_in_time(MAX);
        let systemd = ("/usr/lib/systemd/systemd", "");
        let list = ("/etc/modules-load.d/a.conf", "nf_conntrack\n");
        let needs = ("/etc/modules-load.d/b.conf", "nf_nat\n");
        for (file, text) in [
            ("/etc/modprobe.d/no.conf", "blacklist nf-conntrack\n"),
            ("/etc/modprobe.d/no.conf", "alias nf_conntrack off\n"),
            ("/proc/cmdline", "modprobe.blacklist=nf_conntrack\n"),
        ] {
            assert!(!is_early(&[systemd, list, (file, text)]), "{text}");
            assert!(is_early(&[systemd, list, needs, (file, text)]), "{text}");
            assert!(with(&[systemd, list, (file, text)]).held_back().next().is_some());
            assert!(with(&[systemd, list, (file, text)]).loaded.iter().all(|it| it.exists));
        }
        let black =
            ("/etc/modprobe.d/no.conf", "blacklist nf_conntrack\nalias flows nf_conntrack\n");
        assert!(is_early(&[list, black]), "modprobe loads what it is asked for by name");
        let alias = ("/etc/modules-load.d/a.conf", "flows\n");
        assert!(!is_early(&[alias, black]), "but not by an alias");
        let refused = ("/proc/cmdline", "module_blacklist=nf_conntrack\n");
        assert!(!is_early(&[systemd, needs, refused]));
    }

    #[test]
    fn aliases_and_the_kernels_command_line_name_modules_too() {
        let is_early = |files: &[(&str, &str)]| with(files).sets_in_time(MAX);
        let alias = ("/etc/modprobe.d/a.conf", "alias flows nf_conntrack\n");
        let list = ("/etc/modules-load.d/a.conf", "flows\n");
        assert!(is_early(&[alias, list]) && !is_early(&[list]));
        let line = ("/proc/cmdline", "quiet modules-load=dummy,nf-conntrack\n");
        assert!(!is_early(&[line]), "only systemd reads it");
        assert!(is_early(&[("/usr/lib/systemd/systemd", ""), line]));
    }

    #[test]
    fn a_line_of_more_words_is_no_module_to_systemd() {
        let line = ("/etc/modules-load.d/a.conf", "nf_conntrack hashsize=5\n");
        assert!(with(&[line]).sets_in_time(MAX));
        assert!(!with(&[line, ("/usr/lib/systemd/systemd", "")]).sets_in_time(MAX));
    }

    #[test]
    fn a_script_for_modules_counts_only_if_it_is_executable() {
        let fake = Fake::new("boot-script", &[("/proc/sys/kernel/osrelease", "3.10.0-1160\n")]);
        let file = "/etc/sysconfig/modules/ipvs.modules";
        fake.write(file, "#!/bin/sh\n/sbin/modprobe -q -- nf_conntrack_ipv4 >/dev/null 2>&1\n");
        let is_early = || Boot::read(&fake.host).unwrap().sets_in_time(MAX);
        fs::set_permissions(fake.host.path(file), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(!is_early());
        fs::set_permissions(fake.host.path(file), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(is_early());
    }

    #[test]
    fn a_rule_of_udev_sets_what_its_prefixes_name() {
        let rule = |prefixes: &str| {
            let line = format!("KERNEL==\"nf_conntrack\", RUN+=\"systemd-sysctl {prefixes}\"\n");
            with(&[("/etc/udev/rules.d/9.rules", &line)])
        };
        let new = rule("--prefix=/net/netfilter");
        assert!(new.sets_in_time(MAX) && !new.sets_in_time(OLD_MAX));
        let both = rule("--prefix=/net/netfilter --prefix=/net/nf_conntrack_max");
        assert!(both.sets_in_time(MAX) && both.sets_in_time(OLD_MAX));
    }

    #[test]
    fn a_kernel_with_conntrack_built_in_reads_no_modprobe_d() {
        let built_in =
            ("/lib/modules/6.1/modules.builtin", "kernel/net/netfilter/nf_conntrack.ko\n");
        let option = ("/etc/modprobe.d/a.conf", "options nf_conntrack hashsize=5\n");
        assert_eq!(with(&[built_in, option]).hashsize(), None);
        assert!(with(&[option]).hashsize().is_some());
        let line = ("/proc/cmdline", "nf_conntrack.hashsize=6\n");
        assert!(with(&[built_in, line]).hashsize().is_some());
    }

    #[test]
    fn a_script_that_sets_the_hash_is_found_and_a_comment_in_it_is_not() {
        let found = |text: &str| with(&[("/etc/rc.local", text)]).hashsize_script;
        assert_eq!(found("#echo 1 > nf_conntrack_buckets\n"), None);
        let line = "echo 1 > /sys/module/nf_conntrack/parameters/hashsize\n";
        assert_eq!(found(line).as_deref(), Some("/etc/rc.local"));
    }
}
