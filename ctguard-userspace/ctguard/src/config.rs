//! The configuration: the files that the operator wrote, merged.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use thiserror::Error;

use crate::foreign::Foreign;
use ctguard_kernel::{
    maps::ListKind,
    net::{self, Link, Refusal, resolve},
};
use ctguard_layout::ListEntry;
use ctguard_settings::{
    Assignment, DocumentError, Entry, Feed, FeedError, FeedKey, Key, Place, SettingError, Settings,
    StartKey, Value, in_toml, quoted, read_document,
};

pub(crate) const DEFAULT_PATH: &str = "/etc/ctguard/ctguard.toml";

/// Files beside it are read after it, in the order of their names.
const DROP_INS: &str = "conf.d";

/// Bits of `FeedEntry::feeds`.
const MOST_FEEDS: usize = 32;

/// A longer file is a mistake: the lists take some 16,000 prefixes.
const LONGEST: u64 = 1 << 22;

/// What all files say together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Config {
    /// Those that were read.
    pub(crate) files: Vec<PathBuf>,
    interfaces: Option<(Vec<String>, Origin)>,
    words: Vec<(StartKey, String, Origin)>,
    hook: Option<(Vec<String>, Origin)>,
    settings: Vec<(Assignment, Origin)>,
    allow: BTreeMap<IpNet, Origin>,
    deny: BTreeMap<IpNet, Origin>,
    feed_keys: BTreeMap<String, FeedKeys>,
    feeds: Vec<Feed>,
}

/// What the files say about one feed.
type FeedKeys = BTreeMap<FeedKey, (String, Origin)>;

/// Where something is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) file: PathBuf,
    pub(crate) place: Place,
}

impl Origin {
    /// Of what no file says.
    fn unknown() -> Self {
        Self { file: PathBuf::new(), place: Place { line: 1, column: 1 } }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.place)
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    #[error("cannot read {}", file.display())]
    File { file: PathBuf, source: io::Error },
    #[error("{}:{source}", file.display())]
    Document { file: PathBuf, source: Box<DocumentError> },
    #[error("{origin}: {source}")]
    Setting { origin: Box<Origin>, source: Box<SettingError> },
    #[error(
        "{list} would have {prefixes} prefixes of one family; it takes {}",
        ListEntry::CAPACITY
    )]
    TooMany { list: &'static str, prefixes: usize },
    #[error("{origin}: {source}")]
    Feed { origin: Box<Origin>, source: FeedError },
    #[error("{origin}: {source}")]
    Interface { origin: Box<Origin>, source: Refusal },
    #[error("there are {0} feeds; at most {MOST_FEEDS} can be told apart")]
    TooManyFeeds(usize),
}

impl ConfigError {
    /// Whether `named` does not exist.
    pub(crate) fn is_missing(&self, named: &Path) -> bool {
        matches!(self, Self::File { file, source }
            if file == named && source.kind() == io::ErrorKind::NotFound)
    }
}

/// # Errors
/// If a list cannot take all these prefixes.
pub(crate) fn check_room<'p>(
    kind: ListKind,
    prefixes: impl Iterator<Item = &'p IpNet>,
) -> Result<(), ConfigError> {
    let mut counts = [0; 2];
    for prefix in prefixes {
        counts[usize::from(matches!(prefix, IpNet::V6(_)))] += 1;
    }
    let prefixes = counts[0].max(counts[1]);
    if prefixes > ListEntry::CAPACITY as usize {
        return Err(ConfigError::TooMany { list: kind.name(), prefixes });
    }
    Ok(())
}

