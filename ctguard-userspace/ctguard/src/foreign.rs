//! Whether a setting may be of an interface that is not guarded.

use ctguard_settings::{Assignment, Settings};

/// Which settings of interfaces that are not guarded are no mistake: those of names that are configured,
/// which only others may guard or which lead to another device. While a name is waited for, nobody knows
/// which device it means, so those of any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Foreign<'n> {
    /// Names of the command line.
    chosen: &'n [String],
    waits: bool,
}

impl Foreign<'static> {
    pub(crate) const ANY: Self = Self::of(&[], true);
}

impl<'n> Foreign<'n> {
    pub(crate) const fn of(chosen: &'n [String], waits: bool) -> Self {
        Self { chosen, waits }
    }

    /// Whether `assignment` is not for `settings`, and no mistake; `files` are the names in the files.
    pub(crate) fn may_skip(
        self,
        assignment: &Assignment,
        settings: &Settings,
        files: &[String],
    ) -> bool {
        let Some(name) = assignment.key.interface() else { return false };
        let is_foreign = settings.interfaces.iter().all(|own| own.name != name);
        is_foreign && (self.waits || files.iter().chain(self.chosen).any(|own| own == name))
    }

    /// The assignments of a command line that are to be applied to `settings`.
    pub(crate) fn own(
        self,
        assignments: &[Assignment],
        settings: &Settings,
        files: &[String],
    ) -> Vec<Assignment> {
        // Names that the command line replaces are none of its own.
        let files = if self.chosen.is_empty() { files } else { &[] };
        let own = assignments.iter().filter(|it| !self.may_skip(it, settings, files));
        own.cloned().collect()
    }
}

/// A line for each assignment of a command line whose interface is neither among `guarded` nor among the
/// `names` that are configured: it may be mistyped, or the device that one of the `missing` names means.
pub(crate) fn passed_over(
    assignments: &[Assignment],
    guarded: &[&str],
    names: &[String],
    missing: &[String],
) -> Vec<String> {
    let unknown = assignments.iter().filter_map(|Assignment { key, .. }| {
        let name = key.interface()?;
        let is_known = guarded.contains(&name) || names.iter().any(|own| own == name);
        (!is_known).then(|| {
            format!(
                "--set {key}: interface {name} is not guarded; the setting is used if it turns out to be {}",
                missing.join(" or ")
            )
        })
    });
    unknown.collect()
}

/// What to say of settings of `name`, which leads to `device`.
pub(crate) fn unused(name: &str, device: &str) -> String {
    format!(
        "settings of interface.{name} are not used; {name} is guarded at {device}, so name them \
         interface.{device}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_of_another_interface_is_skipped_only_where_it_may_be_meant() {
        let settings = Settings::of_new_guard(["wan0"]);
        let files = ["wan0".to_owned(), "lan0".to_owned()];
        let chosen = ["wan0.100".to_owned()];
        let skips = |chosen, waits, text: &str| {
            Foreign::of(chosen, waits).may_skip(&text.parse().unwrap(), &settings, &files)
        };
        for (key, [of_files, chosen_too, waiting]) in [
            ("target=80%", [false, false, false]),
            ("interface.wan0.zone=5", [false, false, false]),
            ("interface.lan0.zone=5", [true, true, true]),
            ("interface.wan0.100.zone=5", [false, true, true]),
            ("interface.eth0.zone=5", [false, false, true]),
        ] {
            assert_eq!(skips(&[], false, key), of_files, "{key}");
            assert_eq!(skips(&chosen, false, key), chosen_too, "{key}");
            assert_eq!(skips(&[], true, key), waiting, "{key}");
        }
    }

    /// Fails when `-i wan0.100 --set interface.wan0.100.zone=5` is refused once the VLAN is there.
    #[test]
    fn a_command_line_may_set_what_it_names_and_no_other_interface() {
        let settings = Settings::of_new_guard(["wan0"]);
        let [own, other] = ["interface.wan0.100.zone=5", "interface.lan0.zone=5"];
        let assignments = [own, other].map(|text| text.parse().unwrap());
        let names = |name: &str| [name.to_owned()];
        let applied = |chosen: &[String], files: &[String]| {
            Foreign::of(chosen, false).own(&assignments, &settings, files)
        };
        assert_eq!(applied(&names("wan0.100"), &names("lan0")), assignments[1..]);
        assert_eq!(applied(&[], &names("wan0.100")), assignments[1..]);
    }

    /// Fails when a mistyped setting of the command line is dropped without a word.
    #[test]
    fn a_setting_of_the_command_line_that_is_not_used_is_told() {
        let keys = [
            "target=80%",
            "interface.wan0.zone=5",
            "interface.late0.zone=5",
            "interface.wna0.zone=5",
        ];
        let assignments = keys.map(|text| text.parse().unwrap());
        let names = ["wan0".to_owned(), "late0".to_owned()];
        let told = passed_over(&assignments, &["wan0"], &names, &names[1..]);
        let expected = "--set interface.wna0.zone: interface wna0 is not guarded; the setting is used if it \
                        turns out to be late0";
        assert_eq!(told, [expected]);
    }
}
