//! Everything that is written into the maps, by who may write it.
//!
//! A daemon owns what it finds out: it writes that in place, and waits for nobody. What the operator
//! sets is written under the lock for settings alone. Neither touches a word of the other's.

use std::{mem::offset_of, ops::Deref};

use ctguard_layout::{
    DaemonFacts, Detection, Environment, Fixed, Interface, Limits, Policy, TIERS, units::Jiffies,
};
use ctguard_settings::{InterfaceSettings, Settings};
use ctguard_units::{FallbackRate, operator_limits};
use ipnet::IpNet;

use super::{
    Entry, GuardMaps, ListError, ListKind,
    interfaces::{NoSlot, set_device, set_settings, slot},
};
use crate::{lock::Lock, net::Link};

const OPERATORS: usize = offset_of!(Environment, operator);
const FIXED: usize = offset_of!(Environment, fixed);
const DAEMONS: usize = offset_of!(Environment, daemon);

/// What the daemon owns; it holds its lock.
impl GuardMaps {
    /// Writes the keys and sizes of maps that are new.
    pub fn make(&self, fixed: Fixed) {
        let environment = Environment { fixed, ..self.environment() };
        self.environment.set(0, FIXED..DAEMONS, &environment);
    }

    /// Writes what is found out; whether any of it has changed.
    pub fn change_facts(&self, change: impl FnOnce(&mut DaemonFacts)) -> bool {
        let old = self.environment();
        let mut environment = old;
        change(&mut environment.daemon);
        self.environment.set(0, DAEMONS..size_of::<Environment>(), &environment);
        environment != old
    }

    /// Tells the data path whether conntrack can be asked, by the bytes of its options, and `status`
    /// why not.
    pub fn note_detection(&self, detection: Detection, lookup_options_bytes: u32) {
        self.change_facts(|facts| {
            facts.detection = detection as u32;
            facts.lookup_options_bytes = lookup_options_bytes;
        });
    }

    /// Lets the data path ask the other generation of the known-flows filter, which holds the whole
    /// table.
    pub fn turn_known_flows(&self, now: Jiffies) {
        self.change_facts(|facts| {
            facts.known_generation = 1 - facts.known_generation.min(1);
            facts.known_turned_at = now.0;
            // Every older flow is in the flow cache now, if that is what answers.
            facts.learning_until = 0;
        });
        // Only now, for a program may read the two at different times.
        self.change_facts(|facts| facts.known_complete = 1);
    }

    /// Tells the data path that the known-flows filter lacks flows.
    pub fn doubt_known_flows(&self) {
        self.change_facts(|facts| facts.known_complete = 0);
    }

    /// Writes stages and shares.
    pub fn set_limits(&self, limits: &Limits) {
        self.limits.set(0, 0..size_of::<Limits>(), limits);
    }

    /// Writes the rates that hold while no daemon lives.
    pub fn set_fallback(&self, rates: [FallbackRate; TIERS]) {
        FallbackRate::write_all(rates, &self.grant);
    }

    /// Writes in which mode the program runs on an interface.
    pub fn note_mode(&self, ifindex: u32, mode: u32) {
        if let Some(mut slot) = self.interfaces.of(ifindex) {
            slot.interface.mode = mode;
            self.interfaces.set_device(&slot);
        }
    }

    /// Writes name and station of a guarded interface.
    pub fn note_device(&self, links: &[Link], link: &Link) {
        if let Some(mut slot) = self.interfaces.of(link.index) {
            set_device(&mut slot.interface, links, link);
            self.interfaces.set_device(&slot);
        }
    }

    /// Tells the data path whether any interface has a station to compare with.
    pub fn note_stations(&self) {
        let any = self.interfaces.used().iter().any(|slot| slot.interface.station != 0);
        self.change_facts(|facts| facts.stations_in_use = u32::from(any));
    }

    /// The right to write settings, with the lock for it.
    pub fn settings_writer(&mut self, lock: Lock) -> SettingsWriter<'_> {
        SettingsWriter { maps: self, _lock: lock }
    }
}

