//! The `interfaces` map: one slot for each guarded interface.

use aya::maps::{Array, MapData, MapError};
use ctguard_ebpf::layout::{INTERFACE_PROBES, INTERFACE_SLOTS, Interface};
use thiserror::Error;

use super::memory::Value;
use ctguard_settings::InterfaceSettings;

/// Why an interface has no slot.
#[derive(Debug, Error)]
pub enum SlotError {
    #[error(
        "no free slot for interface number {ifindex}: {INTERFACE_PROBES} others whose numbers are \
         equal modulo {INTERFACE_SLOTS} hold them"
    )]
    Full { ifindex: u32 },
    #[error("cannot use map interfaces")]
    Map(#[from] MapError),
}

/// A used slot.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    pub index: u32,
    pub interface: Interface,
}

impl Slot {
    /// The interface's name when it was attached.
    pub fn name(&self) -> String {
        let name = &self.interface.name;
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        String::from_utf8_lossy(name.get(..end).unwrap_or_default()).into_owned()
    }

    /// What is set for the interface.
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

/// The map.
pub struct Interfaces(Array<MapData, Value<Interface>>);

impl Interfaces {
    pub(super) fn new(map: Array<MapData, Value<Interface>>) -> Self {
        Self(map)
    }

    /// Every slot, in order.
    pub(super) fn all(&self) -> Result<Vec<Interface>, SlotError> {
        (0..INTERFACE_SLOTS).map(|index| Ok(self.0.get(&index, 0)?.0)).collect()
    }

    pub(super) fn set_all(&mut self, slots: &[Interface]) -> Result<(), SlotError> {
        let mut slots = (0..).zip(slots);
        slots.try_for_each(|(index, slot)| Ok(self.0.set(index, Value(*slot), 0)?))
    }

    /// Every used slot.
    pub fn used(&self) -> Result<Vec<Slot>, SlotError> {
        let slots = (0..).zip(self.all()?).map(|(index, interface)| Slot { index, interface });
        Ok(slots.filter(|slot| slot.interface.ifindex != 0).collect())
    }

    /// The slot of `ifindex`, if it has one: looks only where the data path does.
    pub fn of(&self, ifindex: u32) -> Result<Option<Slot>, SlotError> {
        for index in probes(ifindex) {
            let interface = self.0.get(&index, 0)?.0;
            if interface.ifindex == ifindex {
                return Ok(Some(Slot { index, interface }));
            }
        }
        Ok(None)
    }

    /// Writes `interface` into its slot, or into a free one where the data path looks for it.
    pub fn put(&mut self, interface: Interface) -> Result<(), SlotError> {
        let used = self.used()?;
        let taken: Vec<_> = used.iter().map(|slot| (slot.index, slot.interface.ifindex)).collect();
        let index = place(&taken, interface.ifindex)
            .ok_or(SlotError::Full { ifindex: interface.ifindex })?;
        Ok(self.0.set(index, Value(interface), 0)?)
    }

    /// Frees the slot of `ifindex`.
    pub fn remove(&mut self, ifindex: u32) -> Result<(), SlotError> {
        if let Some(slot) = self.of(ifindex)? {
            self.0.set(slot.index, Value(Interface::FREE), 0)?;
        }
        Ok(())
    }
}

/// The slot for `ifindex`, given who holds which: the nearest behind its own number.
fn place(taken: &[(u32, u32)], ifindex: u32) -> Option<u32> {
    let mut probes = probes(ifindex)
        .map(|slot| (slot, taken.iter().find(|(used, _)| *used == slot).map(|&(_, index)| index)));
    let own = probes.clone().find(|&(_, holder)| holder == Some(ifindex));
    own.or_else(|| probes.find(|&(_, holder)| holder.is_none())).map(|(slot, _)| slot)
}

/// Where `ifindex` may lie.
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
