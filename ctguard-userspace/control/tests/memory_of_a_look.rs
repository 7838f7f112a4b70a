//! How much memory a look at a large table takes.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use ctguard_control::{
    holdings::PartsRoom,
    look::{Held, Kind, Look, Looking},
    reclaim::ReclaimAges,
    sources::SourceScope,
    standing::Standings,
};

struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: Both calls go to the system's allocator as they are.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let in_use = IN_USE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(in_use, Ordering::Relaxed);
        // SAFETY: The caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: The caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// As a message that deletes an IPv6 entry by tuple, zone and id.
type Payload = Box<[u8; 96]>;

const ENTRIES: u32 = 1 << 20;
const MIB: usize = 1 << 20;

fn look(standings: &Standings, kinds: &[Kind]) -> Look<Payload> {
    let marks = standings.marks();
    let mut looking =
        Looking::new(ReclaimAges::of(&ctguard_settings::DEFAULT_POLICY), &marks, ENTRIES.into());
    for number in 0..ENTRIES {
        let held = Held {
            source: SourceScope::V6(u64::from(number.wrapping_mul(2_654_435_761)) << 16),
            kind: kinds[number as usize % kinds.len()],
            idle: Some(number >> 4 & 0x7f),
            deletable: true,
            proves: true,
        };
        looking.add(&held, || Some(Payload::new([0; 96])));
    }
    looking.finish(true)
}

/// Everything that a daemon holds while it looks: the old queue, the new one, and the standings.
#[test]
fn a_million_entries_of_as_many_sources_take_a_bounded_amount_of_memory() {
    let before = IN_USE.load(Ordering::Relaxed);
    for kinds in [&Kind::ALL[..], &[Kind::Established], &[Kind::Finished], &[Kind::Unanswered]] {
        let mut standings = Standings::default();
        let mut queue = None;
        MOST.store(IN_USE.load(Ordering::Relaxed), Ordering::Relaxed);
        for second in [0, 20] {
            let look = look(&standings, kinds);
            let now = Duration::from_secs(second);
            let room = PartsRoom { all: u64::from(ENTRIES) / 2, reserve: 0 };
            standings.looked(&look, now, now, true, room);
            standings.known();
            queue = Some(look.queue);
        }
        assert!(queue.is_some_and(|queue| queue.len() + queue.replaceable() <= 32_768));
        let most = MOST.load(Ordering::Relaxed) - before;
        assert!(most < 14 * MIB, "{most}");
    }
}
