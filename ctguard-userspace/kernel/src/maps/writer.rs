//! All writes into the maps.
//!
//! The daemon writes its own words in place and waits for nobody. Settings are written under the lock
//! for settings. Neither writes a word that belongs to the other.

use std::{mem::offset_of, ops::Deref};

use ctguard_layout::{
    DaemonFacts, Detection, Environment, Fixed, Interface, Limits, Policy, TIERS, units::Jiffies,
};
use ctguard_settings::{InterfaceSettings, Settings};
use ctguard_units::{FallbackRate, operator_limits};
use ipnet::IpNet;

use super::{
    Entry, GuardMaps, ListError, ListKind, OpenError, Pause,
    interfaces::{NoSlot, set_device, set_settings, slot},
    pause::{with_pause, without_pause},
};
use crate::{
    lock::Lock,
    net::{Link, Surroundings},
};

const OPERATORS: usize = offset_of!(Environment, operator);
const FIXED: usize = offset_of!(Environment, fixed);
const DAEMONS: usize = offset_of!(Environment, daemon);
const CAPTURES: usize = offset_of!(Environment, capture);

/// For the daemon, which holds the daemon's lock.
impl GuardMaps {
    /// Writes keys and sizes into new maps.
    pub fn make(&self, fixed: Fixed) {
        let environment = Environment { fixed, ..self.environment() };
        self.environment.set(0, FIXED..DAEMONS, &environment);
    }

    /// Whether any fact has changed.
    pub fn change_facts(&self, change: impl FnOnce(&mut DaemonFacts)) -> bool {
        let old = self.environment();
        let mut environment = old;
        change(&mut environment.daemon);
        self.environment.set(0, DAEMONS..CAPTURES, &environment);
        environment != old
    }

    /// `lookup_options_bytes` tells the data path how to ask conntrack, `detection` tells `status` why
    /// it is not asked.
    pub fn note_detection(&self, detection: Detection, lookup_options_bytes: u32) {
        self.change_facts(|facts| {
            facts.detection = detection as u32;
            facts.lookup_options_bytes = lookup_options_bytes;
        });
    }

    /// Switches the data path to the other generation of the known-flows filter, which now holds the
    /// whole table.
    pub fn turn_known_flows(&self, now: Jiffies) {
        self.change_facts(|facts| {
            facts.known_generation = 1 - facts.known_generation.min(1);
            facts.known_turned_at = now.0;
            // The flow cache, if in use, now has every older flow.
            facts.learning_until = 0;
        });
        // Afterwards, because a program may read the two at different times.
        self.change_facts(|facts| facts.known_complete = 1);
    }

    /// Tells the data path that the known-flows filter lacks flows.
    pub fn doubt_known_flows(&self) {
        self.change_facts(|facts| facts.known_complete = 0);
    }

    pub fn set_limits(&self, limits: &Limits) {
        self.limits.set(0, 0..size_of::<Limits>(), limits);
    }

    /// Writes the rates that apply while no daemon runs.
    pub fn set_fallback(&self, rates: [FallbackRate; TIERS]) {
        FallbackRate::write_all(rates, &self.grant);
    }

    /// Writes the rate of flows that have a bucket of their own, for a table of this maximum.
    pub fn set_exempt(&self, table_max: u64) {
        let hz = self.environment().daemon.jiffies_per_second;
        FallbackRate::exempt(table_max, hz).write_exempt(&self.grant);
    }

    pub fn note_mode(&self, ifindex: u32, mode: u32) {
        if let Some(mut slot) = self.interfaces.of(ifindex) {
            slot.interface.mode = mode;
            self.interfaces.set_device(&slot);
        }
    }

    /// Updates name and stations of a guarded interface.
    pub fn note_device(&self, around: &Surroundings, link: &Link) {
        if let Some(mut slot) = self.interfaces.of(link.index) {
            set_device(&mut slot.interface, around, link);
            self.interfaces.set_device(&slot);
        }
    }

    /// Tells the data path whether to compare stations at all.
    pub fn note_stations(&self) {
        let any = self.interfaces.used().iter().any(|slot| slot.interface.stations[0] != 0);
        self.change_facts(|facts| facts.stations_in_use = u32::from(any));
    }

    /// Has the feed with this number start at no packets refused.
    pub fn clear_refusals(&mut self, slot: u32) -> Result<(), OpenError> {
        self.refusals.clear(slot)
    }

