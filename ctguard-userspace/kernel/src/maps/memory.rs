//! Maps the memory of BPF arrays and reads it as the layout's types.
//!
//! One of the three modules of this crate with unsafe code (the others are `bpf::syscall` and
//! `net::driver`).

use std::{
    io,
    marker::PhantomData,
    mem::MaybeUninit,
    ops::{Deref, Range},
    os::fd::{AsRawFd as _, BorrowedFd},
    sync::atomic::{Ordering, fence},
};

use aya::Pod;
use ctguard_datapath::{
    flow::FlowLines,
    known_flows::KnownWords,
    memory::{self, Moment},
    retries,
    sources::{LINES, SourceSet},
};
use ctguard_layout::{
    BucketLine, CaptureState, Counters, Environment, FlowLine, Grant, Interface, Limits, ListEntry,
    MemoryLine, OfferedSlot, Policy, RetryLine, SourceCells, SourceLine, shared::Shared,
};
use memmap2::{MmapMut, MmapOptions};

/// A value that aya copies in and out of a map.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct Value<T>(pub T);

// SAFETY: `repr(C)` of integers without padding; every bit pattern is valid.
unsafe impl Pod for Value<ListEntry> {}
// SAFETY: as above.
unsafe impl Pod for Value<Counters> {}
// SAFETY: as above.
unsafe impl Pod for Value<CaptureState> {}

/// The grant, in place: the next packet sees what is written here.
#[derive(Debug)]
pub struct SharedGrant(SharedArray<Grant>);

impl SharedGrant {
    /// `values` is the number of values in the map, 1.
    pub(super) fn map(fd: BorrowedFd<'_>, values: u32) -> io::Result<Self> {
        SharedArray::map(fd, values).map(Self)
    }

    /// What the daemon has written.
    pub(super) fn settings(&self) -> Vec<u64> {
        self.written().map(Shared::load).collect()
    }

    pub(super) fn set(&self, settings: Vec<u64>) {
        self.written().zip(settings).for_each(|(number, setting)| number.store(setting));
    }

    fn written(&self) -> impl Iterator<Item = &Shared> {
        let allowances = self.allowances.iter().flat_map(|it| [&it.limit, &it.wake_at]);
        let fallback = self.fallback.iter().flat_map(|it| [&it.interval, &it.tolerance]);
        std::iter::once(&self.heartbeat).chain(allowances).chain(fallback)
    }
}

impl Deref for SharedGrant {
    type Target = Grant;

    fn deref(&self) -> &Grant {
        &self.0.values()[0]
    }
}

/// The values of an array that the kernel and other processes change meanwhile.
#[derive(Debug)]
pub(super) struct SharedArray<T> {
    memory: MmapMut,
    values: PhantomData<[T]>,
}

/// Types that may be borrowed in shared memory, aligned to a cache line at most.
///
/// # Safety
/// `repr(C)` or `repr(transparent)` of atomics, and of plain integers that nobody writes.
pub(super) unsafe trait InSharedMemory {}

// SAFETY: a transparent atomic.
unsafe impl InSharedMemory for Shared {}
// SAFETY: atomics, and reserved integers that nobody writes.
unsafe impl InSharedMemory for Grant {}
// SAFETY: an array of atomics.
unsafe impl InSharedMemory for FlowLine {}
// SAFETY: atomics and arrays of them.
unsafe impl InSharedMemory for OfferedSlot {}
// SAFETY: an array of atomics.
unsafe impl InSharedMemory for BucketLine {}
// SAFETY: an array of atomics.
unsafe impl InSharedMemory for SourceLine {}
// SAFETY: arrays of atomics.
unsafe impl InSharedMemory for SourceCells {}
// SAFETY: an array of atomics.
unsafe impl InSharedMemory for MemoryLine {}
// SAFETY: an array of atomics.
unsafe impl InSharedMemory for RetryLine {}

