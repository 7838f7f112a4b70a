//! Settings as they stand, and how assignments change them: all or none.

use std::str::FromStr;

use ctguard_layout::{CLASSES, Policy, Rate};
use thiserror::Error;

use super::{
    DEFAULT_POLICY,
    key::{Key, Part, UnknownKey},
    value::{Value, ValueError},
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
        "{key}: this kernel can look up flows in the default zone only, not in zone {zone} (Linux \
         6.10 can); set {key}=default, or run with --new-flow-detection flow-cache"
    )]
    ZoneUnknown { key: Key, zone: u16 },
}

impl FromStr for Assignment {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| SettingError::NoAssignment { text: text.to_owned() })?;
        let key: Key = key.trim().parse()?;
        match Value::parse(&key, value.trim()) {
            Ok(value) => Ok(Self { key, value }),
            Err(source) => Err(SettingError::Value { key, source }),
        }
    }
}

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

impl Settings {
    /// Applies all of `assignments`, or nothing when one cannot be.
    pub fn apply(&mut self, assignments: &[Assignment]) -> Result<Vec<Change>, SettingError> {
        let mut next = self.clone();
        let mut changes = Vec::new();
        for Assignment { key, value } in assignments {
            let old = next.get(key)?;
            next.set(key, *value)?;
            changes.push(Change { key: key.clone(), old, new: next.get(key)? });
        }
        *self = next;
        Ok(changes)
    }

    /// The value of a setting; [`Value::Default`] where an interface has none of its own.
    pub fn get(&self, key: &Key) -> Result<Value, SettingError> {
        Ok(match key {
            Key::Target => Value::Ratio(self.policy.target_ppm),
            Key::DryRun => Value::Switch(self.policy.has(Policy::DRY_RUN)),
            Key::FailOpen => Value::Switch(self.policy.has(Policy::FAIL_OPEN)),
            Key::FallbackRate => or_default(self.policy.fallback_flows_per_second, Value::Rate),
            Key::Reclaim => Value::Switch(!self.policy.has(Policy::NO_RECLAIM)),
            Key::AdaptiveStart => or_default(self.policy.adaptive_ppm[0], Value::Ratio),
            Key::AdaptiveEnd => or_default(self.policy.adaptive_ppm[1], Value::Ratio),
            Key::Prefix(class, part) => part_of(self.policy.prefix[*class as usize], *part),
            Key::Service(class, part) => part_of(self.policy.service[*class as usize], *part),
            Key::Floor(class) => Value::Rate(self.policy.floor[*class as usize]),
            Key::Answer(name) => Value::Switch(self.interface(key, name)?.answers),
            Key::Source(class, part) => part_of(self.policy.source[*class as usize], *part),
            Key::Interface(name, class, part) => {
                part_of(self.interface(key, name)?.overrides[*class as usize], *part)
            }
            Key::Zone(name) => Value::Zone(self.interface(key, name)?.zone),
        })
    }

    fn set(&mut self, key: &Key, value: Value) -> Result<(), SettingError> {
        match (key, value) {
            (Key::Target, value) => {
                self.policy.target_ppm = number(value, DEFAULT_POLICY.target_ppm);
            }
            (Key::DryRun, value) => self.switch(Policy::DRY_RUN, value),
            (Key::FailOpen, value) => self.switch(Policy::FAIL_OPEN, value),
            (Key::FallbackRate, value) => {
                self.policy.fallback_flows_per_second = number(value, 0);
            }
            (Key::Reclaim, value) => {
                let off = value == Value::Switch(false);
                self.switch(Policy::NO_RECLAIM, Value::Switch(off));
            }
            (Key::AdaptiveStart, value) => self.policy.adaptive_ppm[0] = number(value, 0),
            (Key::AdaptiveEnd, value) => self.policy.adaptive_ppm[1] = number(value, 0),
            (Key::Prefix(class, part), value) => {
                *half(&mut self.policy.prefix[*class as usize], *part) = number(value, 0);
            }
            (Key::Service(class, part), value) => {
                *half(&mut self.policy.service[*class as usize], *part) = number(value, 0);
            }
            (Key::Floor(class), value) => {
                let class = *class as usize;
                self.policy.floor[class] = number(value, DEFAULT_POLICY.floor[class]);
            }
            (Key::Answer(name), value) => {
                self.interface_mut(key, name)?.answers = value != Value::Switch(false);
            }
            (Key::Source(class, part), value) => {
                let class = *class as usize;
                let default = DEFAULT_POLICY.source[class];
                *half(&mut self.policy.source[class], *part) = match part {
                    Part::Rate => number(value, default.flows_per_second),
                    Part::Burst => number(value, default.burst),
                };
            }
            (Key::Interface(name, class, part), value) => {
                let interface = self.interface_mut(key, name)?;
                *half(&mut interface.overrides[*class as usize], *part) = number(value, 0);
            }
            (Key::Zone(name), value) => {
                let zone = if let Value::Zone(zone) = value { zone } else { 0 };
                self.interface_mut(key, name)?.zone = zone;
            }
        }
        Ok(())
    }

