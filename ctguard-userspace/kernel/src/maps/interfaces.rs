//! The `interfaces` map: one slot for each guarded interface.

use std::mem::offset_of;

use ctguard_layout::{INTERFACE_PROBES, INTERFACE_SLOTS, Interface, Policy};
use ctguard_settings::InterfaceSettings;
use ctguard_units::ceilings;
use thiserror::Error;

use super::memory::InPlace;
use crate::net::{Link, Stations, Surroundings};

#[derive(Debug, Error)]
#[error(
    "no free slot for interface number {ifindex}: {INTERFACE_PROBES} others whose numbers are equal \
     modulo {INTERFACE_SLOTS} hold them"
)]
pub struct NoSlot {
    ifindex: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct Slot {
    pub index: u32,
    pub interface: Interface,
}

impl Slot {
    pub fn name(&self) -> String {
        let name = &self.interface.name;
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        String::from_utf8_lossy(name.get(..end).unwrap_or_default()).into_owned()
    }

    pub fn settings(&self) -> InterfaceSettings {
        InterfaceSettings {
            name: self.name(),
            overrides: self.interface.overrides,
            // Settings are 16 bits.
            zone: u16::try_from(self.interface.zone).unwrap_or_default(),
            answers: self.interface.answers_nothing == 0,
        }
    }
}

#[derive(Debug)]
pub struct Interfaces(InPlace<Interface>);

/// Where the operator's part of a slot begins; the daemon's part is before it.
const OPERATORS: usize = offset_of!(Interface, ceilings);
const END: usize = size_of::<Interface>();

impl Interfaces {
    pub(super) fn new(map: InPlace<Interface>) -> Self {
        Self(map)
    }

    pub(super) fn all(&self) -> Vec<Interface> {
        (0..INTERFACE_SLOTS as usize).map(|index| self.0.get(index)).collect()
    }

    pub(super) fn set_all(&self, slots: &[Interface]) {
        for (index, slot) in slots.iter().enumerate() {
            self.0.set(index, 0..END, slot);
        }
    }

    pub fn used(&self) -> Vec<Slot> {
        let slots = (0..).zip(self.all()).map(|(index, interface)| Slot { index, interface });
        slots.filter(|slot| slot.interface.ifindex != 0).collect()
    }

    /// The slot of `ifindex`, found as the data path finds it.
    pub fn of(&self, ifindex: u32) -> Option<Slot> {
        let mut slots =
            probes(ifindex).map(|index| Slot { index, interface: self.0.get(index as usize) });
        slots.find(|slot| slot.interface.ifindex == ifindex)
    }

    /// Writes the interface into its own slot, or into a free one where the data path looks for it.
    pub(super) fn put(&self, interface: &Interface) -> Result<(), NoSlot> {
        let used = self.used();
        let taken: Vec<_> = used.iter().map(|slot| (slot.index, slot.interface.ifindex)).collect();
        let ifindex = interface.ifindex;
        let index = place(&taken, ifindex).ok_or(NoSlot { ifindex })? as usize;
        // The data path finds it by its number, which is written last.
        self.0.set(index, OPERATORS..END, interface);
        self.0.set(index, offset_of!(Interface, stations)..OPERATORS, interface);
        self.0.set(index, 0..OPERATORS, interface);
        Ok(())
    }

    /// Writes the daemon's part of a slot.
    pub(super) fn set_device(&self, slot: &Slot) {
        self.0.set(slot.index as usize, 0..OPERATORS, &slot.interface);
    }

    /// Writes the operator's part of a slot.
    pub(super) fn set_settings(&self, slot: &Slot) {
        self.0.set(slot.index as usize, OPERATORS..END, &slot.interface);
    }

    pub(super) fn remove(&self, ifindex: u32) {
        if let Some(slot) = self.of(ifindex) {
            self.0.set(slot.index as usize, 0..END, &Interface::FREE);
        }
    }
}

/// The only builder of a new slot: from the device and its settings.
pub(super) fn slot(
    (around, link): (&Surroundings, &Link),
    mode: u32,
    own: &InterfaceSettings,
    policy: &Policy,
    jiffies_per_second: u32,
) -> Interface {
    let mut interface = Interface { ifindex: link.index, mode, ..Interface::FREE };
    set_device(&mut interface, around, link);
    set_settings(&mut interface, own, policy, jiffies_per_second);
    interface
}

pub(super) fn set_device(interface: &mut Interface, around: &Surroundings, link: &Link) {
    interface.stations = Stations::of(around, link).numbers();
    interface.name = [0; 16];
    // The kernel's own names are 15 bytes at most.
    for (to, from) in interface.name.iter_mut().take(15).zip(link.name.bytes()) {
        *to = from;
    }
}

pub(super) fn set_settings(
    interface: &mut Interface,
    InterfaceSettings { overrides, zone, answers, .. }: &InterfaceSettings,
    policy: &Policy,
    jiffies_per_second: u32,
) {
    interface.ceilings = ceilings(policy, overrides, jiffies_per_second);
    interface.overrides = *overrides;
    interface.zone = (*zone).into();
    interface.answers_nothing = u32::from(!answers);
}

/// The slot for `ifindex`: the one it holds, else the first free one from its own number on. `taken`
/// has pairs of slot and holder.
fn place(taken: &[(u32, u32)], ifindex: u32) -> Option<u32> {
    let mut probes = probes(ifindex)
        .map(|slot| (slot, taken.iter().find(|(used, _)| *used == slot).map(|&(_, index)| index)));
    let own = probes.clone().find(|&(_, holder)| holder == Some(ifindex));
    own.or_else(|| probes.find(|&(_, holder)| holder.is_none())).map(|(slot, _)| slot)
}

fn probes(ifindex: u32) -> impl Iterator<Item = u32> + Clone {
    (0..INTERFACE_PROBES).map(move |probe| ifindex.wrapping_add(probe) % INTERFACE_SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_lies_in_the_slot_of_its_number() {
        assert_eq!(place(&[], 5), Some(5));
        assert_eq!(place(&[], 64 + 5), Some(5));
    }

    #[test]
    fn a_taken_slot_moves_it_to_the_next_and_around_the_end() {
        assert_eq!(place(&[(5, 5)], 64 + 5), Some(6));
        assert_eq!(place(&[(63, 63)], 127), Some(0));
    }

    #[test]
    fn an_interface_keeps_its_slot() {
        assert_eq!(place(&[(5, 5), (6, 69)], 69), Some(6));
        assert_eq!(place(&[(6, 69)], 69), Some(6));
    }

    #[test]
    fn four_probes_are_all() {
        let taken = [(5, 5), (6, 6), (7, 7), (8, 8)];
        assert_eq!(place(&taken, 69), None);
    }
}