/// What is written under the lock for settings, which it holds: never print or wait with it.
pub struct SettingsWriter<'m> {
    maps: &'m mut GuardMaps,
    _lock: Lock,
}

impl Deref for SettingsWriter<'_> {
    type Target = GuardMaps;

    fn deref(&self) -> &GuardMaps {
        self.maps
    }
}

impl SettingsWriter<'_> {
    /// Puts settings in force: the policy, and what follows from it for scopes and interfaces.
    pub fn apply(&self, settings: &Settings) {
        let maps = &self.maps;
        let policy = &settings.policy;
        maps.policy.set(0, 0..size_of::<Policy>(), policy);
        let environment = maps.environment();
        self.set_operator_limits(environment.operator.lists_in_use);
        for mut slot in maps.interfaces.used() {
            let name = slot.name();
            let own = settings.interfaces.iter().find(|interface| interface.name == name).cloned();
            let own = own.unwrap_or_else(|| slot.settings());
            set_settings(&mut slot.interface, &own, policy, environment.daemon.jiffies_per_second);
            maps.interfaces.set_settings(&slot);
        }
    }

    /// Makes the slot of a device, with these settings of its own.
    pub fn add_interface(
        &self,
        links: &[Link],
        link: &Link,
        own: &InterfaceSettings,
    ) -> Result<(), NoSlot> {
        let maps = &self.maps;
        let mode = maps.interfaces.of(link.index).map_or(0, |slot| slot.interface.mode);
        let hz = maps.environment().daemon.jiffies_per_second;
        maps.interfaces.put(&slot((links, link), mode, own, &maps.policy(), hz))
    }

    /// Frees the slot of an interface.
    pub fn remove_interface(&self, ifindex: u32) {
        self.maps.interfaces.remove(ifindex);
    }

    /// Adds a prefix to a list, or gives it another end.
    pub fn add_to_list(&mut self, kind: ListKind, entry: Entry) -> Result<(), ListError> {
        self.maps.lists.add(kind, entry)?;
        self.note_lists()
    }

    /// Whether `prefix` was in the list and is not any more.
    pub fn remove_from_list(&mut self, kind: ListKind, prefix: IpNet) -> Result<bool, ListError> {
        let was_there = self.maps.lists.remove(kind, prefix)?;
        self.note_lists()?;
        Ok(was_there)
    }

    /// Removes what expired by `now`, in jiffies, and tells how many entries that were.
    pub fn expire_lists(&mut self, now: u64) -> Result<usize, ListError> {
        let lists = &mut self.maps.lists;
        let expired = lists.expire(ListKind::Allow, now)? + lists.expire(ListKind::Deny, now)?;
        self.note_lists()?;
        Ok(expired)
    }

    /// Tells the data path which lists have entries.
    fn note_lists(&self) -> Result<(), ListError> {
        self.set_operator_limits(self.maps.lists.in_use()?);
        Ok(())
    }

    fn set_operator_limits(&self, lists_in_use: u32) {
        let mut environment = self.maps.environment();
        let hz = environment.daemon.jiffies_per_second;
        environment.operator = operator_limits(&self.maps.policy(), lists_in_use, hz);
        self.maps.environment.set(0, OPERATORS..FIXED, &environment);
    }
}

/// All that a start writes into the maps.
pub struct Values {
    policy: Policy,
    environment: Environment,
    limits: Limits,
    interfaces: Vec<Interface>,
    grant: Vec<u64>,
}

/// What a start takes back when it fails; it holds both locks.
impl GuardMaps {
    pub fn values(&self) -> Values {
        Values {
            policy: self.policy(),
            environment: self.environment(),
            limits: self.limits(),
            interfaces: self.interfaces.all(),
            grant: self.grant.settings(),
        }
    }

    pub fn put_back(&self, values: Values) {
        self.policy.set(0, 0..size_of::<Policy>(), &values.policy);
        self.environment.set(0, 0..size_of::<Environment>(), &values.environment);
        self.set_limits(&values.limits);
        self.interfaces.set_all(&values.interfaces);
        self.grant.set(values.grant);
    }
}
