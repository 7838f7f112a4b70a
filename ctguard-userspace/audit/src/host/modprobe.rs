//! What modprobe does when it loads conntrack, read as `libkmod/libkmod-config.c` reads it, and which
//! modules bring conntrack with them.
//!
//! Files of `modprobe.d` come in the order of their names, the kernel's command line last. In names of
//! modules, a dash is an underscore. A backslash at a line's end continues it; only a `#` in the first
//! column begins a comment.

use std::collections::BTreeSet;

use super::machine::{Host, TOPS, Unread};

pub(super) const CONNTRACK: &str = "nf_conntrack";
pub(super) const COMMAND_LINE: &str = "/proc/cmdline";
/// Parameters that the module has, or has had (`net/netfilter/nf_conntrack_*.c`).
const PARAMETERS: [&str; 8] = [
    "hashsize",
    "expect_hashsize",
    "acct",
    "tstamp",
    "nf_conntrack_helper",
    "enable_hooks",
    "dyndbg",
    "async_probe",
];
/// Modules that became part of `nf_conntrack` in Linux 4.19 and 5.1.
const GONE: [&str; 3] = ["nf_conntrack_ipv4", "nf_conntrack_ipv6", "nf_conntrack_proto_gre"];
/// Modules that depend on conntrack, for a machine without `modules.dep`.
const DEPENDENTS: [&str; 13] = [
    "ip_conntrack",
    "nf_nat",
    "nf_conntrack_",
    "nf_nat_",
    "xt_conntrack",
    "xt_state",
    "xt_connlimit",
    "xt_MASQUERADE",
    "xt_nat",
    "iptable_nat",
    "nft_ct",
    "nft_masq",
    "ip_vs",
];

/// One parameter of `options nf_conntrack`, or of the kernel's command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// Whether a backslash joins that line with others.
    pub is_joined: bool,
    pub name: String,
    /// None for a name without `=`, which conntrack refuses for all but switches.
    pub value: Option<String>,
}

/// A line `install nf_conntrack`, which modprobe runs instead of loading the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    pub place: String,
    pub command: String,
}

/// A line that keeps whoever asks for conntrack by its name from loading it: `blacklist nf_conntrack`,
/// which systemd heeds and modprobe itself does not, or an alias to something else, such as `off`. Modules
/// that need conntrack load it all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBack {
    pub file: String,
    /// From 1.
    pub line: usize,
    pub text: String,
}

#[derive(Clone, Debug, Default)]
pub struct Modprobe {
    pub parameters: Vec<Parameter>,
    pub install: Option<Install>,
    pub held_back: Vec<HeldBack>,
    /// The kernel itself refuses to load conntrack (`module_blacklist=`).
    pub is_refused: bool,
    blacklist: BTreeSet<String>,
    /// Names, and the modules that they stand for.
    aliases: Vec<(String, String)>,
    /// `modules_load=` of the kernel's command line, which systemd reads.
    pub(super) loads: Vec<String>,
    /// Modules and those that modprobe loads along with them.
    softdeps: Vec<(String, Vec<String>)>,
}

/// What modules need, as depmod wrote it down.
#[derive(Clone, Debug, Default)]
pub(super) struct Dependencies {
    dep: Option<String>,
    aliases: String,
    built_in: String,
    is_old: bool,
}

pub(super) fn underscores(name: &str) -> String {
    name.replace('-', "_")
}

impl Parameter {
    pub fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }

    pub fn is_known(&self) -> bool {
        PARAMETERS.contains(&self.name.as_str())
    }
}

impl Install {
    /// Whether the command sets sysctls from all files once the module is there, and this one.
    pub fn applies(&self, key: &str) -> bool {
        let command = self.command.replace("[.]", ".").replace("\\.", ".");
        let all = command.contains("--system") || command.contains("systemd-sysctl");
        let matches = command.split_whitespace().skip_while(|word| !is_pattern(word));
        let pattern = matches.take(2).collect::<Vec<_>>().join(" ");
        let names = |name: &str| {
            command.contains("systemd-sysctl") && command.contains(&name.replace('.', "/"))
                || pattern.is_empty() && !command.contains("systemd-sysctl")
                || pattern.contains(name)
        };
        let name = if key.starts_with("net.nf_") { "net.nf_conntrack" } else { "net.netfilter" };
        command.contains("sysctl") && all && names(name)
    }

