//! Opens the pinned maps, and refuses those of another layout.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
};

use aya::{
    maps::{Array, Map, MapData, MapError, PerCpuArray, RingBuf},
    sys::SyscallError,
};
use ctguard_ebpf::{
    layout::{
        Counters, Detection, Environment, Interface, LAYOUT_VERSION, Limits, Policy, TIERS, maps,
    },
    memory::Moment,
};
use thiserror::Error;

use super::{
    Interfaces, Lists, SlotError, Totals,
    memory::{FlowMemory, SharedGrant, SourceMemory, Value, first_word, memory_load},
};
use crate::bpf::Pins;
use ctguard_units::{FallbackRate, compile_scopes};

/// Why there are no maps to work with.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("no guard is loaded at {}; start one: ctguard run -i INTERFACE", path.display())]
    NoGuard { path: PathBuf },
    #[error("not permitted to open the guard at {}; be root", path.display())]
    NotPermitted { path: PathBuf },
    #[error(
        "the guard at {} has map layout {found}, this ctguard has {LAYOUT_VERSION}; remove it with \
         the release that started it (ctguard detach), or use another --pin-path",
        path.display()
    )]
    OtherLayout { path: PathBuf, found: u32 },
    #[error("the guard at {} is incomplete; remove it: ctguard detach", path.display())]
    Incomplete { path: PathBuf },
    #[error("cannot use map {name}")]
    Map { name: &'static str, source: MapError },
    #[error(transparent)]
    Interfaces(Box<SlotError>),
    #[error("cannot map the memory of map {name}")]
    Memory { name: &'static str, source: io::Error },
}

/// Every map of a guard that userspace reads or writes.
pub struct GuardMaps {
    policy: Array<MapData, Value<Policy>>,
    environment: Array<MapData, Value<Environment>>,
    counters: PerCpuArray<MapData, Value<Counters>>,
    limits: Array<MapData, Value<Limits>>,
    pub interfaces: Interfaces,
    pub grant: SharedGrant,
    pub lists: Lists,
    pins: Pins,
}

/// All that a start writes into the maps.
pub struct Values {
    policy: Policy,
    environment: Environment,
    limits: Limits,
    interfaces: Vec<Interface>,
    grant: Vec<u64>,
}

impl GuardMaps {
    /// Opens the maps under `pins`, if they are of this layout.
    pub fn open(pins: &Pins) -> Result<Self, OpenError> {
        match layout_of(pins)? {
            LAYOUT_VERSION => {}
            0 => return Err(OpenError::Incomplete { path: pins.path().to_owned() }),
            found => return Err(OpenError::OtherLayout { path: pins.path().to_owned(), found }),
        }
        Self::open_unversioned(pins)
    }

    /// Opens maps that are being made, or whose version has been looked at.
    pub fn open_unversioned(pins: &Pins) -> Result<Self, OpenError> {
        let grant = open(pins, maps::GRANT)?;
        Ok(Self {
            policy: array(pins, maps::POLICY)?,
            environment: array(pins, maps::ENVIRONMENT)?,
            counters: PerCpuArray::try_from(Map::PerCpuArray(open(pins, maps::COUNTERS)?))
                .map_err(|source| OpenError::Map { name: maps::COUNTERS, source })?,
            limits: array(pins, maps::LIMITS)?,
            interfaces: Interfaces::new(array(pins, maps::INTERFACES)?),
            grant: SharedGrant::map(&grant.fd().as_fd())
                .map_err(|source| OpenError::Memory { name: maps::GRANT, source })?,
            lists: Lists::open(pins)?,
            pins: pins.clone(),
        })
    }

    /// What a start writes.
    pub fn values(&self) -> Result<Values, OpenError> {
        let slots = self.interfaces.all();
        Ok(Values {
            policy: self.policy()?,
            environment: self.environment()?,
            limits: self.limits()?,
            interfaces: slots.map_err(|source| OpenError::Interfaces(source.into()))?,
            grant: self.grant.settings(),
        })
    }

    /// Writes them again.
    pub fn put_back(&mut self, values: Values) -> Result<(), OpenError> {
        self.set_policy(values.policy)?;
        self.set_environment(&values.environment)?;
        self.set_limits(&values.limits)?;
        self.interfaces
            .set_all(&values.interfaces)
            .map_err(|source| OpenError::Interfaces(source.into()))?;
        self.grant.set(values.grant);
        Ok(())
    }

    pub fn policy(&self) -> Result<Policy, OpenError> {
        read(&self.policy, maps::POLICY)
    }

    pub fn set_policy(&mut self, policy: Policy) -> Result<(), OpenError> {
        write(&mut self.policy, maps::POLICY, policy)
    }

    pub fn environment(&self) -> Result<Environment, OpenError> {
        read(&self.environment, maps::ENVIRONMENT)
    }

    pub fn set_environment(&mut self, environment: &Environment) -> Result<(), OpenError> {
        write(&mut self.environment, maps::ENVIRONMENT, *environment)
    }

    /// Writes the environment only where `change` changes it.
    fn change_environment(
        &mut self,
        change: impl FnOnce(&mut Environment),
    ) -> Result<(), OpenError> {
        let environment = self.environment()?;
        let mut next = environment;
        change(&mut next);
        if next == environment { Ok(()) } else { self.set_environment(&next) }
    }

    /// Tells the data path whether any interface has a station to compare with.
    pub fn note_stations(&mut self) -> Result<(), OpenError> {
        let used = self.interfaces.used().map_err(|source| OpenError::Interfaces(source.into()))?;
        let any = used.iter().any(|slot| slot.interface.station != 0);
        self.change_environment(|environment| environment.stations_in_use = u32::from(any))
    }

    /// Tells the data path whether conntrack can be asked, by the bytes of its options, and `status`
    /// why not.
    pub fn note_detection(
        &mut self,
        detection: Detection,
        lookup_options_bytes: u32,
    ) -> Result<(), OpenError> {
        self.change_environment(|environment| {
            environment.detection = detection as u32;
            environment.lookup_options_bytes = lookup_options_bytes;
        })
    }

    /// Tells the data path that the known-flows filter lacks flows.
    pub fn note_known_incomplete(&mut self) -> Result<(), OpenError> {
        self.change_environment(|environment| environment.known_complete = 0)
    }

    /// Writes the rates that hold while no daemon lives.
    pub fn set_fallback(&self, rates: [FallbackRate; TIERS]) {
        FallbackRate::write_all(rates, &self.grant);
    }

    /// Tells the data path which scopes have limits, and which.
    pub fn note_scopes(&mut self, policy: &Policy) -> Result<(), OpenError> {
        self.change_environment(|environment| compile_scopes(policy, environment))
    }

    /// What the controller found last.
    pub fn limits(&self) -> Result<Limits, OpenError> {
        read(&self.limits, maps::LIMITS)
    }

    /// Writes stages and shares.
    pub fn set_limits(&mut self, limits: &Limits) -> Result<(), OpenError> {
        write(&mut self.limits, maps::LIMITS, *limits)
    }

    /// What is offered, and who is known.
    pub fn source_memory(&self) -> Result<SourceMemory, OpenError> {
        let map = |name| Ok((open(&self.pins, name)?, self.entries(name)?));
        let (offered, lines, cells) =
            (map(maps::OFFERED_SOURCE)?, map(maps::SOURCES)?, map(maps::SOURCE_CELLS)?);
        SourceMemory::map(
            (&offered.0.fd().as_fd(), offered.1),
            (&lines.0.fd().as_fd(), lines.1),
            (&cells.0.fd().as_fd(), cells.1),
        )
        .map_err(|source| OpenError::Memory { name: maps::SOURCES, source })
    }

    /// Tells the data path which lists have entries.
    pub fn note_lists(&mut self, lists_in_use: u32) -> Result<(), OpenError> {
        self.change_environment(|environment| environment.lists_in_use = lists_in_use)
    }

    /// The counters of all processors together.
    pub fn totals(&self) -> Result<Totals, OpenError> {
        let values = self
            .counters
            .get(&0, 0)
            .map_err(|source| OpenError::Map { name: maps::COUNTERS, source })?;
        Ok(Totals::sum(values.iter().map(|value| &value.0)))
    }

    /// The ring that wakes the daemon.
    pub fn wakeups(&self) -> Result<RingBuf<MapData>, OpenError> {
        RingBuf::try_from(Map::RingBuf(open(&self.pins, maps::WAKEUPS)?))
            .map_err(|source| OpenError::Map { name: maps::WAKEUPS, source })
    }

    /// Flow cache and known-flows filter.
    pub fn flow_memory(&self) -> Result<FlowMemory, OpenError> {
        let lines = open(&self.pins, maps::FLOW_CACHE)?;
        let words = open(&self.pins, maps::KNOWN_FLOWS)?;
        let (line_count, word_count) =
            (self.entries(maps::FLOW_CACHE)?, self.entries(maps::KNOWN_FLOWS)?);
        FlowMemory::map((&lines.fd().as_fd(), line_count), (&words.fd().as_fd(), word_count))
            .map_err(|source| OpenError::Memory { name: maps::KNOWN_FLOWS, source })
    }

    /// Share of the places of one of the memories that hold something no older than `life`.
    pub fn memory_load(
        &self,
        name: &'static str,
        now: Moment,
        life: u32,
    ) -> Result<f64, OpenError> {
        let (map, lines) = (open(&self.pins, name)?, self.entries(name)?);
        memory_load((&map.fd().as_fd(), lines), now, life)
            .map_err(|source| OpenError::Memory { name, source })
    }

    /// Memory that all pinned maps are charged for.
    pub fn bytes(&self) -> Result<u64, OpenError> {
        maps::PINNED.into_iter().try_fold(0, |sum, name| {
            let map = open(&self.pins, name)?;
            let facts =
                fs::read_to_string(format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd()));
            let facts = facts.map_err(|source| OpenError::Memory { name, source })?;
            let charged = facts.lines().find_map(|line| line.strip_prefix("memlock:"));
            Ok(sum + charged.and_then(|bytes| bytes.trim().parse::<u64>().ok()).unwrap_or_default())
        })
    }

    /// Lines of `name`, an array.
    pub fn entries(&self, name: &'static str) -> Result<u32, OpenError> {
        let info = open(&self.pins, name)?.info();
        info.map(|info| info.max_entries()).map_err(|source| OpenError::Map { name, source })
    }
}

