//! What others do about a flood, at its least, to measure beside: programs that only send back or
//! only parse, and one rate limit for each source (GCRA) in three kinds of map.

use aya_ebpf::{
    bindings::{BPF_ANY, xdp_action},
    btf_maps::{Array, LruHashMap, LruPerCpuHashMap, PerCpuArray},
    helpers::bpf_jiffies64,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

use super::load;

/// Cells of each kind of bucket: 512 KiB in the array.
const CELLS: usize = 1 << 16;
const CELL_BITS: u32 = CELLS.trailing_zeros();

/// Jiffies between two packets of a source, how many it may be early, and a key that nobody who
/// floods can know: without one he picks sources of one cell.
#[btf_map(name = "lab_bucket_rate")]
static RATE: Array<[u64; 3], 1> = Array::new();

/// Packets dropped by a bucket.
#[btf_map(name = "lab_bucket_drops")]
static DROPS: PerCpuArray<u64, 1> = PerCpuArray::new();

#[btf_map(name = "lab_buckets")]
static BUCKETS: Array<u64, CELLS> = Array::new();

#[btf_map(name = "lab_lru_buckets")]
static LRU_BUCKETS: LruHashMap<u32, u64, CELLS> = LruHashMap::new();

#[btf_map(name = "lab_cpu_buckets")]
static PER_CPU_BUCKETS: LruPerCpuHashMap<u32, u64, CELLS> = LruPerCpuHashMap::new();

/// The floor of what is answered: sends back what it is given.
#[xdp(frags)]
pub fn lab_send_floor(_context: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// Reads what every filter has to read, and lets all pass.
#[xdp(frags)]
pub fn lab_parse(context: XdpContext) -> u32 {
    match parse(&context) {
        Some(_) => xdp_action::XDP_PASS,
        None => xdp_action::XDP_DROP,
    }
}

/// One cell for all sources of one hash.
#[xdp(frags)]
pub fn lab_array_bucket(context: XdpContext) -> u32 {
    let Some(source) = parse(&context) else { return xdp_action::XDP_PASS };
    let key = RATE.get(0).map_or(0, |[_, _, key]| *key);
    verdict(BUCKETS.get_ptr_mut(hash(source, key)))
}

/// One cell for each source, the least recently used forgotten.
#[xdp(frags)]
pub fn lab_lru_bucket(context: XdpContext) -> u32 {
    let Some(source) = parse(&context) else { return xdp_action::XDP_PASS };
    let cell = LRU_BUCKETS.get_ptr_mut(source);
    if cell.is_none() {
        let _ = LRU_BUCKETS.insert(source, first_arrival(), BPF_ANY.into());
        return xdp_action::XDP_PASS;
    }
    verdict(cell)
}

/// The same for each CPU by itself.
#[xdp(frags)]
pub fn lab_cpu_bucket(context: XdpContext) -> u32 {
    let Some(source) = parse(&context) else { return xdp_action::XDP_PASS };
    let cell = PER_CPU_BUCKETS.get_ptr_mut(source);
    if cell.is_none() {
        let _ = PER_CPU_BUCKETS.insert(source, first_arrival(), BPF_ANY.into());
        return xdp_action::XDP_PASS;
    }
    verdict(cell)
}

/// The source of an IPv4 packet that has ports.
#[inline(always)]
fn parse(context: &XdpContext) -> Option<u32> {
    if load(context, 12)? != 0x0800_u16.to_be() {
        return None;
    }
    let version_and_length = u16::from_be(load(context, 14)?) >> 8;
    let is_fragment = load(context, 20)? & 0x1fff_u16.to_be() != 0;
    let protocol = u16::from_be(load(context, 22)?) & 0xff;
    // Options are for programs that have more to do than to be compared with.
    if version_and_length != 0x45 || is_fragment || (protocol != 6 && protocol != 17) {
        return None;
    }
    load(context, 36)?;
    Some(u32::from(load(context, 26)?) | u32::from(load(context, 28)?) << 16)
}

/// The finalizer of MurmurHash3 over a key.
#[inline(always)]
fn hash(source: u32, key: u64) -> u32 {
    let mixed = (u64::from(source) ^ key).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (mixed >> (64 - CELL_BITS)) as u32
}

/// The generic cell rate algorithm; packets that race on one cell are counted as one.
#[inline(always)]
fn verdict(cell: Option<*mut u64>) -> u32 {
    let (Some(cell), Some([interval, tolerance, _])) = (cell, RATE.get(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    let now = jiffies();
    // SAFETY: a value of the map lives as long as the program runs, and is written in whole.
    let arrival = unsafe { *cell };
    if arrival > now + tolerance {
        if let Some(drops) = DROPS.get_ptr_mut(0) {
            // SAFETY: the slot is this CPU's own, and XDP is not preempted by itself.
            unsafe { *drops += 1 };
        }
        return xdp_action::XDP_DROP;
    }
    // SAFETY: as above.
    unsafe { *cell = arrival.max(now) + interval };
    xdp_action::XDP_PASS
}

/// When the second packet of a source is due whose first comes now.
#[inline(always)]
fn first_arrival() -> u64 {
    jiffies() + RATE.get(0).map_or(0, |[interval, ..]| *interval)
}

#[inline(always)]
fn jiffies() -> u64 {
    // SAFETY: the helper reads a kernel variable and takes no argument.
    unsafe { bpf_jiffies64() }
}
