//! Packets that the deny lists refused, by whose list it was.

use aya::maps::{Map, MapData, MapError, PerCpuArray, PerCpuValues};
use ctguard_layout::{Refuser, maps};

use super::open::{OpenError, open};
use crate::bpf::Pins;

const PLACES: usize = Refuser::PLACES as usize;

/// Summed over processors.
#[derive(Clone, Copy, Debug)]
pub struct Refusals([u64; PLACES]);

impl Refusals {
    /// For the feed with this number.
    pub fn of_feed(&self, slot: u32) -> u64 {
        self.0.get(slot as usize).copied().unwrap_or_default()
    }

    /// For the operator's own list.
    pub const fn of_operator(&self) -> u64 {
        self.0[Refuser::OPERATOR as usize]
    }
}

pub(super) struct RefusalsMap(PerCpuArray<MapData, u64>);

impl RefusalsMap {
    pub(super) fn open(pins: &Pins) -> Result<Self, OpenError> {
        PerCpuArray::try_from(Map::PerCpuArray(open(pins, maps::REFUSALS)?))
            .map(Self)
            .map_err(error)
    }

    pub(super) fn read(&self) -> Result<Refusals, OpenError> {
        let mut refusals = [0; PLACES];
        for (place, sum) in (0..).zip(&mut refusals) {
            let values = self.0.get(&place, 0).map_err(error)?;
            *sum = values.iter().fold(0, |sum: u64, value| sum.wrapping_add(*value));
        }
        Ok(Refusals(refusals))
    }

    pub(super) fn clear(&mut self, slot: u32) -> Result<(), OpenError> {
        let processors = self.0.get(&slot, 0).map_err(error)?.len();
        let zeros = PerCpuValues::try_from(vec![0; processors]);
        let zeros = zeros.map_err(|source| error(MapError::IoError(source)))?;
        self.0.set(slot, zeros, 0).map_err(error)
    }
}

const fn error(source: MapError) -> OpenError {
    OpenError::Map { name: maps::REFUSALS, source }
}
