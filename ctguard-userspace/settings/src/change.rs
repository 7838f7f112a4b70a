//! Settings as they stand, and how assignments change them: all or none.

use std::{fmt, str::FromStr};

use ctguard_layout::{CLASSES, Policy, Rate};
use thiserror::Error;

use super::{
    DEFAULT_POLICY,
    key::{Key, Kind, UnknownKey},
    value::{Form, Value, ValueError},
};

/// `KEY=VALUE`, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    pub key: Key,
    pub value: Value,
}

/// A setting that an assignment changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub key: Key,
    pub old: Value,
    pub new: Value,
    /// For a ceiling that was a default and is set, true; for one that is a default again, false.
    pub is_own: Option<bool>,
}

impl Change {
    /// Whether anything is different.
    pub fn is_one(&self) -> bool {
        self.old != self.new || self.is_own.is_some()
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, old, new, is_own } = self;
        match is_own.filter(|_| old == new) {
            None => write!(f, "{key} {old} → {new}"),
            Some(true) => write!(f, "{key} {new}, set by you: it holds in calm too"),
            Some(false) => write!(f, "{key} {new}, a default again: it holds only outside calm"),
        }
    }
}

/// Why a setting cannot be read or changed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SettingError {
    #[error("{text} is not KEY=VALUE")]
    NoAssignment { text: String },
    #[error(transparent)]
    Key(#[from] UnknownKey),
    #[error("{key}: {source}")]
    Value { key: Key, source: ValueError },
    #[error("{key}: interface {name} is not guarded; guarded: {}", guarded.join(", "))]
    Interface { key: Key, name: String, guarded: Vec<String> },
    #[error(
        "interface.{interface}.zone: this kernel can look up flows in the default zone only, not in \
         zone {zone} (Linux 6.10 can); set interface.{interface}.zone=default, or run with \
         --new-flow-detection flow-cache"
    )]
    ZoneUnknown { interface: String, zone: u16 },
}

impl FromStr for Assignment {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| SettingError::NoAssignment { text: text.to_owned() })?;
        let key: Key = key.trim().parse()?;
        match key.row.kind.form().parse(value.trim()) {
            Ok(value) => Ok(Self { key, value }),
            Err(source) => Err(SettingError::Value { key, source }),
        }
    }
}

/// Bytes of `struct bpf_ct_opts` until Linux 6.9, which have no room for a zone.
const WITHOUT_ZONE_BYTES: u32 = 12;

/// The policy and the settings of the guarded interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub policy: Policy,
    pub interfaces: Vec<InterfaceSettings>,
}

/// What is set for one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceSettings {
    pub name: String,
    /// Its own ceilings, by class; zeros where the policy's hold.
    pub overrides: [Rate; CLASSES],
    /// The conntrack zone of what arrives there; 0 is the default zone.
    pub zone: u16,
    /// SYNs of strangers may be answered there.
    pub answers: bool,
}

impl InterfaceSettings {
    /// What holds where nothing is set.
    #[must_use]
    pub fn unset(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            overrides: [Rate::default(); CLASSES],
            zone: 0,
            answers: true,
        }
    }
}