impl<T: InSharedMemory> SharedArray<T> {
    pub(super) fn map(fd: BorrowedFd<'_>, length: u32) -> io::Result<Self> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mut options = MmapOptions::new();
        // SAFETY: the memory belongs to a BPF array that the mapping keeps alive; kernel and
        // processes touch it with atomic instructions only.
        let memory = unsafe { options.len(length * size_of::<T>()).map_mut(fd.as_raw_fd()) }?;
        Ok(Self { memory, values: PhantomData })
    }

    pub(super) fn values(&self) -> &[T] {
        let length = self.memory.len() / size_of::<T>();
        let start = self.memory.as_ptr().cast::<T>();
        // SAFETY: the mapping holds `length` values, begins on a page and lives as long as `self`;
        // values of an `InSharedMemory` type may change under a shared reference.
        unsafe { std::slice::from_raw_parts(start, length) }
    }
}

/// Types that are read and written in shared memory word by word.
///
/// # Safety
/// `repr(C)` of integers without padding, so that every bit pattern is valid.
pub(super) unsafe trait Words: Copy {}

// SAFETY: as the trait demands.
unsafe impl Words for Policy {}
// SAFETY: as above.
unsafe impl Words for Environment {}
// SAFETY: as above.
unsafe impl Words for Interface {}
// SAFETY: as above.
unsafe impl Words for Limits {}

/// Values of which each owner writes a part in place. The other parts are never touched, and no word
/// of 64 bits is ever half written.
#[derive(Debug)]
pub(super) struct InPlace<T> {
    words: SharedArray<Shared>,
    values: PhantomData<[T]>,
}

impl<T: Words> InPlace<T> {
    const WORDS: usize = {
        assert!(align_of::<T>() >= align_of::<u64>() && size_of::<T>().is_multiple_of(WORD));
        size_of::<T>() / WORD
    };

    pub(super) fn map(fd: BorrowedFd<'_>, length: u32) -> io::Result<Self> {
        let words = u32::try_from(Self::WORDS).map_err(io::Error::other)?;
        Ok(Self { words: SharedArray::map(fd, length * words)?, values: PhantomData })
    }

    pub(super) fn get(&self, index: usize) -> T {
        let mut value = MaybeUninit::<T>::uninit();
        let words = value.as_mut_ptr().cast::<u64>();
        for (at, word) in self.words_of(index).iter().enumerate() {
            // SAFETY: there are `WORDS` words, which is the size of the value, and it is aligned.
            unsafe { words.add(at).write(word.load()) };
        }
        // SAFETY: all of it was written, and `Words` takes any bit pattern.
        unsafe { value.assume_init() }
    }

    /// Writes these bytes of `value`, in whole words.
    pub(super) fn set(&self, index: usize, bytes: Range<usize>, value: &T) {
        let start = std::ptr::from_ref(value).cast::<u64>();
        // SAFETY: a `T` is `WORDS` aligned words of initialised integers.
        let new = unsafe { std::slice::from_raw_parts(start, Self::WORDS) };
        // Earlier writes are seen before this one.
        fence(Ordering::Release);
        let part = bytes.start / WORD..bytes.end / WORD;
        for (word, new) in self.words_of(index)[part.clone()].iter().zip(&new[part]) {
            if word.load() != *new {
                word.store(*new);
            }
        }
    }

    fn words_of(&self, index: usize) -> &[Shared] {
        &self.words.values()[index * Self::WORDS..][..Self::WORDS]
    }
}

const WORD: usize = size_of::<u64>();

/// Flow cache and known-flows filter, in place.
#[derive(Debug)]
pub struct FlowMemory {
    pub(super) lines: SharedArray<FlowLine>,
    pub(super) words: SharedArray<Shared>,
}

/// Enough words to estimate a generation's load to a thousandth.
const SAMPLED_WORDS: usize = 4096;

