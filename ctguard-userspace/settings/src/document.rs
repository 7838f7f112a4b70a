//! One file of the configuration: TOML, whose keys are those of `ctguard set` and of [`StartKey`].

use std::{
    fmt::{self, Write as _},
    ops::Range,
};

use ipnet::IpNet;
use thiserror::Error;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    change::Assignment,
    feed::{FeedKey, is_name},
    key::{Key, UnknownKey, nearest_of},
    prefix::{PrefixError, parse_listed},
    value::{Form, Value, ValueError},
};

/// What a start needs to know beside the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartKey {
    Interfaces,
    Mode,
    NewFlowDetection,
    OnExit,
    Allow,
    Deny,
    Hook,
}

/// What a [`StartKey`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    Names,
    Prefixes,
    /// One of these words; the first is the default.
    Word(&'static [&'static str]),
    /// A program, by its whole path, and arguments.
    Command,
}

impl StartKey {
    pub const ALL: [Self; 7] = [
        Self::Interfaces,
        Self::Mode,
        Self::NewFlowDetection,
        Self::OnExit,
        Self::Allow,
        Self::Deny,
        Self::Hook,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Interfaces => "interfaces",
            Self::Mode => "mode",
            Self::NewFlowDetection => "new-flow-detection",
            Self::OnExit => "on-exit",
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Hook => "incidents.hook",
        }
    }

    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Interfaces => "Interfaces to guard, at once or when they appear",
            Self::Mode => "Where the XDP program runs",
            Self::NewFlowDetection => "How to distinguish new flows from known ones",
            Self::OnExit => "What happens to the guard when the daemon ends",
            Self::Allow => "Sources that have no ceiling",
            Self::Deny => "Sources whose packets are all dropped",
            Self::Hook => {
                "A program that is run when an incident begins or ends, with JSON on standard input"
            }
        }
    }

    pub const fn takes(self) -> Takes {
        match self {
            Self::Interfaces => Takes::Names,
            Self::Mode => Takes::Word(&["auto", "native", "generic"]),
            Self::NewFlowDetection => Takes::Word(&["auto", "conntrack", "flow-cache"]),
            Self::OnExit => Takes::Word(&["detach", "keep"]),
            Self::Allow | Self::Deny => Takes::Prefixes,
            Self::Hook => Takes::Command,
        }
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.name() == name)
    }
}

/// Line and column, from 1, of a character in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

const FEEDS: &str = "feeds.";

/// What one key of a file says.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    Setting(Assignment),
    Interfaces(Vec<String>),
    Word(StartKey, String),
    /// A program and its arguments; none is an empty command.
    Command(StartKey, Vec<String>),
    /// For the list that the key names.
    Listed(StartKey, IpNet),
    /// Of the feed with this name.
    Feed(String, FeedKey, String),
}

/// Why a file cannot be used, and where in it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{place}: {problem}")]
pub struct DocumentError {
    pub place: Place,
    pub problem: Problem,
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Problem {
    #[error("{0}")]
    Syntax(String),
    #[error(
        "unknown key {key}{}",
        near.as_ref().map_or_else(
            || "; `ctguard config default` shows all keys".to_owned(),
            |near| format!(", did you mean {near}?")
        )
    )]
    UnknownKey { key: String, near: Option<String> },
    #[error("{key}: {source}")]
    Value { key: Key, source: ValueError },
    #[error("{key} is {found}; it takes {expected}")]
    Type { key: String, expected: String, found: String },
    #[error("a feed cannot have the name {}; it takes letters, digits, - and _", quoted(.0))]
    FeedName(String),
    #[error("{key}: {source}")]
    Prefix { key: &'static str, source: PrefixError },
}