impl Config {
    /// Reads `file` and the drop-ins beside it, or the default files, which need not exist.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::read_beside(file.unwrap_or(Path::new(DEFAULT_PATH)), file.is_some())
    }

    /// Reads `main`, which may be missing if it need not exist, and the drop-ins beside it.
    pub(crate) fn read_beside(main: &Path, must_exist: bool) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        config.add_file(main, must_exist)?;
        let directory = main.with_file_name(DROP_INS);
        for drop_in in
            drop_ins(&directory).map_err(|source| ConfigError::File { file: directory, source })?
        {
            // It may have been removed in the meantime.
            config.add_file(&drop_in, false)?;
        }
        for kind in [ListKind::Allow, ListKind::Deny] {
            check_room(kind, config.list(kind).keys())?;
        }
        config.make_feeds()?;
        Ok(config)
    }

    /// Reads `file` alone.
    pub(crate) fn read_one(file: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        config.add_file(file, true)?;
        config.make_feeds()?;
        Ok(config)
    }

    fn add_file(&mut self, file: &Path, must_exist: bool) -> Result<(), ConfigError> {
        match read_text(file) {
            Ok(text) => self.add(file, &text),
            // A link to nothing is there, and a mistake.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && !must_exist && !file.is_symlink() =>
            {
                Ok(())
            }
            Err(source) => Err(ConfigError::File { file: file.to_owned(), source }),
        }
    }

    fn add(&mut self, file: &Path, text: &str) -> Result<(), ConfigError> {
        let entries = read_document(text).map_err(|source| ConfigError::Document {
            file: file.to_owned(),
            source: source.into(),
        })?;
        self.files.push(file.to_owned());
        for (entry, place) in entries {
            let origin = Origin { file: file.to_owned(), place };
            match entry {
                Entry::Setting(assignment) => self.settings.push((assignment, origin)),
                Entry::Interfaces(names) => self.interfaces = Some((names, origin)),
                Entry::Word(key, word) => self.words.push((key, word, origin)),
                Entry::Command(_, command) => self.hook = Some((command, origin)),
                Entry::Listed(StartKey::Deny, prefix) => drop(self.deny.insert(prefix, origin)),
                Entry::Listed(_, prefix) => drop(self.allow.insert(prefix, origin)),
                Entry::Feed(name, key, text) => {
                    self.feed_keys.entry(name).or_default().insert(key, (text, origin));
                }
            }
        }
        Ok(())
    }

    fn make_feeds(&mut self) -> Result<(), ConfigError> {
        for (name, keys) in &self.feed_keys {
            let texts = keys.iter().map(|(&key, (text, _))| (key, text.clone())).collect();
            let feed = Feed::new(name, &texts).map_err(|source| {
                let key = match source {
                    FeedError::Foreign { key, .. } | FeedError::Missing { key, .. } => key,
                    FeedError::AllowsBans { .. } => FeedKey::List,
                };
                let origin = keys.get(&key).or(keys.values().next()).map(|(_, origin)| origin);
                let origin = Box::new(origin.cloned().unwrap_or_else(Origin::unknown));
                ConfigError::Feed { origin, source }
            })?;
            self.feeds.push(feed);
        }
        if self.feeds.len() > MOST_FEEDS {
            return Err(ConfigError::TooManyFeeds(self.feeds.len()));
        }
        Ok(())
    }

    /// In the order of their names.
    pub(crate) fn feeds(&self) -> &[Feed] {
        &self.feeds
    }

    /// `feeds.NAME.KEY`, its value, and where it is said.
    pub(crate) fn feed_settings(&self) -> impl Iterator<Item = (String, &str, &Origin)> {
        self.feed_keys.iter().flat_map(|(name, keys)| {
            keys.iter().map(move |(key, (text, origin))| {
                (format!("feeds.{name}.{}", key.name()), &text[..], origin)
            })
        })
    }

    /// Whether there is any file.
    pub(crate) fn is_there(&self) -> bool {
        !self.files.is_empty()
    }

    pub(crate) fn interfaces(&self) -> &[String] {
        self.interfaces.as_ref().map_or(&[], |(names, _)| names)
    }

    /// Why the files cannot be used that name an interface which cannot be guarded.
    pub(crate) fn refused(&self, source: Refusal) -> ConfigError {
        let origin = self.interfaces.as_ref().map(|(_, origin)| origin.clone());
        ConfigError::Interface { origin: Box::new(origin.unwrap_or_else(Origin::unknown)), source }
    }

    /// What the files say about the settings of what is to be guarded: the interfaces that the
    /// command line has `chosen`, or those of the files, or, if neither has any, those that settings name.
    ///
    /// # Errors
    /// If a setting is of another interface.
    pub(crate) fn settings(&self, chosen: &[String]) -> Result<Settings, ConfigError> {
        self.settings_among(&net::links().unwrap_or_default(), chosen)
    }

    fn settings_among(&self, links: &[Link], chosen: &[String]) -> Result<Settings, ConfigError> {
        let names = if chosen.is_empty() { self.interfaces() } else { chosen };
        let waits = names.iter().any(|name| resolve(links, name).is_err());
        let mut names: Vec<_> = names.iter().map(|name| device(links, name)).collect();
        if names.is_empty() {
            let set = self.settings.iter().filter_map(|(assignment, _)| assignment.key.interface());
            names.extend(set.map(str::to_owned));
        }
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        let mut settings = Settings::of_new_guard(names.iter().map(|name| &name[..]));
        self.apply_to(&mut settings, Foreign::of(chosen, waits))?;
        Ok(settings)
    }

    /// What the files say about one device.
    pub(crate) fn settings_of(&self, device: &str) -> Result<Settings, ConfigError> {
        let mut settings = Settings::of_new_guard([device]);
        self.apply_to(&mut settings, Foreign::ANY)?;
        Ok(settings)
    }

    /// Whether the files say anything about an interface of this name.
    pub(crate) fn has_settings_of(&self, name: &str) -> bool {
        self.settings.iter().any(|(assignment, _)| assignment.key.interface() == Some(name))
    }

    /// A line for each interface that settings name although neither is it `guarded`, nor do the files name
    /// it: it may be mistyped, or the device under one of `absent`.
    pub(crate) fn passed_over(&self, guarded: &[&str], absent: &[String]) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let unknown = self.settings.iter().filter_map(|(assignment, origin)| {
            let name = assignment.key.interface()?;
            let is_known = guarded.contains(&name)
                || absent.iter().chain(self.interfaces()).any(|own| own == name);
            (!is_known && seen.insert(name)).then(|| {
                format!(
                    "{origin}: interface {name} is not guarded; its settings take effect only if it carries \
                     {}",
                    absent.join(" or ")
                )
            })
        });
        unknown.collect()
    }

    /// Where the value of `key` is, if it has one.
    pub(crate) fn start_origin(&self, key: StartKey) -> Option<&Origin> {
        match key {
            StartKey::Interfaces => self.interfaces.as_ref().map(|(_, origin)| origin),
            StartKey::Hook => self.hook.as_ref().map(|(_, origin)| origin),
            StartKey::Mode
            | StartKey::NewFlowDetection
            | StartKey::OnExit
            | StartKey::Allow
            | StartKey::Deny => self.deciding(key).map(|(_, origin)| origin),
        }
    }

    /// What is said of `key`, if anything.
    pub(crate) fn word(&self, key: StartKey) -> Option<&str> {
        self.deciding(key).map(|(word, _)| word)
    }

    /// The program that is run when an incident begins or ends; empty for none.
    pub(crate) fn hook(&self) -> &[String] {
        self.hook.as_ref().map_or(&[], |(command, _)| command)
    }

    fn deciding(&self, key: StartKey) -> Option<(&str, &Origin)> {
        let (_, word, origin) = self.words.iter().rev().find(|(own, ..)| *own == key)?;
        Some((word, origin))
    }

    pub(crate) fn list(&self, kind: ListKind) -> &BTreeMap<IpNet, Origin> {
        match kind {
            ListKind::Allow => &self.allow,
            ListKind::Deny => &self.deny,
        }
    }

    /// Changes `settings` as the files say, in their order.
    pub(crate) fn apply_to(
        &self,
        settings: &mut Settings,
        foreign: Foreign<'_>,
    ) -> Result<(), ConfigError> {
        for (assignment, origin) in &self.settings {
            if foreign.may_skip(assignment, settings, self.interfaces()) {
                continue;
            }
            settings.apply(std::slice::from_ref(assignment)).map_err(|source| {
                ConfigError::Setting { origin: Box::new(origin.clone()), source: Box::new(source) }
            })?;
        }
        Ok(())
    }

    /// The place that decides `key`, if a file names it.
    pub(crate) fn origin(&self, key: &Key) -> Option<&Origin> {
        self.setting(key).map(|(_, origin)| origin)
    }

    /// What decides `key`, if a file names it.
    pub(crate) fn value(&self, key: &Key) -> Option<Value> {
        self.setting(key).map(|(assignment, _)| assignment.value)
    }

    fn setting(&self, key: &Key) -> Option<&(Assignment, Origin)> {
        self.settings.iter().rev().find(|(assignment, _)| assignment.key == *key)
    }

    /// All of it as one file.
    pub(crate) fn document(&self) -> String {
        let mut lines = Vec::new();
        if let Some((names, _)) = &self.interfaces {
            lines.push(format!("interfaces = {}", in_toml_array(names)));
        }
        if let Some((command, _)) = &self.hook {
            lines.push(format!("{} = {}", StartKey::Hook.name(), in_toml_array(command)));
        }
        lines.extend(self.words().map(|(key, word)| format!("{} = \"{word}\"", key.name())));
        for (key, list) in [(StartKey::Allow, &self.allow), (StartKey::Deny, &self.deny)] {
            let prefixes: Vec<_> = list.keys().map(|prefix| format!("\"{prefix}\"")).collect();
            lines.push(format!("{} = [{}]", key.name(), prefixes.join(", ")));
        }
        for (number, (Assignment { key, value }, _)) in self.settings.iter().enumerate() {
            let is_last = self.settings.iter().skip(number + 1).all(|(later, _)| later.key != *key);
            lines.extend(is_last.then(|| format!("{} = {}", key.in_toml(), in_toml(*value))));
        }
        lines.extend(
            self.feed_settings().map(|(name, text, _)| format!("{name} = {}", quoted(text))),
        );
        lines.join("\n") + "\n"
    }

    /// The deciding word of each key.
    fn words(&self) -> impl Iterator<Item = (StartKey, &str)> {
        StartKey::ALL.into_iter().filter_map(|key| self.word(key).map(|word| (key, word)))
    }
}

