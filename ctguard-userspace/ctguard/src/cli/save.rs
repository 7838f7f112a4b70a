//! `ctguard save`: write the settings in force into a file of the configuration.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use clap::Args;
use ipnet::IpNet;
use toml_edit::{Array, DocumentMut, Item, RawString, Table, Value, value};

use super::{CliError, Code, Context, in_use::configuration_in_use};
use crate::{
    config::{Config, DEFAULT_PATH, saved_path},
    files::FileError,
    foreign::Foreign,
    interfaces::{Interfaces, interfaces_of_daemon},
    terminal::{Terminal, complain},
};
use ctguard_kernel::{durable::replace, lock, maps::ListKind};
use ctguard_settings::{
    Assignment, Change, Key, Settings, Value as Setting, in_toml, parse_prefix,
};

/// Write the settings and lists in force into a file that a reload reads
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctguard set source.tcp.rate=200/s && ctguard save\n\n\
    It writes conf.d/90-saved.toml beside the configuration, and keeps what it does not change \
    there.\nEntries of a list that end by themselves are not written.")]
pub(super) struct SaveArgs {
    /// Configuration [default: the daemon's, or /etc/ctguard/ctguard.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &SaveArgs, context: &Context) -> Result<Code, CliError> {
    let maps = context.maps()?;
    let running = maps.settings();
    let main = args.config.clone().or_else(|| configuration_in_use(context));
    let path = saved_path(main.as_deref());
    let config = read(main.as_deref())?;
    let mut file = Saved::read(&path)?;

    let names = || running.interfaces.iter().map(|own| &own.name[..]);
    let daemon = lock::daemon_of(context.pins.path()).and_then(|_| interfaces_of_daemon());
    let Interfaces { held, waiting } = daemon.unwrap_or_default();
    let of_daemon: Vec<_> = held.into_iter().flat_map(|it| it.names).collect();
    let foreign = Foreign::of(&of_daemon, !waiting.is_empty());
    if config.interfaces().is_empty() {
        let all = names().chain(waiting.iter().map(|it| &it.name[..]));
        file.set(&["interfaces"], value(all.collect::<Array>()));
    }
    let mut configured = Settings::of_new_guard(names());
    config.apply_to(&mut configured, foreign)?;
    file.set_changes(&configured, &running);
    let mut permanent = Vec::new();
    for kind in [ListKind::Allow, ListKind::Deny] {
        let entries = maps.lists.entries(kind)?.into_iter().filter(|entry| entry.expires_at == 0);
        let own: BTreeSet<_> = entries.map(|entry| entry.prefix).collect();
        for prefix in own.iter().filter(|prefix| !config.list(kind).contains_key(prefix)) {
            file.add(kind, *prefix);
        }
        for (prefix, origin) in config.list(kind) {
            if origin.file == path && !own.contains(prefix) {
                file.remove(kind, *prefix);
            }
        }
        permanent.push((kind, own));
    }
    let told = std::mem::take(&mut file.told);
    if told.is_empty() {
        complain(format_args!("nothing to save"));
    } else {
        file.write(&path)?;
        complain(format_args!("written to {}", path.display()));
    }
    let config = read(main.as_deref())?;
    warn_of_others(&config, &running, (names().collect(), foreign))?;
    for (kind, own) in permanent {
        for (prefix, origin) in config.list(kind).iter().filter(|it| !own.contains(it.0)) {
            complain(format_args!("warning: {origin} lists {prefix}; remove it there"));
        }
    }
    let mut out = Terminal::stdout();
    told.iter().try_for_each(|line| writeln!(out, "{line}")).map_err(CliError::Output)?;
    Ok(Code::Done)
}

/// Writes one setting there, unless the files say the same or nothing; tells where.
pub(super) fn keep(file: Option<&Path>, own: &Assignment) -> Result<Option<PathBuf>, CliError> {
    let default = Settings::of_new_guard([]).get(&own.key)?;
    let is_said = |config: &Config| config.value(&own.key).unwrap_or(default) == own.value;
    let config = read(file)?;
    if !config.is_there() || is_said(&config) {
        return Ok(None);
    }
    let path = saved_path(file);
    let mut saved = Saved::read(&path)?;
    saved.set_key(&own.key, &in_toml(own.value));
    saved.write(&path)?;
    let config = read(file)?;
    if let Some(origin) = config.origin(&own.key).filter(|_| !is_said(&config)) {
        complain(format_args!("warning: {origin} comes later and sets {} otherwise", own.key));
    }
    Ok(Some(path))
}

/// A drop-in can stand alone.
fn read(file: Option<&Path>) -> Result<Config, CliError> {
    Ok(Config::read_beside(file.unwrap_or(Path::new(DEFAULT_PATH)), false)?)
}

