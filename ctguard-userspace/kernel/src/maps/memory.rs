//! The only place where the layout's types meet kernel memory.
//!
//! One of the three modules of this crate with unsafe code (the others are `bpf::syscall` and
//! `net::driver`).

use std::{
    io,
    marker::PhantomData,
    mem::MaybeUninit,
    ops::{Deref, Range},
    os::fd::{AsFd, AsRawFd},
    sync::atomic::{Ordering, fence},
};

use aya::Pod;
use ctguard_datapath::{
    flow::FlowLines,
    known_flows::KnownWords,
    memory::{self, Moment},
    sources::SourceSet,
};
use ctguard_layout::{
    Counters, Environment, FlowLine, Grant, Interface, Limits, ListEntry, MemoryLine, OfferedSlot,
    Policy, SourceCells, SourceLine, shared::Shared,
};
use memmap2::{Mmap, MmapMut, MmapOptions};

/// A value of the layout as aya copies it in and out of a map.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct Value<T>(pub T);

// SAFETY: `repr(C)` of integers without padding; every bit pattern is valid.
unsafe impl Pod for Value<ListEntry> {}
// SAFETY: as above.
unsafe impl Pod for Value<Counters> {}

/// The grant, in place: what is written here holds for the next packet.
#[derive(Debug)]
pub struct SharedGrant(MmapMut);

impl SharedGrant {
    /// Maps the only value of the `grant` map.
    pub fn map(fd: &impl AsFd) -> io::Result<Self> {
        // SAFETY: the memory belongs to a BPF array that the mapping keeps alive; kernel and
        // processes touch it with atomic instructions only.
        unsafe { MmapOptions::new().len(size_of::<Grant>()).map_mut(fd.as_fd().as_raw_fd()) }
            .map(Self)
    }
}

impl SharedGrant {
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
        #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins on a page")]
        let grant = self.0.as_ptr().cast::<Grant>();
        // SAFETY: the mapping is `size_of::<Grant>()` bytes long, begins on a page and lives as
        // long as `self`; `Grant` is atomics and plain integers that nobody writes.
        unsafe { &*grant }
    }
}

/// The values of an array that kernel and processes change at once.
#[derive(Debug)]
struct SharedArray<T> {
    memory: MmapMut,
    values: PhantomData<[T]>,
}

/// Types that may be seen in shared memory: atomics alone, at most a cache line aligned.
///
/// # Safety
/// `repr(C)` or `repr(transparent)` of atomics.
unsafe trait InSharedMemory {}

// SAFETY: a transparent atomic.
unsafe impl InSharedMemory for Shared {}
// SAFETY: an array of the same.
unsafe impl InSharedMemory for FlowLine {}

// SAFETY: atomics and arrays of them.
unsafe impl InSharedMemory for OfferedSlot {}
// SAFETY: an array of atomics.
unsafe impl InSharedMemory for SourceLine {}
// SAFETY: arrays of atomics.
unsafe impl InSharedMemory for SourceCells {}

// SAFETY: an array of atomics.
unsafe impl InSharedMemory for MemoryLine {}

impl<T: InSharedMemory> SharedArray<T> {
    fn map(fd: &impl AsFd, length: u32) -> io::Result<Self> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        // SAFETY: as in `SharedGrant::map`.
        let memory = unsafe {
            MmapOptions::new().len(length * size_of::<T>()).map_mut(fd.as_fd().as_raw_fd())
        }?;
        Ok(Self { memory, values: PhantomData })
    }

    fn values(&self) -> &[T] {
        let length = self.memory.len() / size_of::<T>();
        let start = self.memory.as_ptr().cast::<T>();
        // SAFETY: the mapping holds `length` values, begins on a page and lives as long as `self`;
        // `InSharedMemory` says that they may change under a shared reference.
        unsafe { std::slice::from_raw_parts(start, length) }
    }
}

/// Types of plain integers that are read and written in shared memory word by word.
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