impl Settings {
    /// Those of a new guard.
    pub fn of_new_guard<'n>(interfaces: impl IntoIterator<Item = &'n str>) -> Self {
        let interfaces = interfaces.into_iter().map(InterfaceSettings::unset).collect();
        Self { policy: DEFAULT_POLICY, interfaces }
    }

    /// Every key that these settings have.
    pub fn keys(&self) -> Vec<Key> {
        let own = self.interfaces.iter().flat_map(|own| Key::of_interface(&own.name));
        Key::all().into_iter().chain(own).collect()
    }

    /// What differs in `next`. An interface that only one of the two has counts as unset in the other.
    pub fn changes_to(&self, next: &Self) -> Vec<Change> {
        let of = |settings: &Self, key: &Key| settings.get(key).or_else(|_| Self::unset(key));
        let keys = next.keys().into_iter();
        keys.filter_map(|key| {
            let (old, new) = (of(self, &key).ok()?, of(next, &key).ok()?);
            let is_own = self.becomes_own(next, &key);
            Some(Change { key, old, new, is_own }).filter(Change::is_one)
        })
        .collect()
    }

    /// Whether `key` makes a ceiling the operator's in `next`, or a default again; `None` if neither.
    fn becomes_own(&self, next: &Self, key: &Key) -> Option<bool> {
        let Kind::Source(form, _) = key.row.kind else { return None };
        let bit = Policy::ceiling_bit(key.class(), matches!(form, Form::Burst));
        let [before, after] = [self, next].map(|it| it.policy.has_own_ceiling(key.class()));
        let is_of_key = (self.policy.own_ceilings ^ next.policy.own_ceilings) & bit != 0;
        (before != after && is_of_key).then_some(after)
    }

    fn unset(key: &Key) -> Result<Value, SettingError> {
        Self::of_new_guard(key.interface.as_deref()).get(key)
    }

    /// Applies all of `assignments`, or nothing when one cannot be.
    pub fn apply(&mut self, assignments: &[Assignment]) -> Result<Vec<Change>, SettingError> {
        let mut next = self.clone();
        let mut changes = Vec::new();
        for Assignment { key, value } in assignments {
            let before = next.clone();
            next.set(key, *value)?;
            let (old, new) = (before.get(key)?, next.get(key)?);
            let is_own = before.becomes_own(&next, key);
            changes.push(Change { key: key.clone(), old, new, is_own });
        }
        *self = next;
        Ok(changes)
    }

    /// The value of a setting; [`Value::Default`] where an interface has none of its own.
    pub fn get(&self, key: &Key) -> Result<Value, SettingError> {
        let class = key.class();
        Ok(match key.row.kind {
            Kind::On(bit) => Value::Switch(self.policy.has(bit)),
            Kind::Off(bit) => Value::Switch(!self.policy.has(bit)),
            Kind::Policy(form, field) => form.value(*field(&mut { self.policy }, class)),
            Kind::Source(form, field) => form.value(*field(&mut { self.policy.source[class] })),
            Kind::Ceiling(form, field) => {
                form.value(*field(&mut { self.interfaces[self.position(key)?].overrides[class] }))
            }
            Kind::Zone => Value::Zone(self.interfaces[self.position(key)?].zone),
            Kind::Answer => Value::Switch(self.interfaces[self.position(key)?].answers),
        })
    }

    fn set(&mut self, key: &Key, value: Value) -> Result<(), SettingError> {
        let class = key.class();
        match key.row.kind {
            Kind::On(bit) | Kind::Off(bit) => {
                let set = value == Value::Switch(matches!(key.row.kind, Kind::On(_)));
                let others = self.policy.switches & !bit;
                self.policy.switches = if set { others | bit } else { others };
            }
            Kind::Policy(_, field) => {
                let default = *field(&mut { DEFAULT_POLICY }, class);
                *field(&mut self.policy, class) = number(value, default);
            }
            Kind::Source(form, field) => {
                let default = *field(&mut { DEFAULT_POLICY.source[class] });
                *field(&mut self.policy.source[class]) = number(value, default);
                let bit = Policy::ceiling_bit(class, matches!(form, Form::Burst));
                if value == Value::Default {
                    self.policy.own_ceilings &= !bit;
                } else {
                    self.policy.own_ceilings |= bit;
                }
            }
            Kind::Ceiling(_, field) => {
                *field(&mut self.of_interface(key)?.overrides[class]) = number(value, 0);
            }
            Kind::Zone => {
                let zone = if let Value::Zone(zone) = value { zone } else { 0 };
                self.of_interface(key)?.zone = zone;
            }
            Kind::Answer => self.of_interface(key)?.answers = value != Value::Switch(false),
        }
        Ok(())
    }

    fn of_interface(&mut self, key: &Key) -> Result<&mut InterfaceSettings, SettingError> {
        let position = self.position(key)?;
        Ok(&mut self.interfaces[position])
    }

    /// What the operator should know about the interfaces' zones, given the size of the lookup's
    /// options in bytes; 0 if the flow cache is used instead.
    ///
    /// # Errors
    /// If the kernel's lookup knows the default zone only, it would find the wrong flows.
    pub fn zone_warning(&self, lookup_options_bytes: u32) -> Result<Option<String>, SettingError> {
        let zoned: Vec<_> = self.interfaces.iter().filter(|it| it.zone != 0).collect();
        match (lookup_options_bytes, zoned.first()) {
            (0, Some(_)) => {
                let names: Vec<_> = zoned.iter().map(|interface| &interface.name[..]).collect();
                Ok(Some(format!(
                    "the flow cache ignores zones: on {} a packet counts as known if any zone has a \
                     flow with its addresses and ports",
                    names.join(", ")
                )))
            }
            (WITHOUT_ZONE_BYTES, Some(InterfaceSettings { name, zone, .. })) => {
                Err(SettingError::ZoneUnknown { interface: name.clone(), zone: *zone })
            }
            _ => Ok(None),
        }
    }

    fn position(&self, key: &Key) -> Result<usize, SettingError> {
        let name = key.interface.as_deref().unwrap_or_default();
        let position = self.interfaces.iter().position(|interface| interface.name == name);
        position.ok_or_else(|| SettingError::Interface {
            key: key.clone(),
            name: name.to_owned(),
            guarded: self.interfaces.iter().map(|interface| interface.name.clone()).collect(),
        })
    }
}