    /// Whether it loads nothing.
    pub fn blocks(&self) -> bool {
        let first = self.command.split_whitespace().next().unwrap_or_default();
        matches!(first.rsplit('/').next(), Some("true" | "false" | ":"))
    }

    /// Whether it hands on the options, which the inner modprobe then adds again.
    pub fn repeats_options(&self) -> bool {
        self.command.contains("$CMDLINE_OPTS")
    }
}

fn is_pattern(word: &str) -> bool {
    word.starts_with("--pattern") || word == "-r"
}

impl Modprobe {
    pub fn read(host: &Host) -> Result<Self, Unread> {
        let mut read = Self::default();
        for file in host.drop_ins(&TOPS, "modprobe.d", ".conf")? {
            read.add(&file, &host.text(&file)?.unwrap_or_default());
        }
        read.command_line(&host.text(COMMAND_LINE)?.unwrap_or_default());
        Ok(read)
    }

    /// The last value of a parameter counts.
    pub fn last(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().rfind(|parameter| parameter.name == name)
    }

    fn add(&mut self, file: &str, text: &str) {
        let mut lines = (1..).zip(text.lines());
        while let Some((number, line)) = lines.next() {
            let (mut line, mut parts) = (line.to_owned(), vec![(number, line)]);
            while let Some(begun) = line.strip_suffix('\\') {
                let next = lines.next().unwrap_or_default();
                line = format!("{begun}{}", next.1);
                parts.push(next);
            }
            if line.starts_with('#') {
                continue;
            }
            let mut words = line.split_ascii_whitespace();
            let (Some(command), Some(module)) = (words.next(), words.next()) else { continue };
            let module = underscores(module);
            match command {
                "options" if module == CONNTRACK => self.note(file, &parts, words),
                "install" if module == CONNTRACK => {
                    let command = words.collect::<Vec<_>>().join(" ");
                    // The first counts.
                    let install = Install { place: format!("{file}:{number}"), command };
                    self.install.get_or_insert(install);
                }
                "blacklist" => self.blacklist(file, number, &module, &line),
                "alias" => {
                    let Some(target) = words.next().map(underscores) else { continue };
                    if module == CONNTRACK && target != CONNTRACK {
                        self.hold_back(file, number, &line);
                    }
                    self.aliases.push((module, target));
                }
                "softdep" => {
                    let names = words.filter(|word| !word.ends_with(':'));
                    self.softdeps.push((module, names.map(underscores).collect()));
                }
                _ => {}
            }
        }
    }

    pub(super) fn note<'w>(
        &mut self,
        file: &str,
        lines: &[(usize, &str)],
        words: impl Iterator<Item = &'w str>,
    ) {
        self.parameters.extend(words.map(|word| {
            let stands_in = |text: &str| {
                let text = text.strip_suffix('\\').unwrap_or(text);
                text.split_ascii_whitespace().any(|it| it == word)
            };
            let own = lines.iter().find(|(_, text)| stands_in(text));
            let line = own.or(lines.first()).map_or(1, |(line, _)| *line);
            Parameter { is_joined: lines.len() > 1, ..parameter(file, line, word) }
        }));
    }

    fn blacklist(&mut self, file: &str, line: usize, module: &str, text: &str) {
        self.blacklist.insert(module.to_owned());
        if module == CONNTRACK {
            self.hold_back(file, line, text);
        }
    }

    fn hold_back(&mut self, file: &str, line: usize, text: &str) {
        let (file, text) = (file.to_owned(), text.trim().to_owned());
        self.held_back.push(HeldBack { file, line, text });
    }

    /// `nf_conntrack.hashsize=N`, and lists of modules.
    fn command_line(&mut self, text: &str) {
        for word in text.split_ascii_whitespace() {
            let (name, names) = word.split_once('=').unwrap_or((word, ""));
            let names = names.trim_matches('"').split(',').filter(|name| !name.is_empty());
            let name = underscores(name);
            match name.strip_prefix("rd.").unwrap_or(&name) {
                "modules_load" => self.loads.extend(names.map(str::to_owned)),
                "modprobe.blacklist" => {
                    for module in names.map(underscores) {
                        self.blacklist(COMMAND_LINE, 1, &module, word);
                    }
                }
                "module_blacklist" => {
                    self.is_refused |= names.map(underscores).any(|name| name == CONNTRACK);
                }
                name if name.split('.').next() == Some(CONNTRACK) => {
                    let rest = word.split_once('.').map_or("", |(_, rest)| rest);
                    self.parameters.push(parameter(COMMAND_LINE, 1, rest));
                }
                _ => {}
            }
        }
    }

    /// What kmod takes a name for, before it looks for a module of that name.
    pub(super) fn alias(&self, name: &str) -> Option<&str> {
        let mut aliases = self.aliases.iter();
        aliases.find(|(alias, _)| alias == name).map(|(_, module)| module.as_str())
    }

    /// Whether kmod refuses to load a module for whoever heeds the blacklist: modprobe does so for
    /// aliases alone.
    pub(super) fn is_blacklisted(&self, module: &str) -> bool {
        self.blacklist.contains(module)
    }

    /// Modules that are loaded along with this one.
    pub(super) fn along_with<'m>(&'m self, module: &'m str) -> impl Iterator<Item = &'m str> {
        let found = self.softdeps.iter().filter(move |(of, _)| *of == module);
        found.flat_map(|(_, along)| along).map(String::as_str)
    }
}