/// Reads a file: what its keys say, in their order in the file, and where.
///
/// # Errors
/// The first mistake in it.
pub fn read_document(text: &str) -> Result<Vec<(Entry, Place)>, DocumentError> {
    let table = DeTable::parse(text).map_err(|error| DocumentError {
        place: Places::of(text).at(error.span().unwrap_or_default().start),
        problem: Problem::Syntax(error.message().replace('\n', ", ")),
    })?;
    let mut leaves = Vec::new();
    flatten(table.get_ref(), "", &mut leaves).map_err(|(span, problem)| DocumentError {
        place: Places::of(text).at(span.start),
        problem,
    })?;
    leaves.sort_by_key(|leaf| leaf.span.start);
    let mut entries = Vec::new();
    let mut places = Places::of(text);
    for leaf in leaves {
        let mut reached = leaf.span.start;
        let mut found = |entry, at| entries.push((entry, places.at(at)));
        let read = leaf.read(&mut reached, &mut found);
        read.map_err(|problem| DocumentError { place: Places::of(text).at(reached), problem })?;
    }
    Ok(entries)
}

/// A text as a string of TOML.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            // A string takes all that is written to it.
            _ if character.is_control() => drop(write!(quoted, "\\u{:04X}", u32::from(character))),
            _ => quoted.push(character),
        }
    }
    quoted + "\""
}

/// A key with its value.
struct Leaf<'t> {
    name: String,
    span: Range<usize>,
    value: &'t DeValue<'t>,
}

fn flatten<'t>(
    table: &'t DeTable<'t>,
    prefix: &str,
    leaves: &mut Vec<Leaf<'t>>,
) -> Result<(), (Range<usize>, Problem)> {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        match value.get_ref() {
            // A dot in a name would be taken for the end of it.
            DeValue::Table(_) if prefix == FEEDS && !is_name(key.get_ref()) => {
                return Err((key.span(), Problem::FeedName(key.get_ref().to_string())));
            }
            DeValue::Table(inner) if inner.is_empty() && !is_table(&name) => {
                let near =
                    nearest(&name).and_then(|near| Some(near.rsplit_once('.')?.0.to_owned()));
                return Err((key.span(), Problem::UnknownKey { key: name, near }));
            }
            DeValue::Table(inner) => flatten(inner, &format!("{name}."), leaves)?,
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => {
                leaves.push(Leaf { name, span: key.span(), value: value.get_ref() });
            }
        }
    }
    Ok(())
}

/// Whether settings have names that begin like this.
fn is_table(name: &str) -> bool {
    let begins = format!("{name}.");
    let interface = name.strip_prefix("interface.").map(Key::of_interface).unwrap_or_default();
    name == "interface"
        || StartKey::ALL.iter().any(|key| key.name().starts_with(&begins))
        || name == "feeds"
        || name.starts_with(FEEDS)
        || Key::all().into_iter().chain(interface).any(|key| key.to_string().starts_with(&begins))
}

