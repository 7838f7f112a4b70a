//! Whether a setting may be of an interface that is not guarded.

use ctguard_settings::{Assignment, Settings};

/// What becomes of settings of interfaces that are not guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// A mistake.
    Refused,
    /// Others chose what to guard: the files may have settings of interfaces that only they name.
    OfTheFiles,
    /// A name is waited for, and nobody knows yet which device it means.
    Any,
}

impl Foreign {
    pub(crate) const fn of(chose: bool, waits: bool) -> Self {
        match (chose, waits) {
            (_, true) => Self::Any,
            (true, false) => Self::OfTheFiles,
            (false, false) => Self::Refused,
        }
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
        is_foreign
            && match self {
                Self::Refused => false,
                Self::OfTheFiles => files.iter().any(|own| own == name),
                Self::Any => true,
            }
    }

    /// The assignments of a command line that are to be applied to `settings`.
    pub(crate) fn own(self, assignments: &[Assignment], settings: &Settings) -> Vec<Assignment> {
        let own = assignments.iter().filter(|it| !self.may_skip(it, settings, &[]));
        own.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_of_another_interface_is_skipped_only_where_it_may_be_meant() {
        let settings = Settings::of_new_guard(["wan0"]);
        let files = ["wan0".to_owned(), "lan0".to_owned()];
        let skips = |foreign: Foreign, text: &str| {
            foreign.may_skip(&text.parse().unwrap(), &settings, &files)
        };
        for (key, [refused, of_the_files, any]) in [
            ("target=80%", [false, false, false]),
            ("interface.wan0.zone=5", [false, false, false]),
            ("interface.lan0.zone=5", [false, true, true]),
            ("interface.eth0.zone=5", [false, false, true]),
        ] {
            assert_eq!(skips(Foreign::Refused, key), refused, "{key}");
            assert_eq!(skips(Foreign::OfTheFiles, key), of_the_files, "{key}");
            assert_eq!(skips(Foreign::Any, key), any, "{key}");
        }
    }
}
