//! Every key with its value, default and meaning: what `ctguard set --help` lists.

use std::fmt::Write as _;

use ctguard_layout::{CLASSES, Class, Rate};

use super::{
    DEFAULT_POLICY,
    change::{InterfaceSettings, Settings},
    key::Key,
    value::Value,
};

/// The interface in the reference.
const INTERFACE: &str = "IF";

/// The list of all keys, two lines a key; keys that differ in their class alone share an entry.
#[must_use]
pub fn reference() -> String {
    let mut entries: Vec<(String, &str, Vec<String>)> = Vec::new();
    for (key, default) in defaults() {
        let class = key.class().map(Class::name);
        let name = class.map_or_else(
            || key.to_string(),
            |class| key.to_string().replacen(&format!(".{class}."), ".CLASS.", 1),
        );
        let default =
            if default == Value::Default { key.unset().to_owned() } else { default.to_string() };
        let head = format!("{name}={}", key.form().notation());
        match entries.iter_mut().find(|(other, ..)| *other == head) {
            Some((.., defaults)) if defaults.contains(&default) => {}
            Some((.., defaults)) => defaults.push(default),
            None => entries.push((head, key.meaning(), vec![default])),
        }
    }
    let mut text = format!(
        "Keys, where CLASS is one of {} and {INTERFACE} a guarded interface. N% is a part of\n\
         nf_conntrack_max, N/s are new flows per second. The value `default` resets a key.",
        Class::ALL.map(Class::name).join(", ")
    );
    for (head, meaning, defaults) in entries {
        // A string takes all that is written to it.
        let _ = write!(text, "\n  {head}\n      {meaning} [default: {}]", defaults.join(", "));
    }
    text
}

/// Every key and what it is when nobody has set it.
fn defaults() -> Vec<(Key, Value)> {
    let settings = Settings {
        policy: DEFAULT_POLICY,
        interfaces: vec![InterfaceSettings {
            name: INTERFACE.to_owned(),
            overrides: [Rate::default(); CLASSES],
            zone: 0,
            answers: true,
        }],
    };
    let keys = Key::all().into_iter().chain(Key::of_interface(INTERFACE));
    keys.filter_map(|key| settings.get(&key).ok().map(|value| (key, value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_the_reference_with_its_value_and_meaning() {
        let reference = reference();
        for key in Key::all().into_iter().chain(Key::of_interface("IF")) {
            let mut name = key.to_string();
            for class in ["tcp", "udp", "other"] {
                name = name.replace(&format!(".{class}."), ".CLASS.");
            }
            let entry = format!("\n  {name}={}\n      {}", key.form().notation(), key.meaning());
            assert!(reference.contains(&entry), "{entry}\nis not in\n{reference}");
        }
    }

    #[test]
    fn the_reference_names_the_default_of_each_class() {
        assert!(reference().contains("[default: 50/s, 100/s, 20/s]"), "{}", reference());
    }

    #[test]
    fn the_reference_fits_a_terminal_of_a_hundred_columns() {
        for line in reference().lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}
