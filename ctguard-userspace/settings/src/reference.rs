//! Every key with its value, default and meaning: what `ctguard set --help` lists.

use std::fmt::Write as _;

use ctguard_layout::Class;

use crate::{
    change::Settings,
    key::{Key, TABLE},
    value::Value,
};

/// Stands for an interface.
const INTERFACE: &str = "IF";

/// The list of all keys, two lines a key.
#[must_use]
pub fn reference() -> String {
    let new_guard = Settings::of_new_guard([INTERFACE]);
    let keys = [Key::all(), Key::of_interface(INTERFACE)].concat();
    let mut text = format!(
        "Keys, where CLASS is one of {} and {INTERFACE} a guarded interface. N% is a part of\n\
         nf_conntrack_max, N/s are new flows per second. The value `default` resets a key.",
        Class::ALL.map(Class::name).join(", ")
    );
    for row in &TABLE {
        let of_classes = keys.iter().filter(|key| key.row.name == row.name);
        let mut defaults: Vec<_> = of_classes
            .map(|key| match new_guard.get(key) {
                Ok(Value::Default) | Err(_) => row.unset.to_owned(),
                Ok(value) => value.to_string(),
            })
            .collect();
        defaults.dedup();
        let (name, notation, meaning) = (row.name, row.kind.form().notation(), row.meaning);
        // A string takes all that is written to it.
        let _ = write!(
            text,
            "\n  {name}={notation}\n      {meaning} [default: {}]",
            defaults.join(", ")
        );
    }
    text
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
            let entry =
                format!("\n  {name}={}\n      {}", key.row.kind.form().notation(), key.row.meaning);
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