impl Leaf<'_> {
    /// Tells what was `found` and the byte at which it is; if there is a mistake, it is at `reached`.
    fn read(
        self,
        reached: &mut usize,
        found: &mut impl FnMut(Entry, usize),
    ) -> Result<(), Problem> {
        if let Some(feed) = self.feed() {
            found(feed?, *reached);
            return Ok(());
        }
        let Some(key) = StartKey::of(&self.name) else {
            found(Entry::Setting(self.setting()?), *reached);
            return Ok(());
        };
        match key.takes() {
            Takes::Names => {
                let mut names = Vec::new();
                for (name, _) in self.strings("an array of names, such as [\"wan0\"]")? {
                    names.push(name);
                }
                found(Entry::Interfaces(names), *reached);
            }
            Takes::Prefixes => {
                for (text, span) in
                    self.strings("an array of prefixes, such as [\"192.0.2.0/24\"]")?
                {
                    *reached = span.start;
                    let prefix = parse_listed(&text)
                        .map_err(|source| Problem::Prefix { key: key.name(), source })?;
                    found(Entry::Listed(key, prefix), *reached);
                }
            }
            Takes::Command => {
                let expected = "an array of a program's whole path and its arguments";
                let command = self.strings(expected)?.into_iter().map(|(text, _)| text);
                let command: Vec<_> = command.collect();
                if let Some(program) = command.first().filter(|it| !it.starts_with('/')) {
                    return Err(self.wrong(expected.to_owned(), quoted(program)));
                }
                if let Some(text) = command.iter().find(|text| text.contains('\0')) {
                    return Err(self.wrong("text without NUL".to_owned(), quoted(text)));
                }
                found(Entry::Command(key, command), *reached);
            }
            Takes::Word(words) => {
                let word = self.value.as_str().filter(|word| words.contains(word));
                let quoted = || words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>();
                let word = word.ok_or_else(|| self.wrong_type(quoted().join(" or ")))?;
                found(Entry::Word(key, word.to_owned()), *reached);
            }
        }
        Ok(())
    }

    /// A key of a feed; none if it is none.
    fn feed(&self) -> Option<Result<Entry, Problem>> {
        let (feed, key) = self.name.strip_prefix(FEEDS)?.split_once('.')?;
        let Some(found) = FeedKey::ALL.into_iter().find(|own| own.name() == key) else {
            let near = nearest_of(key, FeedKey::ALL.iter().map(|own| own.name().to_owned()));
            return Some(Err(Problem::UnknownKey { key: self.name.clone(), near }));
        };
        let Some(text) = self.value.as_str() else {
            return Some(
                Err(self.wrong_type(format!("a string, such as \"{}\"", found.example()))),
            );
        };
        Some(match found.refuses(text) {
            None => Ok(Entry::Feed(feed.to_owned(), found, text.to_owned())),
            Some(expected) => Err(self.wrong(expected, quoted(text))),
        })
    }

    fn setting(self) -> Result<Assignment, Problem> {
        let key: Key = self.name.parse().map_err(|UnknownKey { key, .. }| {
            let near = nearest(&key);
            Problem::UnknownKey { key, near }
        })?;
        let form = key.row.kind.form();
        let parsed = match self.value {
            DeValue::String(text) => form.parse(text),
            DeValue::Boolean(on) if form == Form::Switch => Ok(Value::Switch(*on)),
            DeValue::Integer(number) if matches!(form, Form::Burst | Form::Zone) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(decimal) => form.parse(&decimal.to_string()),
                    Err(_) => form.parse(number.as_str()),
                }
            }
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => {
                let is_switch = form == Form::Switch;
                let expected = if is_switch { "true or false".to_owned() } else { form.expected() };
                return Err(self.wrong_type(expected));
            }
        };
        match parsed {
            Ok(value) => Ok(Assignment { key, value }),
            Err(source) => Err(Problem::Value { key, source }),
        }
    }

    /// The strings of an array.
    fn strings(&self, expected: &str) -> Result<Vec<(String, Range<usize>)>, Problem> {
        let wrong = || self.wrong_type(expected.to_owned());
        let string = |item: &Spanned<DeValue<'_>>| {
            item.get_ref().as_str().map(|text| (text.to_owned(), item.span()))
        };
        let items = self.value.as_array().ok_or_else(wrong)?;
        items.iter().map(string).collect::<Option<_>>().ok_or_else(wrong)
    }

    fn wrong_type(&self, expected: String) -> Problem {
        let found = match self.value {
            DeValue::String(text) => return self.wrong(expected, quoted(text)),
            DeValue::Integer(_) | DeValue::Float(_) => "a number without quotes",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        self.wrong(expected, found.to_owned())
    }

    fn wrong(&self, expected: String, found: String) -> Problem {
        Problem::Type { key: self.name.clone(), expected, found }
    }
}

/// The key that was meant, if one is near enough to be worth saying.
fn nearest(text: &str) -> Option<String> {
    let last = text.rsplit_once('.').map(|(_, last)| last);
    if let Some(last) =
        last.filter(|last| StartKey::of(last).is_some() || last.parse::<Key>().is_ok())
    {
        return Some(format!("{last}, above the first [table]"));
    }
    nearest_of(text, StartKey::ALL.iter().map(|key| key.name().to_owned()))
}