impl FlowMemory {
    /// Clears a generation of the filter.
    pub fn clear(&self, generation: u32, environment: &Environment) {
        self.generation(generation, environment).iter().for_each(|word| word.store(0));
    }

    /// Share of bits set in the generation that is in use, 0 to 1.
    pub fn load(&self, environment: &Environment) -> f64 {
        let words = self.generation(environment.daemon.known_generation, environment);
        let sampled = words.iter().take(SAMPLED_WORDS);
        let (set, all) = sampled.fold((0_u32, 0_u32), |(set, all), word| {
            (set + word.load().count_ones(), all + u64::BITS)
        });
        f64::from(set) / f64::from(all.max(1))
    }

    fn generation(&self, generation: u32, environment: &Environment) -> &[Shared] {
        let words = environment.fixed.known_words as usize;
        let start = words * (generation & 1) as usize;
        self.words.values().get(start..start + words).unwrap_or_default()
    }
}

impl FlowLines for FlowMemory {
    fn flow_line(&self, index: u32) -> Option<&FlowLine> {
        self.lines.values().get(usize::try_from(index).ok()?)
    }
}

impl KnownWords for FlowMemory {
    fn known_word(&self, index: u32) -> Option<&Shared> {
        self.words.values().get(usize::try_from(index).ok()?)
    }
}

/// Offered loads and known sources, in place.
#[derive(Debug)]
pub struct SourceMemory {
    pub(super) offered: SharedArray<OfferedSlot>,
    pub(super) lines: SharedArray<SourceLine>,
    pub(super) cells: SharedArray<SourceCells>,
}

impl SourceMemory {
    /// Offered loads, by line of the source scope.
    pub fn offered(&self) -> &[OfferedSlot] {
        self.offered.values()
    }

    /// The set of known sources.
    pub fn lines(&self) -> &[SourceLine] {
        let lines = self.lines.values();
        lines.get(..LINES as usize).unwrap_or(lines)
    }

    /// Counts of the known sources, by slot.
    pub fn cells(&self) -> &[SourceCells] {
        self.cells.values()
    }
}

impl SourceSet for SourceMemory {
    fn source_line(&self, index: u32) -> Option<&SourceLine> {
        self.lines.values().get(usize::try_from(index).ok()?)
    }

    fn source_cells(&self, slot: u32) -> Option<&SourceCells> {
        self.cells.values().get(usize::try_from(slot).ok()?)
    }
}

/// Enough lines to estimate a memory's load to a hundredth.
const SAMPLED_LINES: usize = 512;

/// Share of a memory's places that hold something no older than `life`, 0 to 1.
pub(super) fn memory_load(lines: &SharedArray<MemoryLine>, now: Moment, life: u32) -> f64 {
    load(lines, memory::PLACES, |line| memory::young(line, now, life))
}

/// The same of the senders that may come again.
pub(super) fn retries_load(lines: &SharedArray<RetryLine>, now: Moment, life: u32) -> f64 {
    load(lines, retries::PLACES, |line| retries::young(line, now, life))
}

fn load<L: InSharedMemory>(lines: &SharedArray<L>, places: u32, held: impl Fn(&L) -> u32) -> f64 {
    let sampled = lines.values().iter().take(SAMPLED_LINES);
    let (held, all) =
        sampled.fold((0_u32, 0_u32), |(sum, all), line| (sum + held(line), all + places));
    f64::from(held) / f64::from(all.max(1))
}

/// The first word of a memory-mappable array: the layout's version, in the `policy` map.
pub(super) fn first_word(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut options = MmapOptions::new();
    // SAFETY: as in `SharedArray::map`; the first word is written once, when the maps are made.
    let memory = unsafe { options.len(size_of::<u32>()).map(fd.as_raw_fd()) }?;
    let bytes = memory.first_chunk().copied().unwrap_or_default();
    Ok(u32::from_ne_bytes(bytes))
}