    pub fn settings_writer(&mut self, lock: Lock) -> SettingsWriter<'_> {
        SettingsWriter { maps: self, _lock: lock }
    }
}

/// Writes settings. It holds the lock for settings: never print or wait while it lives.
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
    /// Writes the policy, and the limits of scopes and interfaces that follow from it. A pause goes on.
    pub fn apply(&self, settings: &Settings) {
        let maps = &self.maps;
        let policy = &with_pause(settings.policy, maps.pause());
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

    /// Begins a pause or ends it.
    pub fn set_pause(&self, pause: Option<Pause>) {
        let policy = with_pause(without_pause(self.maps.policy()), pause);
        self.maps.policy.set(0, 0..size_of::<Policy>(), &policy);
    }

    /// Ends a pause that is over; whether there was one.
    pub fn end_pause_if_over(&self, now: Jiffies) -> bool {
        let per_second = self.maps.environment().daemon.jiffies_per_second;
        let is_over = self.maps.pause().is_some_and(|it| it.left(now, per_second).is_zero());
        if is_over {
            self.set_pause(None);
        }
        is_over
    }

    pub fn add_interface(
        &self,
        around: &Surroundings,
        link: &Link,
        own: &InterfaceSettings,
    ) -> Result<(), NoSlot> {
        let maps = &self.maps;
        let mode = maps.interfaces.of(link.index).map_or(0, |slot| slot.interface.mode);
        let hz = maps.environment().daemon.jiffies_per_second;
        maps.interfaces.put(&slot((around, link), mode, own, &maps.policy(), hz))
    }

    pub fn remove_interface(&self, ifindex: u32) {
        self.maps.interfaces.remove(ifindex);
    }

    /// Adds a prefix to a list, or changes when it expires.
    pub fn add_to_list(&mut self, kind: ListKind, entry: Entry) -> Result<(), ListError> {
        self.maps.lists.add(kind, entry)?;
        self.note_lists()
    }

    /// Removes prefixes, then adds entries, or changes when they expire.
    pub fn change_list(
        &mut self,
        kind: ListKind,
        remove: impl IntoIterator<Item = IpNet>,
        add: impl IntoIterator<Item = Entry>,
    ) -> Result<(), ListError> {
        let lists = &mut self.maps.lists;
        let change = || {
            for prefix in remove {
                lists.remove(kind, prefix)?;
            }
            add.into_iter().try_for_each(|entry| lists.add(kind, entry))
        };
        let changed = change();
        self.note_lists()?;
        changed
    }

    /// Whether `prefix` was in the list.
    pub fn remove_from_list(&mut self, kind: ListKind, prefix: IpNet) -> Result<bool, ListError> {
        let was_there = self.maps.lists.remove(kind, prefix)?;
        self.note_lists()?;
        Ok(was_there)
    }

    /// Removes entries that expired by `now`, in jiffies; returns their number.
    pub fn expire_lists(&mut self, now: u64) -> Result<usize, ListError> {
        let lists = &mut self.maps.lists;
        let expired = lists.expire(ListKind::Allow, now)? + lists.expire(ListKind::Deny, now)?;
        self.note_lists()?;
        Ok(expired)
    }

    /// Tells the data path which lists have entries.
    pub fn note_lists(&self) -> Result<(), ListError> {
        self.set_operator_limits(self.maps.lists.in_use()? | self.maps.feeds.in_use()?);
        Ok(())
    }

    fn set_operator_limits(&self, lists_in_use: u32) {
        let mut environment = self.maps.environment();
        let hz = environment.daemon.jiffies_per_second;
        environment.operator = operator_limits(&self.maps.policy(), lists_in_use, hz);
        self.maps.environment.set(0, OPERATORS..FIXED, &environment);
    }
}

/// Everything that a start writes into the maps.
pub struct Values {
    policy: Policy,
    environment: Environment,
    limits: Limits,
    interfaces: Vec<Interface>,
    grant: Vec<u64>,
}

/// For a start, which holds both locks and puts the values back when it fails.
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
        self.environment.set(0, 0..CAPTURES, &values.environment);
        self.set_limits(&values.limits);
        self.interfaces.set_all(&values.interfaces);
        self.grant.set(values.grant);
    }
}
