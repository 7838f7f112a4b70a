//! What a running guard has counted, read from its pinned maps: cheap enough to ask after each
//! packet.

use std::{mem::offset_of, os::fd::AsFd as _, path::Path};

use anyhow::{Context as _, Result};
use aya::maps::{Array, Map, MapData, PerCpuArray};
use ctguard_layout::{COUNTERS, Class, Counter, Counters, Environment, Grant, maps};

use crate::mapped::Mapped;

/// Of one CPU, counters first.
type CpuWords = [u64; size_of::<Counters>() / size_of::<u64>()];
const _: () = assert!(offset_of!(Counters, values) == 0);

/// A guard's counters and its grant.
pub struct Pinned {
    counters: PerCpuArray<MapData, CpuWords>,
    grant: Mapped<Grant>,
}

/// Sums at one time, or what was added between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    values: [u64; COUNTERS],
    /// Taken from the grant, by all tiers together.
    pub taken: u64,
}

impl Pinned {
    /// Opens the maps pinned in this directory.
    pub fn open(pins: &Path) -> Result<Self> {
        let counters = Map::PerCpuArray(map(pins, maps::COUNTERS)?);
        let counters = PerCpuArray::try_from(counters).context("counters are an array")?;
        let grant = Mapped::new(map(pins, maps::GRANT)?.fd().as_fd(), 1)?;
        Ok(Self { counters, grant })
    }

    /// Jiffies of the daemon's last tick.
    #[must_use]
    pub fn heartbeat(&self) -> u64 {
        self.grant.get().iter().map(|grant| grant.heartbeat.load()).sum()
    }

    /// What was counted until now.
    pub fn counts(&self) -> Result<Counts> {
        let mut values = [0; COUNTERS];
        for of_cpu in self.counters.get(&0, 0)?.iter() {
            values.iter_mut().zip(of_cpu).for_each(|(sum, value)| *sum += value);
        }
        let taken = self
            .grant
            .get()
            .iter()
            .flat_map(|grant| &grant.admitted)
            .map(|admissions| admissions.0.load())
            .sum();
        Ok(Counts { values, taken })
    }
}

impl Counts {
    /// Of one counter.
    #[must_use]
    pub fn of(&self, counter: Counter) -> u64 {
        self.values[counter.index() as usize]
    }

    /// New flows refused, for whatever reason.
    #[must_use]
    pub fn refused(&self) -> u64 {
        let is_refusal = |counter: &Counter| {
            matches!(
                counter,
                Counter::RefusedSource(_)
                    | Counter::RefusedGrant(_)
                    | Counter::RefusedFallback(_)
                    | Counter::RefusedDeny(_)
            )
        };
        Counter::ALL.into_iter().filter(is_refusal).map(|counter| self.of(counter)).sum()
    }

    /// Packets judged: each is counted in one of these.
    #[must_use]
    pub fn judged(&self) -> u64 {
        let besides =
            |counter| matches!(counter, Counter::Seen(_) | Counter::Allowed(_) | Counter::Wakeups);
        let outcomes = Counter::ALL.into_iter().filter(|counter| !besides(*counter));
        outcomes.map(|counter| self.of(counter)).sum()
    }

    /// Takes off one new flow that was admitted; false where there is none.
    pub fn take_admitted(&mut self, class: Class) -> bool {
        let counters = [Counter::Seen(class), Counter::Admitted(class)];
        let is_there = self.taken > 0 && counters.iter().all(|counter| self.of(*counter) > 0);
        if is_there {
            self.taken -= 1;
            for counter in counters {
                self.values[counter.index() as usize] -= 1;
            }
        }
        is_there
    }

    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut values = self.values;
        values.iter_mut().zip(earlier.values).for_each(|(now, then)| *now -= then);
        Self { values, taken: self.taken - earlier.taken }
    }
}

/// Jiffies in a second.
pub fn jiffies_per_second(pins: &Path) -> Result<u32> {
    const HZ: usize = offset_of!(Environment, daemon.jiffies_per_second);
    let environment = environment(pins)?.get(&0, 0)?;
    Ok(environment[HZ..].first_chunk().copied().map_or(0, u32::from_ne_bytes))
}

/// Ends the time in which a new guard takes unknown TCP connections for older than itself.
pub fn end_learning(pins: &Path) -> Result<()> {
    const LEARNING: usize = offset_of!(Environment, daemon.learning_until);
    let mut array = environment(pins)?;
    let mut environment = array.get(&0, 0)?;
    environment[LEARNING..LEARNING + size_of::<u64>()].fill(0);
    Ok(array.set(0, environment, 0)?)
}

fn environment(pins: &Path) -> Result<Array<MapData, [u8; size_of::<Environment>()]>> {
    Ok(Array::try_from(Map::Array(map(pins, maps::ENVIRONMENT)?))?)
}

fn map(pins: &Path, name: &str) -> Result<MapData> {
    let path = pins.join(name);
    MapData::from_pin(&path).with_context(|| format!("no map {}", path.display()))
}