/// The layout's version of the guard under `pins`; 0 where a start was cut short.
pub fn layout_of(pins: &Pins) -> Result<u32, OpenError> {
    let policy = open(pins, maps::POLICY)?;
    first_word(&policy.fd().as_fd())
        .map_err(|source| OpenError::Memory { name: maps::POLICY, source })
}

pub(super) fn open(pins: &Pins, name: &'static str) -> Result<MapData, OpenError> {
    MapData::from_pin(pins.map(name)).map_err(|source| {
        let path = pins.path().to_owned();
        let error = if let MapError::SyscallError(SyscallError { io_error, .. }) = &source {
            io_error.raw_os_error()
        } else {
            None
        };
        match error {
            Some(libc::ENOENT | libc::ENOTDIR) => OpenError::NoGuard { path },
            Some(libc::EPERM | libc::EACCES) => OpenError::NotPermitted { path },
            Some(_) | None => OpenError::Map { name, source },
        }
    })
}

fn array<T>(pins: &Pins, name: &'static str) -> Result<Array<MapData, Value<T>>, OpenError>
where
    Value<T>: aya::Pod,
{
    Array::try_from(Map::Array(open(pins, name)?)).map_err(|source| OpenError::Map { name, source })
}

/// The only value of an array.
fn read<T: Copy>(map: &Array<MapData, Value<T>>, name: &'static str) -> Result<T, OpenError>
where
    Value<T>: aya::Pod,
{
    map.get(&0, 0).map(|value| value.0).map_err(|source| OpenError::Map { name, source })
}

fn write<T>(
    map: &mut Array<MapData, Value<T>>,
    name: &'static str,
    value: T,
) -> Result<(), OpenError>
where
    Value<T>: aya::Pod,
{
    map.set(0, Value(value), 0).map_err(|source| OpenError::Map { name, source })
}
