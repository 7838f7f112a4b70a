//! Copies of what the data path changes, a line at a time, to judge packets that nobody sent.

use std::{array, cell::OnceCell, io, net::IpAddr};

use aya::maps::{MapError, lpm_trie::Key};
use ctguard_datapath::{
    flow::FlowLines,
    guard::{Memory, Scope},
    known_flows::KnownWords,
    sources::SourceSet,
};
use ctguard_layout::{
    BucketLine, FlowLine, Grant, List, ListEntry, MemoryLine, RetryLine, SourceCells, SourceLine,
    maps,
    shared::{Shared, SharedWord},
};

use super::{
    GuardMaps, ListKind, OpenError,
    lists::Lists,
    memory::{InSharedMemory, SharedArray, Value},
    open::{in_memory, os_error},
};
use crate::bpf::Pins;

/// Maps as they are when a line is first asked for. Nothing that happens to them reaches the kernel.
pub struct Copies {
    buckets: [Lines<BucketLine>; 3],
    memories: [Lines<MemoryLine>; 2],
    retries: Lines<RetryLine>,
    flows: Lines<FlowLine>,
    words: Lines<Shared>,
    /// The data path only reads them.
    sources: SharedArray<SourceLine>,
    cells: Lines<SourceCells>,
    grant: Grant,
}

impl Copies {
    pub fn of(guard: &GuardMaps) -> Result<Self, OpenError> {
        let pins = &guard.pins;
        Ok(Self {
            buckets: [
                Lines::of(pins, maps::BUCKETS_SOURCE)?,
                Lines::of(pins, maps::BUCKETS_PREFIX)?,
                Lines::of(pins, maps::BUCKETS_SERVICE)?,
            ],
            memories: [Lines::of(pins, maps::ANSWERED)?, Lines::of(pins, maps::CHALLENGED)?],
            retries: Lines::of(pins, maps::RETRIES)?,
            flows: Lines::of(pins, maps::FLOW_CACHE)?,
            words: Lines::of(pins, maps::KNOWN_FLOWS)?,
            sources: in_memory(pins, maps::SOURCES, SharedArray::map)?,
            cells: Lines::of(pins, maps::SOURCE_CELLS)?,
            grant: copy_of_grant(&guard.grant),
        })
    }

    pub const fn grant(&self) -> &Grant {
        &self.grant
    }

    pub fn bucket_line(&self, scope: Scope, index: u32) -> Option<&BucketLine> {
        let [source, prefix, service] = &self.buckets;
        let lines = match scope {
            Scope::Source => source,
            Scope::Prefix => prefix,
            Scope::Service => service,
        };
        lines.get(index)
    }

    pub fn memory_line(&self, memory: Memory, index: u32) -> Option<&MemoryLine> {
        let [answered, challenged] = &self.memories;
        match memory {
            Memory::Answered => answered.get(index),
            Memory::Challenged => challenged.get(index),
        }
    }

    pub fn retry_line(&self, index: u32) -> Option<&RetryLine> {
        self.retries.get(index)
    }
}

impl FlowLines for Copies {
    fn flow_line(&self, index: u32) -> Option<&FlowLine> {
        self.flows.get(index)
    }
}

impl KnownWords for Copies {
    fn known_word(&self, index: u32) -> Option<&Shared> {
        self.words.get(index)
    }
}

impl SourceSet for Copies {
    fn source_line(&self, index: u32) -> Option<&SourceLine> {
        self.sources.values().get(usize::try_from(index).ok()?)
    }

    fn source_cells(&self, slot: u32) -> Option<&SourceCells> {
        self.cells.get(slot)
    }
}

struct Lines<L> {
    shared: SharedArray<L>,
    copies: Vec<OnceCell<Box<L>>>,
}

impl<L: Copied> Lines<L> {
    fn of(pins: &Pins, name: &'static str) -> Result<Self, OpenError> {
        let shared: SharedArray<L> = in_memory(pins, name, SharedArray::map)?;
        let copies = shared.values().iter().map(|_| OnceCell::new()).collect();
        Ok(Self { shared, copies })
    }