/// Lines and columns of bytes, which must come in their order: a file may have thousands of prefixes.
struct Places<'t> {
    text: &'t str,
    byte: usize,
    place: Place,
}

impl<'t> Places<'t> {
    const fn of(text: &'t str) -> Self {
        Self { text, byte: 0, place: Place { line: 1, column: 1 } }
    }

    fn at(&mut self, byte: usize) -> Place {
        for character in self.text.get(self.byte..byte).unwrap_or_default().chars() {
            self.place = match (character, self.place) {
                ('\n', Place { line, .. }) => Place { line: line + 1, column: 1 },
                (_, Place { line, column }) => Place { line, column: column + 1 },
            };
        }
        self.byte = byte;
        self.place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_keys_of_set_as_dotted_names_or_in_tables() {
        let text = r#"
            interfaces = ["wan0", "eth0.100"]
            target = "80%"
            dry-run = true
            incidents.hook = ["/bin/hook", "a b"]
            allow = ["192.0.2.7", "2001:db8::1/48"]
            [source.tcp]
            rate = "200/s"
            burst = 400
            [feeds.blocklist]
            path = "/etc/list"
            [interface."eth0.100"]
            zone = 5
            source.udp.rate = "500/s"
        "#;
        let entries = read_document(text).unwrap();
        let shown: Vec<_> =
            entries.iter().map(|(entry, place)| (shown(entry), place.line)).collect();
        let expected = [
            ("interfaces wan0 eth0.100", 2),
            ("target=80%", 3),
            ("dry-run=on", 4),
            ("incidents.hook /bin/hook|a b", 5),
            ("allow 192.0.2.7/32", 6),
            ("allow 2001:db8::/48", 6),
            ("source.tcp.rate=200/s", 8),
            ("source.tcp.burst=400", 9),
            ("blocklist.path=/etc/list", 11),
            ("interface.eth0.100.zone=5", 13),
            ("interface.eth0.100.source.udp.rate=500/s", 14),
        ];
        assert_eq!(shown, expected.map(|(text, line)| (text.to_owned(), line)));
    }

    fn shown(entry: &Entry) -> String {
        match entry {
            Entry::Setting(Assignment { key, value }) => format!("{key}={value}"),
            Entry::Interfaces(names) => format!("interfaces {}", names.join(" ")),
            Entry::Word(key, word) => format!("{} {word}", key.name()),
            Entry::Command(key, words) => format!("{} {}", key.name(), words.join("|")),
            Entry::Listed(key, prefix) => format!("{} {prefix}", key.name()),
            Entry::Feed(name, key, text) => format!("{name}.{}={text}", key.name()),
        }
    }

    #[test]
    fn a_number_may_be_hexadecimal_or_have_underscores() {
        let text = "interface.wan0.zone = 0x10\nsource.tcp.burst = 1_000\n";
        let entries = read_document(text).unwrap();
        let shown: Vec<_> = entries.iter().map(|(entry, _)| shown(entry)).collect();
        assert_eq!(shown, ["interface.wan0.zone=16", "source.tcp.burst=1000"]);
    }

    #[test]
    fn each_mistake_is_told_with_line_column_and_what_would_be_right() {
        for (text, message) in [
            (
                "target = 85",
                "1:1: target is a number without quotes; it takes a fill between 0 and 1",
            ),
            ("\n  source.tcp.rate = 200", "2:14: source.tcp.rate is a number without quotes; it"),
            ("[source.tcp]\nrate = \"fast\"", "2:1: source.tcp.rate: fast is not a rate from 1"),
            (
                "[source.tcp]\nbrust = 5",
                "2:1: unknown key source.tcp.brust, did you mean source.tcp.burst?",
            ),
            ("[relif]", "1:2: unknown key relif, did you mean relief?"),
            ("interface = \"wan0\"", "1:1: unknown key interface, did you mean interfaces?"),
            (
                "interfaces = \"wan0\"",
                "1:1: interfaces is \"wan0\"; it takes an array of names, such as",
            ),
            ("interfaces = [1]", "1:1: interfaces is an array; it takes an array of names"),
            (
                "mode = \"fast\"",
                "1:1: mode is \"fast\"; it takes \"auto\" or \"native\" or \"generic\"",
            ),
            ("allow = [\"192.0.2\"]", "1:10: allow: 192.0.2 is not an IPv4 or IPv6 prefix"),
            ("deny = [\n\"::1\",\n \"::/0\"]", "3:2: deny: ::/0 is everybody"),
            ("dry-run = 1", "1:1: dry-run is a number without quotes; it takes true or false"),
            ("source.tcp.burst = 1.5", "1:12: source.tcp.burst is a number without quotes; it"),
            ("target = \"85%", "1:14: invalid basic string"),
            ("target = \"85%\"\ntarget = \"80%\"", "2:1: duplicate key"),
            (
                "[floor.tcp]\ninterfaces = [\"wan0\"]",
                "2:1: unknown key floor.tcp.interfaces, did you mean interfaces, above the first [table]?",
            ),
            ("[feeds.a]\nkind = \"fil\"", "2:1: feeds.a.kind is \"fil\"; it takes \"file\" or"),
            (
                "[feeds.a]\npath = 1",
                "2:1: feeds.a.path is a number without quotes; it takes a string",
            ),
            ("[feeds.a]\npaht = \"/\"", "2:1: unknown key feeds.a.paht, did you mean path?"),
            ("[feeds.\"a.b\"]\nkind = \"file\"", "1:8: a feed cannot have the name \"a.b\";"),
            ("feeds = 1", "1:1: unknown key feeds"),
            (
                "[incidents]\nhook = [\"notify\"]",
                "2:1: incidents.hook is \"notify\"; it takes an array of a program's whole path",
            ),
            (
                "incidents.hook = \"/bin/true\"",
                "1:11: incidents.hook is \"/bin/true\"; it takes an",
            ),
            ("incidents.hok = []", "1:11: unknown key incidents.hok, did you mean incidents.hook?"),
            ("xyzzy = 1", "1:1: unknown key xyzzy; `ctguard config default` shows all keys"),
        ] {
            let error = read_document(text).unwrap_err().to_string();
            assert!(error.starts_with(message), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn what_is_quoted_is_read_back() {
        for text in ["wan0", "eth0.100", "a\"b\\c", "tab\there", "\u{7f}", "größe"] {
            let document = format!("interfaces = [{}]", quoted(text));
            let names = Entry::Interfaces(vec![text.to_owned()]);
            assert_eq!(read_document(&document).unwrap()[0].0, names, "{document}");
        }
    }

    #[test]
    fn an_empty_file_and_empty_tables_say_nothing() {
        assert_eq!(read_document(""), Ok(vec![]));
        assert_eq!(
            read_document("# all defaults\n[relief]\n[source.tcp]\n[interface]\n[incidents]\n"),
            Ok(vec![])
        );
        assert_eq!(
            read_document("[interface.wan0]\n[interface.\"eth0.100\".source]\n"),
            Ok(vec![])
        );
    }

    #[test]
    fn a_damaged_file_is_refused_or_read_as_another_one() {
        let text = r#"interfaces = ["wan0", "eth0.100"]
target = "80%"
allow = ["192.0.2.7", "2001:db8::1/48"]
[source.tcp]
rate = "200/s"
burst = 0x10
[feeds.blocklist]
path = "/etc/list"
every = "5m"
[interface."eth0.100"]
source.udp.rate = "500/s"
"#;
        ctguard_damage::survives!(&[text.as_bytes()], |bytes: &[u8]| {
            let lines = bytes.split(|&byte| byte == b'\n').count();
            match read_document(&String::from_utf8_lossy(bytes)) {
                Ok(entries) => assert!(entries.iter().all(|(_, place)| place.line <= lines)),
                Err(error) => assert!(error.place.line <= lines, "{error}"),
            }
        });
    }
}