fn number(value: Value, default: u32) -> u32 {
    match value {
        Value::Ratio(number) | Value::Rate(number) | Value::Burst(number) | Value::Age(number) => {
            number
        }
        Value::Default | Value::Switch(_) | Value::Zone(_) => default,
    }
}

#[cfg(test)]
mod tests {
    use ctguard_layout::Class;

    use super::*;

    #[test]
    fn a_change_says_what_was_and_what_is() {
        let mut settings = settings();
        let changes = settings.apply(&[assign("source.tcp.rate=200")]).unwrap();
        assert_eq!((changes[0].old, changes[0].new), (Value::Rate(50), Value::Rate(200)));
        assert_eq!(settings.policy.source[Class::Tcp as usize].flows_per_second, 200);
    }

    /// Fails when nobody is told that a ceiling now refuses flows in calm.
    #[test]
    fn a_default_that_is_set_to_its_own_value_says_what_that_changes() {
        let mut settings = settings();
        let before = settings.clone();
        let mut told = |text| settings.apply(&[assign(text)]).unwrap()[0].to_string();
        assert_eq!(
            told("source.udp.rate=100/s"),
            "source.udp.rate 100/s, set by you: it holds in calm too"
        );
        assert_eq!(told("source.udp.rate=100/s"), "source.udp.rate 100/s → 100/s");
        let [change] = &before.changes_to(&settings)[..] else { panic!("one change") };
        assert_eq!(
            (change.key.to_string(), change.is_own),
            ("source.udp.rate".to_owned(), Some(true))
        );
        let mut told = |text| settings.apply(&[assign(text)]).unwrap()[0].to_string();
        assert_eq!(
            told("source.udp.rate=default"),
            "source.udp.rate 100/s, a default again: it holds only outside calm"
        );
    }

    #[test]
    fn a_ceiling_is_the_operators_until_both_its_parts_are_taken_back() {
        let mut settings = settings();
        let tcp = Class::Tcp as usize;
        let mut has_own = |assignment| {
            settings.apply(&[assign(assignment)]).unwrap();
            settings.policy.has_own_ceiling(tcp)
        };
        assert!(!has_own("source.udp.rate=50"));
        assert!(has_own("source.tcp.rate=50"), "the default's number, but set");
        assert!(has_own("source.tcp.burst=300"));
        assert!(has_own("source.tcp.rate=default"));
        assert!(!has_own("source.tcp.burst=default"));
    }

    #[test]
    fn nothing_changes_when_one_assignment_cannot_be_made() {
        let mut settings = settings();
        let before = settings.clone();
        let both = [assign("target=50%"), assign("interface.lan9.source.tcp.rate=5")];
        assert!(settings.apply(&both).is_err());
        assert_eq!(settings, before);
    }