fn parameter(file: &str, line: usize, word: &str) -> Parameter {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value.trim_matches('"').to_owned())),
        None => (word, None),
    };
    let (file, name) = (file.to_owned(), underscores(name));
    Parameter { file, line, is_joined: false, name, value }
}

impl Dependencies {
    pub(super) fn read(host: &Host) -> Result<Self, Unread> {
        let directory = host.modules()?;
        let text = |name: &str| host.text(&format!("{directory}/{name}"));
        Ok(Self {
            dep: text("modules.dep")?,
            aliases: text("modules.alias")?.unwrap_or_default(),
            built_in: text("modules.builtin")?.unwrap_or_default(),
            // Red Hat's 4.18 has them in nf_conntrack as well.
            is_old: host.release()?.is_some_and(|release| release < (4, 19))
                && !host.text("/proc/sys/kernel/osrelease")?.is_some_and(|it| it.contains(".el8")),
        })
    }

    /// The module that a name stands for; none if there is no such module, as far as is known.
    pub(super) fn module<'d>(&'d self, name: &'d str) -> Option<&'d str> {
        if name.contains(char::is_whitespace) {
            return None;
        }
        let Some(dep) = &self.dep else {
            let is_gone = !self.is_old && GONE.contains(&name);
            return (!is_gone).then_some(name);
        };
        let is = |line: &str| is_of(line, name);
        if dep.lines().any(is) || self.built_in.lines().any(is) {
            return Some(name);
        }
        let aliases = self.aliases.lines().filter_map(|line| line.strip_prefix("alias "));
        let mut pairs = aliases.filter_map(|line| line.split_once(' '));
        pairs.find(|(alias, _)| is_same(alias, name)).map(|(_, module)| module.trim())
    }

    /// Whether loading this module loads conntrack.
    pub(super) fn needs_conntrack(&self, module: &str) -> bool {
        if module == CONNTRACK {
            return true;
        }
        let Some(dep) = &self.dep else {
            let is = |name: &str| module == name || name.ends_with('_') && module.starts_with(name);
            return DEPENDENTS.iter().any(|name| is(name));
        };
        let line = dep.lines().find(|line| is_of(line, module));
        let needs = line.and_then(|line| line.split_once(':')).map_or("", |(_, needs)| needs);
        needs.split_ascii_whitespace().any(|path| is_of(path, CONNTRACK))
    }
}

/// Whether a path such as `kernel/net/netfilter/nf_conntrack.ko.zst` is of this module.
fn is_of(line: &str, module: &str) -> bool {
    let path = line.split(':').next().unwrap_or_default();
    let file = path.rsplit('/').next().unwrap_or_default();
    file.split_once(".ko").is_some_and(|(name, _)| is_same(name, module))
}