/// The last file that sets a key decides, and it may not be the one that was written.
fn warn_of_others(
    config: &Config,
    running: &Settings,
    (names, foreign): (Vec<&str>, Foreign<'_>),
) -> Result<(), CliError> {
    let mut configured = Settings::of_new_guard(names);
    config.apply_to(&mut configured, foreign)?;
    for Change { key, old, .. } in configured.changes_to(running) {
        if let Some(origin) = config.origin(&key) {
            complain(format_args!("warning: {origin} comes later and sets {key} to {old}"));
        }
    }
    Ok(())
}

/// The file that is written; comments and all else in it stay.
struct Saved {
    document: DocumentMut,
    /// What was changed.
    told: Vec<String>,
}

impl Saved {
    fn read(path: &Path) -> Result<Self, FileError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(FileError::new("read", path)(error)),
        };
        let document = text.parse().map_err(io::Error::other);
        let document = document.map_err(FileError::new("understand", path))?;
        Ok(Self { document, told: Vec::new() })
    }

    fn write(&self, path: &Path) -> Result<(), FileError> {
        let document = self.document.to_string();
        // A link stays one.
        let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
        replace(path, &path.with_extension("new"), document.as_bytes())
            .map_err(FileError::new("write", path))
    }

    fn set_changes(&mut self, configured: &Settings, running: &Settings) {
        for Change { key, new, is_own, .. } in configured.changes_to(running) {
            // What is a default again would be the operator's own as a number.
            let saved = if is_own == Some(false) { Setting::Default } else { new };
            self.set_key(&key, &in_toml(saved));
        }
    }

    fn set_key(&mut self, key: &Key, text: &str) {
        // All values of settings are TOML.
        let Ok(parsed) = text.parse::<Value>() else { return };
        let path = key.path();
        self.set(&path.iter().map(|part| &part[..]).collect::<Vec<_>>(), value(parsed));
    }

    fn set(&mut self, path: &[&str], item: Item) {
        self.told.push(format!("{} = {}", path.join("."), item.to_string().trim()));
        let [tables @ .., name] = path else { return };
        let mut table: &mut Table = self.document.as_table_mut();
        for part in tables {
            let inner = table.entry(part).or_insert_with(|| {
                let mut inner = Table::new();
                inner.set_implicit(true);
                Item::Table(inner)
            });
            // Inline tables and dotted keys are rewritten.
            if !inner.is_table() {
                *inner = std::mem::take(inner).into_table().unwrap_or_default().into();
            }
            let Item::Table(inner) = inner else { return };
            table = inner;
        }
        match (table.get_mut(name), item) {
            (Some(Item::Value(old)), Item::Value(mut new)) => {
                *new.decor_mut() = old.decor().clone();
                *old = new;
            }
            (_, item) => drop(table.insert(name, item)),
        }
    }

    fn list(&mut self, kind: ListKind) -> Option<&mut Array> {
        let list = self.document.entry(kind.name()).or_insert_with(|| value(Array::new()));
        list.as_array_mut()
    }

    fn add(&mut self, kind: ListKind, prefix: IpNet) {
        let Some(list) = self.list(kind) else { return };
        push(list, &prefix.to_string());
        self.told.push(format!("{} + {prefix}", kind.name()));
    }

    fn remove(&mut self, kind: ListKind, prefix: IpNet) {
        let Some(list) = self.list(kind) else { return };
        let is_it = |item: &Value| {
            item.as_str().is_some_and(|text| parse_prefix(text).is_ok_and(|own| own == prefix))
        };
        for position in (0..list.len()).rev() {
            if list.get(position).is_some_and(is_it) {
                remove(list, position);
            }
        }
        self.told.push(format!("{} - {prefix}", kind.name()));
    }
}

/// Adds an item. If each has a line of its own, so has it, and a comment behind the last one stays there.
fn push(list: &mut Array, item: &str) {
    let raw =
        |raw: Option<&RawString>| raw.and_then(RawString::as_str).unwrap_or_default().to_owned();
    let indent = list
        .get(0)
        .and_then(|first| Some(raw(first.decor().prefix()).rsplit_once('\n')?.1.to_owned()));
    list.push(item);
    let (Some(indent), Some(former)) = (indent, list.len().checked_sub(2)) else { return };
    let mut behind = raw(Some(list.trailing()));
    if !list.trailing_comma()
        && let Some(item) = list.get_mut(former)
    {
        behind = raw(item.decor().suffix());
        item.decor_mut().set_suffix("");
    }
    if let Some(item) = list.get_mut(former + 1) {
        item.decor_mut().set_prefix(format!("{}\n{indent}", behind.trim_end()));
    }
    list.set_trailing("\n");
    list.set_trailing_comma(true);
}

/// Removes an item with the comments above it and behind it. A comment behind the one before it stays.
fn remove(list: &mut Array, position: usize) {
    let prefix = |item: &Value| {
        item.decor().prefix().and_then(RawString::as_str).unwrap_or_default().to_owned()
    };
    let before = prefix(&list.remove(position));
    let behind_former = before.split_once('\n').map_or("", |(comment, _)| comment);
    if let Some(next) = list.get_mut(position) {
        let own = prefix(next);
        let new = match own.split_once('\n') {
            Some((_, own)) => format!("{behind_former}\n{own}"),
            None => before,
        };
        next.decor_mut().set_prefix(new);
    } else if let Some((_, rest)) = list.trailing().as_str().and_then(|it| it.split_once('\n')) {
        let trailing = format!("{behind_former}\n{rest}");
        list.set_trailing(trailing);
    }
}

