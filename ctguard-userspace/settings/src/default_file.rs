//! The default configuration: every key with its default and meaning, as comments.

use std::fmt::Write as _;

use crate::{
    change::Settings,
    document::{StartKey, Takes, quoted},
    feed::FeedKey,
    key::Key,
    value::{Form, Value},
};

const HEAD: &str = "\
# The configuration of ctguard: /etc/ctguard/ctguard.toml, and /etc/ctguard/conf.d/*.toml, which are
# read after it in the order of their names. The last file that sets a key decides; prefixes of all
# files are listed. A key that is commented out here has the value that it shows, if it shows one.
#
#   ctguard config check    is it right?
#   ctguard config diff     what would change?
#   ctguard reload          use it, all or nothing
#
# N% is a part of nf_conntrack_max, N/s are new flows per second.
";

/// Stands for an interface.
const INTERFACE: &str = "wan0";

/// What `ctguard config default` prints, and what is shipped.
#[must_use]
pub fn default_file() -> String {
    let mut text = HEAD.to_owned();
    for key in StartKey::ALL {
        let (name, meaning) = (key.name(), key.meaning());
        // A string takes all that is written to it.
        let _ = match key.takes() {
            Takes::Names => write!(text, "\n# {meaning}.\n#{name} = [\"{INTERFACE}\"]\n"),
            Takes::Prefixes | Takes::Command => {
                write!(text, "\n# {meaning}.\n#{name} = []\n")
            }
            Takes::Word(words) => {
                let [first, ..] = words else { continue };
                write!(text, "\n# {meaning}: {}.\n#{name} = \"{first}\"\n", words.join(", "))
            }
        };
    }
    let defaults = Settings::of_new_guard([INTERFACE]);
    let mut table = String::new();
    for key in Key::all().into_iter().chain(Key::of_interface(INTERFACE)) {
        let name = key.to_string();
        let (own_table, leaf) = name.rsplit_once('.').unwrap_or(("", &name));
        if own_table != table {
            own_table.clone_into(&mut table);
            let _ = write!(text, "\n{}[{table}]", if key.interface.is_some() { "#" } else { "" });
        }
        let row = key.row;
        let shown = match defaults.get(&key) {
            Ok(Value::Default) | Err(_) => format!(
                "# {}; without it: {}.\n#{leaf} = {}",
                row.meaning,
                row.unset,
                if row.kind.form() == Form::Burst {
                    "N".to_owned()
                } else {
                    quoted(row.kind.form().notation())
                }
            ),
            Ok(value) => format!("# {}.\n#{leaf} = {}", row.meaning, in_toml(value)),
        };
        let _ = write!(text, "\n{shown}\n");
    }
    text.push_str("\n# A list that is kept elsewhere; each has a table with a name of its own.\n#[feeds.NAME]\n");
    for key in FeedKey::ALL {
        let _ = write!(text, "\n# {}.\n#{} = \"{}\"\n", key.meaning(), key.name(), key.example());
    }
    text
}

/// A value as a file has it.
#[must_use]
pub fn in_toml(value: Value) -> String {
    match value {
        Value::Switch(on) => on.to_string(),
        Value::Burst(_) | Value::Zone(_) => value.to_string(),
        Value::Default | Value::Ratio(_) | Value::Rate(_) | Value::Age(_) => format!("\"{value}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entry, read_document};

    #[test]
    fn the_default_file_says_nothing_and_each_of_its_comments_is_a_key() {
        let text = default_file();
        assert_eq!(read_document(&text), Ok(vec![]));
        let uncommented: Vec<_> = text
            .lines()
            .map(|line| {
                line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line)
            })
            .map(|line| line.replace("\"N/s\"", "\"5/s\"").replace("\"N%\"", "\"5%\""))
            .map(|line| line.replace("= N", "= 5"))
            .collect();
        let entries = read_document(&uncommented.join("\n")).unwrap();
        let settings = entries.iter().filter(|(entry, _)| matches!(entry, Entry::Setting(_)));
        let keys = [Key::all(), Key::of_interface(INTERFACE)].concat();
        assert_eq!(settings.count(), keys.len());
        // Empty lists have no entries.
        let others = StartKey::ALL.len() - 2 + FeedKey::ALL.len();
        assert_eq!(entries.len() - keys.len(), others);
    }

    #[test]
    fn its_values_are_the_defaults() {
        let text = default_file();
        for line in ["#target = \"85%\"", "#dry-run = false", "#burst = 200", "#rate = \"50/s\""] {
            assert!(text.lines().any(|own| own == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn it_fits_a_terminal_of_a_hundred_columns() {
        for line in default_file().lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}