fn is_same(one: &str, other: &str) -> bool {
    let underscore = |byte| if byte == b'-' { b'_' } else { byte };
    one.bytes().map(underscore).eq(other.bytes().map(underscore))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{
        super::testing::{Fake, output},
        *,
    };

    fn of(text: &str) -> Modprobe {
        let fake = Fake::new("modprobe", &[("/etc/modprobe.d/a.conf", text)]);
        Modprobe::read(&fake.host).unwrap()
    }

    #[test]
    fn options_are_read_as_kmod_reads_them() {
        let hashsize = |text: &str| {
            let read = of(text);
            let value = read.last("hashsize")?.value.clone();
            Some(value.unwrap_or_else(|| "nothing".to_owned()))
        };
        for text in [
            "options nf_conntrack hashsize=5",
            "options nf-conntrack expect_hashsize=7 hashsize=5 # five",
            " options\tnf_conntrack\t hashsize=5 ",
            "options nf_conntrack hashsize=9\noptions nf_conntrack hashsize=5",
            "options nf_conntrack \\\n hashsize=5",
        ] {
            assert_eq!(hashsize(text).as_deref(), Some("5"), "{text}");
        }
        assert_eq!(hashsize("options nf_conntrack hashsize = 5").as_deref(), Some("nothing"));
        assert_eq!(hashsize("#options nf_conntrack hashsize=5\noptions nf_nat hashsize=5"), None);
    }

    #[test]
    fn a_parameter_is_told_by_the_line_on_which_it_stands() {
        let read = of(
            "# x\noptions nf_conntrack \\\n acct=1\\\n hashsize=5\noptions nf_conntrack tstamp=1\n",
        );
        let lines = read.parameters.iter().map(|it| (it.name.as_str(), it.line, it.is_joined));
        let expected = [("acct", 3, true), ("hashsize", 4, true), ("tstamp", 5, false)];
        assert_eq!(lines.collect::<Vec<_>>(), expected);
    }

    /// Fails when kmod itself reads something else.
    #[test]
    fn kmod_reads_the_same() {
        let lines = "options nf_conntrack hashsize = 5\n options\tnf-conntrack\t acct=1 tstamp=1\n\
            options nf_conntrack \\\n   expect_hashsize=7\n#options nf_conntrack hashsize=8\n\
            install nf-conntrack /bin/true a\ninstall nf_conntrack /bin/false\noptions nf_conntrack\n";
        let fake = Fake::new("modprobe-kmod", &[("/etc/modprobe.d/a.conf", lines)]);
        let mut modprobe = Command::new("modprobe");
        modprobe.args(["--showconfig", "--config"]).arg(fake.host.path("/etc/modprobe.d"));
        let Some(shown) = output(&mut modprobe, "kmod_reads_the_same") else { return };
        let of = |start: &str| shown.lines().filter_map(|line| line.strip_prefix(start)).collect();
        let (options, installs): (Vec<&str>, Vec<&str>) =
            (of("options nf_conntrack "), of("install nf_conntrack "));
        let read = Modprobe::read(&fake.host).unwrap();
        let names = |name: &Parameter| match &name.value {
            Some(value) => format!("{}={value}", name.name),
            None => name.name.clone(),
        };
        let words = options.iter().flat_map(|line| line.split_ascii_whitespace());
        assert_eq!(
            read.parameters.iter().map(names).collect::<Vec<_>>(),
            words.collect::<Vec<_>>()
        );
        assert_eq!(read.install.unwrap().command, installs[0]);
    }

    #[test]
    fn the_kernels_command_line_counts_after_all_files() {
        let fake = Fake::new(
            "modprobe-cmdline",
            &[
                ("/etc/modprobe.d/z.conf", "options nf_conntrack hashsize=5\n"),
                ("/proc/cmdline", "quiet nf-conntrack.hashsize=6 nf_nat.x=7\n"),
            ],
        );
        let read = Modprobe::read(&fake.host).unwrap();
        assert_eq!(read.last("hashsize").unwrap().place(), "/proc/cmdline:1");
    }

    #[test]
    fn lines_that_hold_conntrack_back_are_read_wherever_they_stand() {
        let held_back = |text: &str| {
            let places = of(text).held_back;
            places.iter().map(|it| (it.line, it.text.clone())).collect::<Vec<_>>()
        };
        let lines = "#blacklist nf_conntrack\n blacklist nf-conntrack\nblacklist nf_nat\n\
            alias nf_conntrack off\nalias flows nf_conntrack\nalias nf_conntrack nf-conntrack\n";
        let found =
            [(2, "blacklist nf-conntrack".to_owned()), (4, "alias nf_conntrack off".to_owned())];
        assert_eq!(held_back(lines), found);
        let line = |line: &str| {
            let fake = Fake::new("modprobe-held", &[("/proc/cmdline", line)]);
            Modprobe::read(&fake.host).unwrap()
        };
        assert_eq!(line("quiet modprobe.blacklist=nouveau,nf-conntrack\n").held_back.len(), 1);
        assert!(line("module_blacklist=nf_conntrack").is_refused);
        assert!(!line("module_blacklist=nf_nat modprobe.blacklist=x").is_refused);
        assert_eq!(line("rd.modules-load=a modules_load=b,c").loads, ["a", "b", "c"]);
    }

    /// Fails when kmod itself takes a name for another module. It needs a directory of modules, and
    /// says what it would load.
    #[test]
    fn kmod_takes_names_for_the_same_modules() {
        let lines = "blacklist nf_conntrack\nalias flows nf_conntrack\nalias nf_nat off\n";
        let fake = Fake::new("modprobe-alias", &[("/etc/modprobe.d/a.conf", lines)]);
        let mut shown = Command::new("modprobe");
        shown.args(["--showconfig", "--config"]).arg(fake.host.path("/etc/modprobe.d"));
        let Some(shown) = output(&mut shown, "kmod_takes_names_for_the_same_modules") else {
            return;
        };
        let read = Modprobe::read(&fake.host).unwrap();
        let aliases = shown.lines().filter_map(|line| line.strip_prefix("alias ")?.split_once(' '));
        let ours = ["flows", "nf_nat"];
        for (name, module) in aliases.filter(|(name, _)| ours.contains(name)) {
            assert_eq!(read.alias(name), Some(module));
        }
        assert!(shown.lines().any(|line| line == "blacklist nf_conntrack"));
        assert!(read.is_blacklisted("nf_conntrack") && !read.is_blacklisted("nf_nat"));
    }

    #[test]
    fn an_install_line_is_known_by_what_it_does() {
        let install =
            |command: &str| of(&format!("install nf-conntrack {command}\n")).install.unwrap();
        let (new, old) = ("net.netfilter.nf_conntrack_max", "net.nf_conntrack_max");
        let firewalld = install(
            "/usr/sbin/modprobe --ignore-install nf_conntrack $CMDLINE_OPTS && /usr/sbin/sysctl \
             --quiet --pattern 'net[.]netfilter[.]nf_conntrack.*' --system",
        );
        assert!(firewalld.applies(new) && !firewalld.applies(old));
        assert!(firewalld.repeats_options() && !firewalld.blocks());
        let all = install("modprobe -i nf_conntrack; sysctl --system");
        assert!(all.applies(new) && all.applies(old));
        let script = install("modprobe -i nf_conntrack; echo 9 > /proc/sys/net/nf_conntrack_max");
        assert!(!script.applies(new) && !script.applies(old));
        assert!(install("/bin/true").blocks());
    }

    #[test]
    fn a_module_that_needs_conntrack_is_told_by_depmods_list_or_by_its_name() {
        let fake =
            Fake::new("modprobe-dep", &[("/proc/sys/kernel/osrelease", "6.8.0-45-generic\n")]);
        let needs = |name: &str| {
            let read = Dependencies::read(&fake.host).unwrap();
            read.module(name).is_some_and(|module| read.needs_conntrack(module))
        };
        assert!(needs("ip_vs") && needs("nf_conntrack_ftp") && !needs("br_netfilter"));
        let modules = "/lib/modules/6.8.0-45-generic";
        let dep = "kernel/net/netfilter/ipvs/ip_vs.ko.zst: kernel/net/netfilter/nf_conntrack.ko.zst\n\
            kernel/net/netfilter/nf_conntrack.ko.zst:\nkernel/net/my-nat.ko: kernel/nf-conntrack.ko\n";
        fake.write(&format!("{modules}/modules.dep"), dep);
        fake.write(&format!("{modules}/modules.alias"), "alias ip_conntrack nf_conntrack\n");
        for name in ["ip_vs", "nf_conntrack", "my_nat", "ip_conntrack"] {
            assert!(needs(name), "{name}");
        }
        assert!(!needs("nf_conntrack_ipv4"), "there is no such module");
    }
}