#[cfg(test)]
mod tests {
    use ctguard_layout::Class;

    use super::*;

    fn saved(text: &str) -> Saved {
        Saved { document: text.parse().unwrap(), told: Vec::new() }
    }

    fn set(saved: &mut Saved, key: &str, value: &str) {
        saved.set_key(&key.parse().unwrap(), value);
    }

    #[test]
    fn what_was_there_stays_with_its_comments() {
        let mut file = saved(
            "# by hand\ntarget = \"80%\" # enough\n\n[source.tcp]\n# the office\nrate = \"90/s\"\n",
        );
        set(&mut file, "target", "\"70%\"");
        set(&mut file, "source.tcp.burst", "400");
        set(&mut file, "interface.eth0.100.zone", "5");
        file.add(ListKind::Allow, "192.0.2.7/32".parse().unwrap());
        let text = file.document.to_string();
        for part in [
            "# by hand\ntarget = \"70%\" # enough\n",
            "[source.tcp]\n# the office\nrate = \"90/s\"\nburst = 400\n",
            "[interface.\"eth0.100\"]\nzone = 5\n",
            "allow = [\"192.0.2.7/32\"]\n",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(ctguard_settings::read_document(&text).is_ok(), "{text}");
    }

    /// Fails when a limit that was taken back holds in calm again after the next reload.
    #[test]
    fn what_is_a_default_again_is_one_after_a_reload() {
        let directory = tempfile::tempdir().unwrap();
        let main = directory.path().join("ctguard.toml");
        fs::write(&main, "[source.udp]\nrate = \"200/s\"\n").unwrap();
        let settings = || {
            let mut settings = Settings::of_new_guard([]);
            read(Some(&main)).unwrap().apply_to(&mut settings, Foreign::of(&[], false)).unwrap();
            settings
        };
        let (configured, mut running) = (settings(), settings());
        running.apply(&["source.udp.rate=default".parse().unwrap()]).unwrap();
        let path = saved_path(Some(&main));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = Saved::read(&path).unwrap();
        file.set_changes(&configured, &running);
        file.write(&path).unwrap();
        let udp = Class::Udp as usize;
        assert!(configured.policy.has_own_ceiling(udp));
        assert!(!settings().policy.has_own_ceiling(udp));
        assert_eq!(settings(), running);
    }

    #[test]
    fn a_prefix_is_removed_however_it_is_written() {
        let mut file = saved("deny = [\n  \"192.0.2.7\", # a host\n  \"198.51.100.0/24\",\n]\n");
        file.remove(ListKind::Deny, "192.0.2.7/32".parse().unwrap());
        let text = file.document.to_string();
        assert!(!text.contains("192.0.2.7") && text.contains("198.51.100.0/24"), "{text}");
    }

    /// Fails when a comment comes to stand behind another prefix than its own.
    #[test]
    fn comments_in_a_list_stay_with_their_prefix() {
        let begin = "allow = [\n  # ours\n  \"192.0.2.1\", # a\n";
        for end in ["  \"192.0.2.2\", # b\n]\n", "  \"192.0.2.2\" # b\n]\n"] {
            let mut file = saved(&format!("{begin}{end}"));
            file.add(ListKind::Allow, "192.0.2.3/32".parse().unwrap());
            let all = format!("{begin}  \"192.0.2.2\", # b\n  \"192.0.2.3/32\",\n]\n");
            assert_eq!(file.document.to_string(), all);
            file.remove(ListKind::Allow, "192.0.2.2/32".parse().unwrap());
            assert_eq!(file.document.to_string(), format!("{begin}  \"192.0.2.3/32\",\n]\n"));
            file.remove(ListKind::Allow, "192.0.2.3/32".parse().unwrap());
            assert_eq!(file.document.to_string(), format!("{begin}]\n"));
        }
        let mut file = saved("deny = [\"192.0.2.1\", \"192.0.2.2\"]\n");
        file.remove(ListKind::Deny, "192.0.2.1/32".parse().unwrap());
        file.add(ListKind::Deny, "192.0.2.3/32".parse().unwrap());
        assert_eq!(file.document.to_string(), "deny = [\"192.0.2.2\", \"192.0.2.3/32\"]\n");
    }

    #[test]
    fn a_link_to_the_file_stays_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (link, target) =
            (directory.path().join("90-saved.toml"), directory.path().join("other"));
        fs::write(&target, "").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let mut file = Saved::read(&link).unwrap();
        set(&mut file, "target", "\"70%\"");
        file.write(&link).unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&target).unwrap(), "target = \"70%\"\n");
    }

    #[test]
    fn dotted_keys_and_inline_tables_are_added_to() {
        for text in ["source.tcp.rate = \"5/s\"\n", "source = { tcp = { rate = \"5/s\" } }\n"] {
            let mut file = saved(text);
            set(&mut file, "source.tcp.burst", "9");
            set(&mut file, "target", "\"70%\"");
            let text = file.document.to_string();
            let entries = ctguard_settings::read_document(&text).unwrap();
            assert_eq!(entries.len(), 3, "{text}");
        }
    }
}
