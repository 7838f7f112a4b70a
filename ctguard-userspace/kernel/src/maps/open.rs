//! Opens the pinned maps, and refuses those of another layout.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::PathBuf,
    sync::Arc,
};

use aya::maps::{Map, MapData, MapError, PerCpuArray, RingBuf};
use ctguard_datapath::memory::Moment;
use ctguard_layout::{Counters, Environment, Interface, LAYOUT_VERSION, Limits, Policy, maps};
use ctguard_settings::{InterfaceSettings, Settings};
use thiserror::Error;

use super::{
    FeedLists, Interfaces, Lists, Pause, Refusals, Slot, Totals,
    memory::{
        FlowMemory, InPlace, SharedArray, SharedGrant, SourceMemory, Value, first_word,
        memory_load, retries_load,
    },
    pause::without_pause,
    refusals::RefusalsMap,
};
use crate::bpf::Pins;

#[derive(Debug, Error)]
pub enum OpenError {
    #[error("no guard is loaded at {}; start one: ctguard run -i INTERFACE", path.display())]
    NoGuard { path: PathBuf },
    #[error("not permitted to open the guard at {}; be root", path.display())]
    NotPermitted { path: PathBuf },
    #[error(
        "the guard at {} has map layout {found}, this ctguard has {LAYOUT_VERSION}; it goes on alone; \
         replace it: systemctl restart ctguard, or ctguard run",
        path.display()
    )]
    OtherLayout { path: PathBuf, found: u32 },
    #[error("the guard at {} is incomplete; remove it: ctguard detach", path.display())]
    Incomplete { path: PathBuf },
    #[error("cannot use map {name}")]
    Map { name: &'static str, source: MapError },
    #[error("cannot map the memory of map {name}")]
    Memory { name: &'static str, source: io::Error },
}

/// The maps of a guard; `writer` has the operations that change them.
pub struct GuardMaps {
    pub(super) policy: InPlace<Policy>,
    pub(super) environment: InPlace<Environment>,
    pub(super) limits: InPlace<Limits>,
    counters: PerCpuArray<MapData, Value<Counters>>,
    pub(super) refusals: RefusalsMap,
    pub interfaces: Interfaces,
    pub grant: SharedGrant,
    pub lists: Lists,
    pub feeds: Arc<FeedLists>,
    pub(super) pins: Pins,
}

impl GuardMaps {
    /// Opens the maps under `pins`, unless they have another layout.
    pub fn open(pins: &Pins) -> Result<Self, OpenError> {
        match layout_of(pins)? {
            LAYOUT_VERSION => {}
            0 => return Err(OpenError::Incomplete { path: pins.path().to_owned() }),
            found => return Err(OpenError::OtherLayout { path: pins.path().to_owned(), found }),
        }
        Self::open_unversioned(pins)
    }

    /// Opens maps that are being made, or whose version was checked.
    pub fn open_unversioned(pins: &Pins) -> Result<Self, OpenError> {
        Ok(Self {
            policy: in_memory(pins, maps::POLICY, InPlace::map)?,
            environment: in_memory(pins, maps::ENVIRONMENT, InPlace::map)?,
            limits: in_memory(pins, maps::LIMITS, InPlace::map)?,
            counters: PerCpuArray::try_from(Map::PerCpuArray(open(pins, maps::COUNTERS)?))
                .map_err(|source| OpenError::Map { name: maps::COUNTERS, source })?,
            refusals: RefusalsMap::open(pins)?,
            interfaces: Interfaces::new(in_memory(pins, maps::INTERFACES, InPlace::map)?),
            grant: in_memory(pins, maps::GRANT, SharedGrant::map)?,
            lists: Lists::open(pins)?,
            feeds: FeedLists::open(pins)?.into(),
            pins: pins.clone(),
        })
    }

    /// Their pins are elsewhere from now on.
    pub fn are_pinned_at(&mut self, pins: &Pins) {
        self.pins = pins.clone();
    }

    /// What is in force, also during a pause; [`Self::settings`] has what the operator set.
    pub fn policy(&self) -> Policy {
        self.policy.get(0)
    }

    pub fn environment(&self) -> Environment {
        self.environment.get(0)
    }

    pub fn limits(&self) -> Limits {
        self.limits.get(0)
    }

    pub fn settings(&self) -> Settings {
        let interfaces = self.interfaces.used().iter().map(Slot::settings).collect();
        Settings { policy: without_pause(self.policy()), interfaces }
    }

    /// The pause, which may be over.
    pub fn pause(&self) -> Option<Pause> {
        Pause::of(&self.policy())
    }

    /// The settings of the interface with this number or name; defaults if it has no slot.
    pub fn interface_settings(&self, ifindex: u32, name: &str) -> InterfaceSettings {
        let used = self.interfaces.used();
        let is_it = |slot: &&Slot| slot.interface.ifindex == ifindex || slot.name() == name;
        let unset = Slot { index: 0, interface: Interface::FREE };
        let settings = used.iter().find(is_it).unwrap_or(&unset).settings();
        InterfaceSettings { name: name.to_owned(), ..settings }
    }

    pub fn source_memory(&self) -> Result<SourceMemory, OpenError> {
        Ok(SourceMemory {
            offered: in_memory(&self.pins, maps::OFFERED_SOURCE, SharedArray::map)?,
            lines: in_memory(&self.pins, maps::SOURCES, SharedArray::map)?,
            cells: in_memory(&self.pins, maps::SOURCE_CELLS, SharedArray::map)?,
        })
    }

    pub fn totals(&self) -> Result<Totals, OpenError> {
        let values = self
            .counters
            .get(&0, 0)
            .map_err(|source| OpenError::Map { name: maps::COUNTERS, source })?;
        Ok(Totals::sum(values.iter().map(|value| &value.0)))
    }

    pub fn refusals(&self) -> Result<Refusals, OpenError> {
        self.refusals.read()
    }

    pub fn wakeups(&self) -> Result<RingBuf<MapData>, OpenError> {
        RingBuf::try_from(Map::RingBuf(open(&self.pins, maps::WAKEUPS)?))
            .map_err(|source| OpenError::Map { name: maps::WAKEUPS, source })
    }

    pub fn flow_memory(&self) -> Result<FlowMemory, OpenError> {
        Ok(FlowMemory {
            lines: in_memory(&self.pins, maps::FLOW_CACHE, SharedArray::map)?,
            words: in_memory(&self.pins, maps::KNOWN_FLOWS, SharedArray::map)?,
        })
    }

    /// Share of the places of memory `name` that hold something no older than `life`.
    pub fn memory_load(
        &self,
        name: &'static str,
        now: Moment,
        life: u32,
    ) -> Result<f64, OpenError> {
        Ok(memory_load(&in_memory(&self.pins, name, SharedArray::map)?, now, life))
    }

    /// Share of the places for senders that may come again which hold one no older than `life`.
    pub fn retries_load(&self, now: Moment, life: u32) -> Result<f64, OpenError> {
        Ok(retries_load(&in_memory(&self.pins, maps::RETRIES, SharedArray::map)?, now, life))
    }

    /// Number of values of the array `name`.
    pub fn entries(&self, name: &'static str) -> Result<u32, OpenError> {
        let info = open(&self.pins, name)?.info();
        info.map(|info| info.max_entries()).map_err(|source| OpenError::Map { name, source })
    }

    /// Memory of all pinned maps, as the kernel charges it.
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
}

/// Layout version of the guard under `pins`; 0 if its start was interrupted.
pub fn layout_of(pins: &Pins) -> Result<u32, OpenError> {
    let policy = open(pins, maps::POLICY)?;
    first_word(policy.fd().as_fd())
        .map_err(|source| OpenError::Memory { name: maps::POLICY, source })
}

pub(super) fn open(pins: &Pins, name: &'static str) -> Result<MapData, OpenError> {
    MapData::from_pin(pins.map(name)).map_err(|source| {
        let path = pins.path().to_owned();
        match os_error(&source) {
            Some(libc::ENOENT | libc::ENOTDIR) => OpenError::NoGuard { path },
            Some(libc::EPERM | libc::EACCES) => OpenError::NotPermitted { path },
            Some(_) | None => OpenError::Map { name, source },
        }
    })
}

/// Opens an array, and maps its memory by `map`, which takes the number of its values.
pub(super) fn in_memory<M>(
    pins: &Pins,
    name: &'static str,
    map: impl FnOnce(BorrowedFd<'_>, u32) -> io::Result<M>,
) -> Result<M, OpenError> {
    let opened = open(pins, name)?;
    let info = opened.info().map_err(|source| OpenError::Map { name, source })?;
    map(opened.fd().as_fd(), info.max_entries())
        .map_err(|source| OpenError::Memory { name, source })
}

pub(super) fn os_error(error: &MapError) -> Option<i32> {
    if let MapError::SyscallError(error) = error { error.io_error.raw_os_error() } else { None }
}