    fn switch(&mut self, switch: u32, value: Value) {
        if value == Value::Switch(true) {
            self.policy.switches |= switch;
        } else {
            self.policy.switches &= !switch;
        }
    }

    fn interface(&self, key: &Key, name: &str) -> Result<&InterfaceSettings, SettingError> {
        let interface = self.interfaces.iter().find(|interface| interface.name == name);
        interface.ok_or_else(|| self.not_guarded(key, name))
    }

    fn interface_mut(
        &mut self,
        key: &Key,
        name: &str,
    ) -> Result<&mut InterfaceSettings, SettingError> {
        let refusal = self.not_guarded(key, name);
        let interface = self.interfaces.iter_mut().find(|interface| interface.name == name);
        interface.ok_or(refusal)
    }

    fn not_guarded(&self, key: &Key, name: &str) -> SettingError {
        SettingError::Interface {
            key: key.clone(),
            name: name.to_owned(),
            guarded: self.interfaces.iter().map(|interface| interface.name.clone()).collect(),
        }
    }
}

fn half(rate: &mut Rate, part: Part) -> &mut u32 {
    match part {
        Part::Rate => &mut rate.flows_per_second,
        Part::Burst => &mut rate.burst,
    }
}

fn part_of(rate: Rate, part: Part) -> Value {
    match part {
        Part::Rate => or_default(rate.flows_per_second, Value::Rate),
        Part::Burst => or_default(rate.burst, Value::Burst),
    }
}

fn or_default(number: u32, value: fn(u32) -> Value) -> Value {
    if number == 0 { Value::Default } else { value(number) }
}

fn number(value: Value, default: u32) -> u32 {
    match value {
        Value::Ratio(number) | Value::Rate(number) | Value::Burst(number) => number,
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
        let key = Key::Interface("wan0".into(), Class::Udp, Part::Burst);
        assert_eq!(settings.get(&key), Ok(Value::Default));
        settings.apply(&[assign("interface.wan0.source.udp.burst=9")]).unwrap();
        assert_eq!(settings.get(&key), Ok(Value::Burst(9)));
        settings.apply(&[assign("interface.wan0.source.udp.burst=default")]).unwrap();
        assert_eq!(settings.get(&key), Ok(Value::Default));
    }

    #[test]
    fn an_interface_has_a_zone_until_it_is_taken_back() {
        let mut settings = settings();
        let key = Key::Zone("wan0".into());
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
            "relief.adaptive-start=60%",
            "relief.adaptive-end=120%",
            "prefix.tcp.rate=7",
            "service.udp.burst=7",
            "floor.tcp.rate=3",
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
        Settings {
            policy: DEFAULT_POLICY,
            interfaces: vec![InterfaceSettings {
                name: "wan0".into(),
                overrides: [Rate::default(); CLASSES],
                zone: 0,
                answers: true,
            }],
        }
    }

    fn assign(text: &str) -> Assignment {
        text.parse().unwrap()
    }
}
