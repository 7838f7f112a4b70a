//! Feeds: lists that are kept elsewhere, `[feeds.NAME]` in a file.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use thiserror::Error;

/// A name is a label of metrics.
const LONGEST_NAME: usize = 32;
const EVERY: Duration = Duration::from_secs(10);
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_hours(24);

const KINDS: [&str; 4] = ["file", "directory", "nftables", "crowdsec"];
const LISTS: [&str; 2] = ["deny", "allow"];
const FAMILIES: [&str; 4] = ["inet", "ip", "ip6", "netdev"];

/// The keys of a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FeedKey {
    Kind,
    List,
    Path,
    Family,
    Table,
    Set,
    Url,
    KeyFile,
    Every,
}

impl FeedKey {
    pub const ALL: [Self; 9] = [
        Self::Kind,
        Self::List,
        Self::Path,
        Self::Family,
        Self::Table,
        Self::Set,
        Self::Url,
        Self::KeyFile,
        Self::Every,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::List => "list",
            Self::Path => "path",
            Self::Family => "family",
            Self::Table => "table",
            Self::Set => "set",
            Self::Url => "url",
            Self::KeyFile => "key-file",
            Self::Every => "every",
        }
    }

    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Kind => "Where the list is: file, directory, nftables, crowdsec",
            Self::List => "The list that its prefixes are added to: deny, allow",
            Self::Path => "file, directory: its absolute path; one address or prefix a line",
            Self::Family => "nftables: family of the table: inet, ip, ip6, netdev",
            Self::Table => "nftables: the table",
            Self::Set => "nftables: the set",
            Self::Url => "crowdsec: the local API",
            Self::KeyFile => "crowdsec: file with the bouncer's key; each bouncer needs its own",
            Self::Every => "nftables, crowdsec: how often it is read",
        }
    }

    /// A value that could be right, the default if there is one.
    pub const fn example(self) -> &'static str {
        match self {
            Self::Kind => "file",
            Self::List => "deny",
            Self::Path => "/etc/ctguard/blocklist.txt",
            Self::Family => "inet",
            Self::Table => "f2b-table",
            Self::Set => "addr-set-sshd",
            Self::Url => "http://127.0.0.1:8080",
            Self::KeyFile => "/etc/ctguard/crowdsec.key",
            Self::Every => "10s",
        }
    }

    /// What it takes, if not `text`.
    pub(crate) fn refuses(self, text: &str) -> Option<String> {
        let words = |words: &[&str]| {
            let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
            (!words.contains(&text)).then(|| quoted.join(" or "))
        };
        match self {
            Self::Kind => words(&KINDS),
            Self::List => words(&LISTS),
            Self::Family => words(&FAMILIES),
            Self::Path | Self::KeyFile => {
                (!text.starts_with('/')).then(|| "an absolute path".to_owned())
            }
            // The name is an argument of a program.
            Self::Table | Self::Set => (text.is_empty()
                || text.starts_with('-')
                || text.contains(|it: char| it.is_whitespace() || it.is_control()))
            .then(|| "a name".to_owned()),
            Self::Url => host_of(text).is_none().then(|| {
                "http://HOST:PORT; for https, put a proxy on this host in front of it".to_owned()
            }),
            Self::Every => parse_every(text)
                .is_none()
                .then(|| "a time from 1s to 1d, such as 10s or 1m".to_owned()),
        }
    }
}

/// Host and port.
fn host_of(url: &str) -> Option<(&str, u16)> {
    let authority = url.strip_prefix("http://")?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, 80),
    };
    let is_ipv6 = host.starts_with('[') && host.ends_with(']');
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "-._".contains(it);
    (is_ipv6 || !host.is_empty() && host.chars().all(is_plain)).then_some((host, port))
}

fn parse_every(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|every| (SHORTEST..=LONGEST).contains(every))
}

/// Whether a feed may have this name.
pub(crate) fn is_name(text: &str) -> bool {
    let is_plain = |it: u8| it.is_ascii_alphanumeric() || it == b'-' || it == b'_';
    (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(is_plain)
}

/// A list that is kept elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    pub name: String,
    pub allows: bool,
    pub source: FeedSource,
    /// How often a source is read that does not tell of its changes.
    pub every: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedSource {
    File(PathBuf),
    Directory(PathBuf),
    Nftables { family: String, table: String, set: String },
    Crowdsec { host: String, port: u16, key_file: PathBuf },
}

impl FeedSource {
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Directory(_) => "directory",
            Self::Nftables { .. } => "nftables",
            Self::Crowdsec { .. } => "crowdsec",
        }
    }
}

impl fmt::Display for FeedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Directory(path) => path.display().fmt(f),
            Self::Nftables { family, table, set } => write!(f, "{family} {table} {set}"),
            Self::Crowdsec { host, port, .. } => write!(f, "http://{host}:{port}"),
        }
    }
}

/// Where it comes from and goes to, in a line.
impl fmt::Display for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = if self.allows { "allow" } else { "deny" };
        write!(f, "{} {} to {list}", self.source.kind(), self.source)?;
        match self.source {
            FeedSource::File(_) | FeedSource::Directory(_) => Ok(()),
            FeedSource::Nftables { .. } | FeedSource::Crowdsec { .. } => {
                write!(f, " every {}", humantime::format_duration(self.every))
            }
        }
    }
}