    fn get(&self, index: u32) -> Option<&L> {
        let index = usize::try_from(index).ok()?;
        let line = self.shared.values().get(index)?;
        Some(self.copies.get(index)?.get_or_init(|| Box::new(line.copy())))
    }
}

trait Copied: InSharedMemory {
    fn copy(&self) -> Self;
}

fn all<const N: usize>(numbers: &[Shared; N]) -> [Shared; N] {
    array::from_fn(|index| numbers[index].copy())
}

fn words<const N: usize>(numbers: &[SharedWord; N]) -> [SharedWord; N] {
    array::from_fn(|index| {
        let copy = SharedWord::default();
        copy.store(numbers[index].load());
        copy
    })
}

impl Copied for Shared {
    fn copy(&self) -> Self {
        Self::new(self.load())
    }
}

impl Copied for BucketLine {
    fn copy(&self) -> Self {
        Self { arrivals: all(&self.arrivals) }
    }
}

impl Copied for MemoryLine {
    fn copy(&self) -> Self {
        Self { words: words(&self.words) }
    }
}

impl Copied for RetryLine {
    fn copy(&self) -> Self {
        Self { words: all(&self.words) }
    }
}

impl Copied for FlowLine {
    fn copy(&self) -> Self {
        Self { slots: all(&self.slots) }
    }
}

impl Copied for SourceCells {
    fn copy(&self) -> Self {
        Self { arrivals: all(&self.arrivals), offered: words(&self.offered) }
    }
}

fn copy_of_grant(grant: &Grant) -> Grant {
    let copy = Grant::default();
    let pair = |to: &Shared, from: &Shared| to.store(from.load());
    for (to, from) in copy.admitted.iter().zip(&grant.admitted) {
        pair(&to.0, &from.0);
    }
    for (to, from) in copy.allowances.iter().zip(&grant.allowances) {
        pair(&to.limit, &from.limit);
        pair(&to.wake_at, &from.wake_at);
    }
    let fallbacks = copy.fallback.iter().chain([&copy.exempt]);
    for (to, from) in fallbacks.zip(grant.fallback.iter().chain([&grant.exempt])) {
        pair(&to.arrival, &from.arrival);
        pair(&to.interval, &from.interval);
        pair(&to.tolerance, &from.tolerance);
    }
    pair(&copy.heartbeat, &grant.heartbeat);
    pair(&copy.woken_at, &grant.woken_at);
    pair(&copy.challenged_at, &grant.challenged_at);
    pair(&copy.answers, &grant.answers);
    pair(&copy.retried.limit, &grant.retried.limit);
    pair(&copy.retried.left, &grant.retried.left);
    for (to, from) in [
        (&copy.retried.asked, &grant.retried.asked),
        (&copy.retried.expected, &grant.retried.expected),
    ] {
        to.iter().zip(from).for_each(|(to, from)| pair(to, from));
    }
    copy
}

impl GuardMaps {
    /// Whether the list's longest prefix of `address` has not ended by `now`, as the data path asks.
    pub fn hold(&self, list: List, address: IpAddr, now: u64) -> bool {
        let (kind, is_of_feeds) = match list {
            List::AllowV4 | List::AllowV6 => (ListKind::Allow, false),
            List::DenyV4 | List::DenyV6 => (ListKind::Deny, false),
            List::FeedAllowV4 | List::FeedAllowV6 => (ListKind::Allow, true),
            List::FeedDenyV4 | List::FeedDenyV6 => (ListKind::Deny, true),
        };
        let end =
            if is_of_feeds { self.feeds.end(kind, address) } else { self.lists.end(kind, address) };
        debug_assert!(end.is_ok(), "{end:?}");
        end.ok().flatten().is_some_and(|at| at == 0 || now < at)
    }
}

impl Lists {
    /// As [`FeedLists::end`](super::FeedLists).
    fn end(&self, kind: ListKind, address: IpAddr) -> io::Result<Option<u64>> {
        let tries = self.of_kind(kind);
        let found = match address {
            IpAddr::V4(address) => tries.v4.get(&Key::new(32, address.octets()), 0),
            IpAddr::V6(address) => tries.v6.get(&Key::new(128, address.octets()), 0),
        };
        match found {
            Ok(Value(ListEntry { expires_at })) => Ok(Some(expires_at)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) if os_error(&error) == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}