pub(crate) fn in_toml_array(texts: &[String]) -> String {
    let texts: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}

/// The device that is guarded under a name, which may be a VLAN's; the name if there is none.
fn device(links: &[Link], name: &str) -> String {
    resolve(links, name).map_or_else(|_| name.to_owned(), |resolved| resolved.link.name)
}

/// The drop-in that `ctguard save` writes.
pub(crate) fn saved_path(file: Option<&Path>) -> PathBuf {
    file.unwrap_or(Path::new(DEFAULT_PATH)).with_file_name(DROP_INS).join("90-saved.toml")
}

fn drop_ins(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        if path.extension().is_some_and(|extension| extension == "toml") && !is_hidden {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_text(file: &Path) -> io::Result<String> {
    // Whoever opens a FIFO waits.
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut text = String::new();
    let bytes = fs::File::open(file)?.take(LONGEST + 1).read_to_string(&mut text)?;
    if bytes as u64 > LONGEST {
        return Err(io::Error::other(format!("it is longer than {LONGEST} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files(tempfile::TempDir);

    impl Files {
        fn new(files: &[(&str, &str)]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir(directory.path().join(DROP_INS)).unwrap();
            for (name, text) in files {
                fs::write(directory.path().join(name), text).unwrap();
            }
            Self(directory)
        }

        fn read(&self) -> Result<Config, ConfigError> {
            Config::read(Some(&self.0.path().join("ctguard.toml")))
        }
    }

    fn eth0() -> Link {
        Link { index: 2, name: "eth0".to_owned(), hardware: 1, ..Link::default() }
    }

    fn target(config: &Config) -> Value {
        let settings = config.settings(&[]).unwrap();
        settings.get(&"target".parse().unwrap()).unwrap()
    }

    #[test]
    fn the_last_file_that_sets_a_key_decides_and_lists_are_added() {
        let files = Files::new(&[
            ("ctguard.toml", "interfaces = [\"wan0\"]\ntarget = \"80%\"\nallow = [\"192.0.2.1\"]"),
            ("conf.d/20-b.toml", "target = \"70%\"\nallow = [\"192.0.2.2\"]\nmode = \"generic\""),
            ("conf.d/10-a.toml", "target = \"60%\"\ninterfaces = [\"wan1\"]"),
            ("conf.d/.30-c.toml", "no toml"),
            ("conf.d/README", "no toml"),
        ]);
        let config = files.read().unwrap();
        assert_eq!(config.files.len(), 3);
        assert_eq!(config.interfaces(), ["wan1"]);
        assert_eq!(config.word(StartKey::Mode), Some("generic"));
        assert_eq!(target(&config), Value::Ratio(700_000));
        assert_eq!(config.list(ListKind::Allow).len(), 2);
        let origin = config.origin(&"target".parse().unwrap()).unwrap().to_string();
        assert!(origin.ends_with("conf.d/20-b.toml:1:1"), "{origin}");
    }

    #[test]
    fn a_mistake_is_told_with_its_file_and_nothing_is_used() {
        let files =
            Files::new(&[("ctguard.toml", "target = \"80%\""), ("conf.d/1.toml", "\ntarget = 1")]);
        let error = files.read().unwrap_err().to_string();
        assert!(error.contains("conf.d/1.toml:2:1: target is a number"), "{error}");
    }

    #[test]
    fn a_setting_of_an_interface_that_is_not_guarded_names_its_place() {
        let files = Files::new(&[("ctguard.toml", "[interface.wan9]\nzone = 5")]);
        let config = files.read().unwrap();
        let error = config.settings_among(&[eth0()], &["eth0".to_owned()]).unwrap_err().to_string();
        assert!(
            error.contains("ctguard.toml:2:1: interface.wan9.zone: interface wan9 is not"),
            "{error}"
        );
    }

    #[test]
    fn a_named_file_must_exist_and_be_one_and_the_default_need_not() {
        let files = Files::new(&[]);
        assert!(files.read().is_err());
        fs::create_dir(files.0.path().join("ctguard.toml")).unwrap();
        assert!(files.read().is_err());
        assert_eq!(drop_ins(Path::new("/nonexistent")).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn written_as_one_file_it_says_the_same() {
        let files = Files::new(&[
            (
                "ctguard.toml",
                "interfaces = [\"wan0\", \"eth0.100\"]\ntarget = \"80%\"\ndry-run = true\n\
                 [interface.\"eth0.100\"]\nzone = 5\n[source.udp]\nrate = \"default\"",
            ),
            (
                "conf.d/1.toml",
                "target = \"70%\"\non-exit = \"keep\"\nincidents.hook = [\"/h\", \"\\\"\"]\ndeny = [\"2001:db8::/48\"]",
            ),
        ]);
        let config = files.read().unwrap();
        let mut again = Config::default();
        again.add(Path::new("one.toml"), &config.document()).unwrap();
        assert_eq!(again.document(), config.document());
        assert_eq!(target(&again), Value::Ratio(700_000));
        assert_eq!(again.interfaces(), config.interfaces());
        assert_eq!(again.word(StartKey::OnExit), Some("keep"));
        assert_eq!(again.hook(), ["/h", "\""]);
        assert_eq!(again.list(ListKind::Deny).len(), 1);
        assert_eq!(config.settings(&[]).unwrap(), again.settings(&[]).unwrap());
    }

    /// Fails when `run -i wan1` refuses files that also configure wan0.
    #[test]
    fn the_command_line_may_leave_out_interfaces_of_the_files() {
        let files = Files::new(&[(
            "ctguard.toml",
            "interfaces = [\"wan0\", \"wan1\"]\n[interface]\nwan0.zone = 5\nwan1.zone = 6",
        )]);
        let settings = files.read().unwrap().settings(&["wan1".to_owned()]).unwrap();
        assert_eq!(settings.get(&"interface.wan1.zone".parse().unwrap()).unwrap(), Value::Zone(6));
    }

    #[test]
    fn a_setting_of_an_interface_that_no_file_names_is_a_mistake() {
        let text = "interfaces = [\"eth0\"]\n[interface.wna0]\nzone = 5";
        let files = Files::new(&[("ctguard.toml", text)]);
        let config = files.read().unwrap();
        let error = config.settings_among(&[eth0()], &[]).unwrap_err().to_string();
        assert!(error.contains("ctguard.toml:3:1: interface.wna0.zone: interface wna0"), "{error}");
    }

    /// Fails when a file is refused because it also configures the device under a VLAN that comes late.
    #[test]
    fn a_setting_of_a_device_that_may_be_meant_by_a_missing_name_is_no_mistake() {
        let text = "interfaces = [\"late0.100\"]\n[interface]\nlate0.zone = 5\nlate1.zone = 6";
        let files = Files::new(&[("ctguard.toml", text)]);
        let config = files.read().unwrap();
        config.settings(&[]).unwrap();
        let absent = ["late0.100".to_owned()];
        let [first, second] = &config.passed_over(&[], &absent)[..] else { panic!("two lines") };
        let expected =
            "interface late0 is not guarded; its settings take effect only if it carries late0.100";
        assert!(first.ends_with(expected) && first.contains("ctguard.toml:3:"), "{first}");
        assert!(second.contains("interface late1 is not"), "{second}");
        let own = config.settings_of("late0").unwrap().interfaces;
        assert_eq!((own.len(), own[0].zone), (1, 5));
        assert!(config.has_settings_of("late1") && !config.has_settings_of("late0.100"));
    }

    /// Fails when a file is used while a VLAN is missing, and refused as soon as the VLAN is there.
    #[test]
    fn settings_of_a_name_that_leads_to_another_device_are_no_mistake() {
        let text = "interfaces = [\"eth0\", \"eth0.100\"]\n[interface.\"eth0.100\"]\nzone = 5\n\
                    [interface.eth0]\nzone = 6";
        let config = Files::new(&[("ctguard.toml", text)]).read().unwrap();
        let eth0 = eth0();
        let vlan = Link {
            index: 3,
            name: "eth0.100".to_owned(),
            kind: Some("vlan".to_owned()),
            lower: Some(2),
            ..eth0.clone()
        };
        for links in [vec![eth0.clone()], vec![eth0, vlan]] {
            let own = config.settings_among(&links, &[]).unwrap().interfaces;
            assert_eq!((&own[0].name[..], own[0].zone), ("eth0", 6), "{} links", links.len());
            config.settings_among(&links, &["eth0.100".to_owned()]).unwrap();
        }
    }

    #[test]
    fn more_prefixes_than_a_list_takes_are_a_mistake() {
        let prefixes = |count: u32| {
            let all: Vec<_> =
                (0..count).map(|it| format!("\"10.0.{}.{}\"", it >> 8, it & 255)).collect();
            format!("allow = [{}, \"2001:db8::1\"]", all.join(", "))
        };
        let files = Files::new(&[("ctguard.toml", &prefixes(4096))]);
        assert_eq!(files.read().unwrap().list(ListKind::Allow).len(), 4097);
        fs::write(files.0.path().join("conf.d/1.toml"), "allow = [\"192.0.2.1\"]").unwrap();
        let error = files.read().unwrap_err().to_string();
        assert_eq!(error, "allow would have 4097 prefixes of one family; it takes 4096");
    }

    #[test]
    fn a_feed_is_made_of_what_all_files_say_and_is_written_again() {
        let files = Files::new(&[
            (
                "ctguard.toml",
                "[feeds.a]\nkind = \"file\"\npath = \"/x\"\n[feeds.b]\nkind = \"directory\"\npath = \"/y\"",
            ),
            ("conf.d/1.toml", "feeds.a.path = \"/z\"\nfeeds.a.list = \"allow\""),
        ]);
        let config = files.read().unwrap();
        let [a, b] = config.feeds() else { panic!("{:?}", config.feeds()) };
        assert_eq!((&a.name[..], a.allows, a.source.to_string()), ("a", true, "/z".to_owned()));
        assert_eq!((&b.name[..], b.allows), ("b", false));
        let mut again = Config::default();
        again.add(Path::new("one.toml"), &config.document()).unwrap();
        again.make_feeds().unwrap();
        assert_eq!(again.feeds(), config.feeds());
    }

    #[test]
    fn a_feed_that_lacks_a_key_is_a_mistake_with_its_place() {
        let files = Files::new(&[("ctguard.toml", "\n[feeds.a]\nkind = \"file\"")]);
        let error = files.read().unwrap_err().to_string();
        assert!(error.ends_with("ctguard.toml:3:1: feeds.a has no path"), "{error}");
    }

    #[test]
    fn a_drop_in_that_is_a_link_to_nothing_is_a_mistake() {
        let files = Files::new(&[("ctguard.toml", "")]);
        let link = files.0.path().join("conf.d/1.toml");
        std::os::unix::fs::symlink("nowhere", link).unwrap();
        assert!(files.read().unwrap_err().to_string().contains("conf.d/1.toml"));
    }
}