/// Why the keys of a feed do not go together.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FeedError {
    #[error("feeds.{feed} has no {}", key.name())]
    Missing { feed: String, key: FeedKey },
    #[error("feeds.{feed}.{} does not go with kind {kind}", key.name())]
    Foreign { feed: String, key: FeedKey, kind: &'static str },
    #[error("feeds.{feed}.list is allow, but CrowdSec's decisions are bans")]
    AllowsBans { feed: String },
}

impl Feed {
    /// What keys say together, each of which was accepted.
    pub fn new(name: &str, keys: &BTreeMap<FeedKey, String>) -> Result<Self, FeedError> {
        let get = |key: FeedKey| {
            keys.get(&key).cloned().ok_or_else(|| FeedError::Missing { feed: name.to_owned(), key })
        };
        let kind = get(FeedKey::Kind)?;
        let (source, own): (_, &[FeedKey]) = match &kind[..] {
            "file" => (FeedSource::File(get(FeedKey::Path)?.into()), &[FeedKey::Path]),
            "directory" => (FeedSource::Directory(get(FeedKey::Path)?.into()), &[FeedKey::Path]),
            "nftables" => {
                let family = get(FeedKey::Family)?;
                let (table, set) = (get(FeedKey::Table)?, get(FeedKey::Set)?);
                let own = &[FeedKey::Family, FeedKey::Table, FeedKey::Set, FeedKey::Every];
                (FeedSource::Nftables { family, table, set }, own)
            }
            _ => {
                let url = get(FeedKey::Url)?;
                let (host, port) = host_of(&url).unwrap_or_default();
                let (host, key_file) = (host.to_owned(), get(FeedKey::KeyFile)?.into());
                let own = &[FeedKey::Url, FeedKey::KeyFile, FeedKey::Every];
                (FeedSource::Crowdsec { host, port, key_file }, own)
            }
        };
        let common = [FeedKey::Kind, FeedKey::List];
        if let Some(&key) = keys.keys().find(|key| !common.contains(key) && !own.contains(key)) {
            let (feed, kind) = (name.to_owned(), source.kind());
            return Err(FeedError::Foreign { feed, key, kind });
        }
        let allows = keys.get(&FeedKey::List).is_some_and(|list| list == "allow");
        if allows && matches!(source, FeedSource::Crowdsec { .. }) {
            return Err(FeedError::AllowsBans { feed: name.to_owned() });
        }
        let every = keys.get(&FeedKey::Every).and_then(|text| parse_every(text)).unwrap_or(EVERY);
        Ok(Self { name: name.to_owned(), allows, source, every })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(keys: &[(FeedKey, &str)]) -> Result<Feed, FeedError> {
        let accepted = keys.iter().all(|(key, text)| key.refuses(text).is_none());
        assert!(accepted, "{keys:?}");
        Feed::new("x", &keys.iter().map(|&(key, text)| (key, text.to_owned())).collect())
    }

    #[test]
    fn a_feed_needs_the_keys_of_its_kind_and_takes_no_others() {
        use FeedKey::{Family, Kind, List, Path, Set, Table, Url};
        let file = feed(&[(Kind, "file"), (Path, "/a"), (List, "allow")]).unwrap();
        assert_eq!((file.allows, file.source), (true, FeedSource::File("/a".into())));
        let denies = feed(&[(Kind, "directory"), (Path, "/a")]).unwrap();
        assert!(!denies.allows, "the default");
        let error = feed(&[(Kind, "nftables"), (Family, "inet"), (Table, "t")]).unwrap_err();
        assert_eq!(error.to_string(), "feeds.x has no set");
        let error = feed(&[(Kind, "file"), (Path, "/a"), (Set, "s")]).unwrap_err();
        assert_eq!(error.to_string(), "feeds.x.set does not go with kind file");
        let error = feed(&[(Kind, "crowdsec"), (Url, "http://[::1]:8080/")]).unwrap_err();
        assert_eq!(error.to_string(), "feeds.x has no key-file");
    }

    #[test]
    fn an_address_of_the_api_has_a_host_and_perhaps_a_port() {
        assert_eq!(host_of("http://127.0.0.1:8080"), Some(("127.0.0.1", 8080)));
        assert_eq!(host_of("http://[::1]:8080/"), Some(("[::1]", 8080)));
        assert_eq!(host_of("http://[::1]"), Some(("[::1]", 80)));
        assert_eq!(host_of("http://localhost"), Some(("localhost", 80)));
        for url in ["https://a", "http://", "http://a:x", "http://a/v1", "a:80", "http://a b"] {
            assert_eq!(host_of(url), None, "{url}");
        }
    }

    #[test]
    fn names_are_plain() {
        assert!(is_name("fail2ban-ssh_2"));
        for name in ["", "a.b", "a b", "größe", &"x".repeat(33)] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn every_key_takes_its_example() {
        for key in FeedKey::ALL {
            assert_eq!(key.refuses(key.example()), None, "{}", key.name());
        }
        for (key, text) in [
            (FeedKey::Kind, "ipset"),
            (FeedKey::Path, "list.txt"),
            (FeedKey::Set, "-f"),
            (FeedKey::Set, "a; flush ruleset"),
            (FeedKey::Every, "10"),
            (FeedKey::Every, "1ms"),
        ] {
            assert!(key.refuses(text).is_some(), "{text}");
        }
    }
}
