//! Opens the pinned maps, and refuses those of another layout.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
};

use aya::{
    maps::{Map, MapData, MapError, PerCpuArray, RingBuf},
    sys::SyscallError,
};
use ctguard_datapath::memory::Moment;
use ctguard_layout::{
    Counters, Environment, INTERFACE_SLOTS, Interface, LAYOUT_VERSION, Limits, Policy, maps,
};
use ctguard_settings::{InterfaceSettings, Settings};
use thiserror::Error;

use super::{
    Interfaces, Lists, Slot, Totals,
    memory::{
        FlowMemory, InPlace, SharedGrant, SourceMemory, Value, Words, first_word, memory_load,
    },
};
use crate::bpf::Pins;

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
    #[error("cannot map the memory of map {name}")]
    Memory { name: &'static str, source: io::Error },
}

/// Every map of a guard that userspace reads; `writer` holds what writes them.
pub struct GuardMaps {
    pub(super) policy: InPlace<Policy>,
    pub(super) environment: InPlace<Environment>,
    pub(super) limits: InPlace<Limits>,
    counters: PerCpuArray<MapData, Value<Counters>>,
    pub interfaces: Interfaces,
    pub grant: SharedGrant,
    pub lists: Lists,
    pub(super) pins: Pins,
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
            policy: in_place(pins, maps::POLICY, 1)?,
            environment: in_place(pins, maps::ENVIRONMENT, 1)?,
            limits: in_place(pins, maps::LIMITS, 1)?,
            counters: PerCpuArray::try_from(Map::PerCpuArray(open(pins, maps::COUNTERS)?))
                .map_err(|source| OpenError::Map { name: maps::COUNTERS, source })?,
            interfaces: Interfaces::new(in_place(pins, maps::INTERFACES, INTERFACE_SLOTS)?),
            grant: SharedGrant::map(&grant.fd().as_fd())
                .map_err(|source| OpenError::Memory { name: maps::GRANT, source })?,
            lists: Lists::open(pins)?,
            pins: pins.clone(),
        })
    }

    pub fn policy(&self) -> Policy {
        self.policy.get(0)
    }

    pub fn environment(&self) -> Environment {
        self.environment.get(0)
    }

    /// What the controller found last.
    pub fn limits(&self) -> Limits {
        self.limits.get(0)
    }

    /// What the operator has set.
    pub fn settings(&self) -> Settings {
        let interfaces = self.interfaces.used().iter().map(Slot::settings).collect();
        Settings { policy: self.policy(), interfaces }
    }

    /// What is set for the interface of this number or name.
    pub fn interface_settings(&self, ifindex: u32, name: &str) -> InterfaceSettings {
        let used = self.interfaces.used();
        let is_it = |slot: &&Slot| slot.interface.ifindex == ifindex || slot.name() == name;
        let unset = Slot { index: 0, interface: Interface::FREE };
        let settings = used.iter().find(is_it).unwrap_or(&unset).settings();
        InterfaceSettings { name: name.to_owned(), ..settings }
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

fn in_place<T: Words>(
    pins: &Pins,
    name: &'static str,
    length: u32,
) -> Result<InPlace<T>, OpenError> {
    let map = open(pins, name)?;
    InPlace::map(&map.fd().as_fd(), length).map_err(|source| OpenError::Memory { name, source })
}