    #[test]
    fn an_interface_has_ceilings_of_its_own_until_they_are_taken_back() {
        let mut settings = settings();
        let key: Key = "interface.wan0.source.udp.burst".parse().unwrap();
        assert_eq!(settings.get(&key), Ok(Value::Default));
        settings.apply(&[assign("interface.wan0.source.udp.burst=9")]).unwrap();
        assert_eq!(settings.get(&key), Ok(Value::Burst(9)));
        settings.apply(&[assign("interface.wan0.source.udp.burst=default")]).unwrap();
        assert_eq!(settings.get(&key), Ok(Value::Default));
    }

    #[test]
    fn an_interface_has_a_zone_until_it_is_taken_back() {
        let mut settings = settings();
        let key: Key = "interface.wan0.zone".parse().unwrap();
        let changes = settings.apply(&[assign("interface.wan0.zone=5")]).unwrap();
        assert_eq!((changes[0].old, changes[0].new), (Value::Zone(0), Value::Zone(5)));
        settings.apply(&[assign("interface.wan0.zone=default")]).unwrap();
        assert_eq!(settings.get(&key), Ok(Value::Zone(0)));
    }

    #[test]
    fn every_setting_can_be_taken_back() {
        let mut settings = settings();
        let before = settings.clone();
        let changes = [
            "target=1",
            "dry-run=on",
            "fail-open=on",
            "fallback.rate=5",
            "relief.reclaim=off",
            "relief.half-open-after=off",
            "relief.established-above-part-after=off",
            "relief.adaptive-start=60%",
            "relief.adaptive-end=120%",
            "prefix.tcp.rate=7",
            "service.udp.burst=7",
            "floor.tcp.rate=3",
            "source.udp.rate=7",
            "source.other.burst=7",
            "interface.wan0.zone=5",
            "interface.wan0.answer=off",
        ];
        settings.apply(&changes.map(assign)).unwrap();
        assert_ne!(settings, before);
        for key in Key::all().into_iter().chain(Key::of_interface("wan0")) {
            settings.apply(&[Assignment { key, value: Value::Default }]).unwrap();
        }
        assert_eq!(settings, before);
    }

    #[test]
    fn what_has_no_equals_sign_is_no_assignment() {
        let error = "target".parse::<Assignment>().unwrap_err();
        assert_eq!(error.to_string(), "target is not KEY=VALUE");
    }

    fn settings() -> Settings {
        Settings::of_new_guard(["wan0"])
    }

    fn assign(text: &str) -> Assignment {
        text.parse().unwrap()
    }

    #[test]
    fn a_zone_is_looked_in_where_the_lookup_takes_one() {
        assert_eq!(zoned(5).zone_warning(16), Ok(None));
    }

    #[test]
    fn a_lookup_that_takes_none_refuses_all_but_the_default_zone() {
        let error = zoned(5).zone_warning(12).unwrap_err().to_string();
        for part in ["interface.wan0.zone", "zone 5", "Linux 6.10", "flow-cache"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert_eq!(zoned(0).zone_warning(12), Ok(None));
    }

    #[test]
    fn the_flow_cache_takes_a_zone_and_says_that_it_means_nothing() {
        let warning = zoned(5).zone_warning(0).unwrap().unwrap();
        assert!(warning.contains("on wan0"), "{warning}");
        assert_eq!(zoned(0).zone_warning(0), Ok(None));
    }

    fn zoned(zone: u16) -> Settings {
        let mut settings = Settings::of_new_guard(["lan0", "wan0"]);
        settings.interfaces[1].zone = zone;
        settings
    }

    #[test]
    fn changes_are_what_differs_and_an_interface_of_one_of_them_counts_as_unset_in_the_other() {
        let old = zoned(5);
        let mut next = Settings::of_new_guard(["wan0", "dmz0"]);
        next.apply(&[assign("target=80%"), assign("interface.dmz0.answer=off")]).unwrap();
        let changes = old.changes_to(&next);
        let shown: Vec<_> = changes
            .iter()
            .map(|Change { key, old, new, .. }| format!("{key} {old} {new}"))
            .collect();
        let expected =
            ["target 85% 80%", "interface.wan0.zone 5 0", "interface.dmz0.answer on off"];
        assert_eq!(shown, expected);
    }
}