/// Values of which each owner writes a part, in place: the rest is never touched, and no word of 64
/// bits is ever half written.
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

    /// Maps an array of so many.
    pub(super) fn map(fd: &impl AsFd, length: u32) -> io::Result<Self> {
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

    /// Writes what lies at these bytes of `value`, whole words.
    pub(super) fn set(&self, index: usize, bytes: Range<usize>, value: &T) {
        let start = std::ptr::from_ref(value).cast::<u64>();
        // SAFETY: a `T` is `WORDS` aligned words of initialised integers.
        let new = unsafe { std::slice::from_raw_parts(start, Self::WORDS) };
        // What is written first is seen first.
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
    lines: SharedArray<FlowLine>,
    words: SharedArray<Shared>,
}

/// Words looked at to tell a generation's load: enough for a thousandth.
const SAMPLED_WORDS: usize = 4096;

impl FlowMemory {
    /// Maps both, given the number of values of each.
    pub(super) fn map(
        (lines, line_count): (&impl AsFd, u32),
        (words, word_count): (&impl AsFd, u32),
    ) -> io::Result<Self> {
        Ok(Self {
            lines: SharedArray::map(lines, line_count)?,
            words: SharedArray::map(words, word_count)?,
        })
    }

    /// Clears a generation of the filter.
    pub fn clear(&self, generation: u32, environment: &Environment) {
        self.generation(generation, environment).iter().for_each(|word| word.store(0));
    }

    /// The share of bits that the asked generation has set, 0 to 1.
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

/// What sources offer, and which are known, in place.
#[derive(Debug)]
pub struct SourceMemory {
    offered: SharedArray<OfferedSlot>,
    lines: SharedArray<SourceLine>,
    cells: SharedArray<SourceCells>,
}

impl SourceMemory {
    /// Maps all, given the number of values of each.
    pub(super) fn map(
        (offered, offered_count): (&impl AsFd, u32),
        (lines, line_count): (&impl AsFd, u32),
        (cells, cell_count): (&impl AsFd, u32),
    ) -> io::Result<Self> {
        Ok(Self {
            offered: SharedArray::map(offered, offered_count)?,
            lines: SharedArray::map(lines, line_count)?,
            cells: SharedArray::map(cells, cell_count)?,
        })
    }

    /// Offered loads, by line of the source scope.
    pub fn offered(&self) -> &[OfferedSlot] {
        self.offered.values()
    }

    /// The set of known sources.
    pub fn lines(&self) -> &[SourceLine] {
        self.lines.values()
    }

    /// What is counted for the known sources, by slot.
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

/// Lines looked at to tell a memory's load: enough for a hundredth.
const SAMPLED_LINES: usize = 512;

/// The share of a memory's places that hold something no older than `life`, 0 to 1.
pub(super) fn memory_load(
    (fd, line_count): (&impl AsFd, u32),
    now: Moment,
    life: u32,
) -> io::Result<f64> {
    let lines: SharedArray<MemoryLine> = SharedArray::map(fd, line_count)?;
    let sampled = lines.values().iter().take(SAMPLED_LINES);
    let (held, all) = sampled.fold((0_u32, 0_u32), |(held, all), line| {
        let young = memory::young(line, now, life);
        (held + young, all + memory::PLACES)
    });
    Ok(f64::from(held) / f64::from(all.max(1)))
}

/// The first word of a memory-mappable array: the layout's version, in the `policy` map.
pub(super) fn first_word(fd: &impl AsFd) -> io::Result<u32> {
    // SAFETY: as in `SharedGrant::map`; the first word is written once, when the maps are made.
    let memory: Mmap =
        unsafe { MmapOptions::new().len(size_of::<u32>()).map(fd.as_fd().as_raw_fd()) }?;
    let bytes = memory.first_chunk().copied().unwrap_or_default();
    Ok(u32::from_ne_bytes(bytes))
}
