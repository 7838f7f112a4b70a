//! Every BPF map. Names are those of `ctguard_layout::maps`; the loader sets the sizes that
//! depend on the guarded table.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, LpmTrie, PerCpuArray, PerfEventArray, RingBuf},
    macros::btf_map,
};
use ctguard_datapath::guard::CpuState;
use ctguard_layout::shared::Shared;
use ctguard_layout::{
    BucketLine, CaptureState, Counters, Environment, FeedEntry, FlowLine, Grant, INTERFACE_SLOTS,
    Interface, Limits, ListEntry, MemoryLine, OfferedSlot, Policy, Refuser, RetryLine, SourceCells,
    SourceLine,
};

/// Only memory-mappable arrays have their values aligned to 64 bytes (`array_map_alloc`).
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
const LIST_CAPACITY: usize = ListEntry::CAPACITY as usize;
const FEED_CAPACITY: usize = FeedEntry::MAP_CAPACITY as usize;

#[btf_map(name = "policy")]
pub(crate) static POLICY: Array<Policy, 1, MMAPABLE> = Array::new();
#[btf_map(name = "environment")]
pub(crate) static ENVIRONMENT: Array<Environment, 1, MMAPABLE> = Array::new();
#[btf_map(name = "interfaces")]
pub(crate) static INTERFACES: Array<Interface, { INTERFACE_SLOTS as usize }, MMAPABLE> =
    Array::new();
#[btf_map(name = "grant")]
pub(crate) static GRANT: Array<Grant, 1, MMAPABLE> = Array::new();
#[btf_map(name = "buckets_source")]
pub(crate) static BUCKETS_SOURCE: Array<BucketLine, 1, MMAPABLE> = Array::new();
#[btf_map(name = "offered_source")]
pub(crate) static OFFERED_SOURCE: Array<OfferedSlot, 1, MMAPABLE> = Array::new();
#[btf_map(name = "limits")]
pub(crate) static LIMITS: Array<Limits, 1, MMAPABLE> = Array::new();
#[btf_map(name = "buckets_prefix")]
pub(crate) static BUCKETS_PREFIX: Array<BucketLine, 1, MMAPABLE> = Array::new();
#[btf_map(name = "buckets_service")]
pub(crate) static BUCKETS_SERVICE: Array<BucketLine, 1, MMAPABLE> = Array::new();
#[btf_map(name = "sources")]
pub(crate) static SOURCES: Array<SourceLine, 1, MMAPABLE> = Array::new();
#[btf_map(name = "source_cells")]
pub(crate) static SOURCE_CELLS: Array<SourceCells, 1, MMAPABLE> = Array::new();
#[btf_map(name = "retries")]
pub(crate) static RETRIES: Array<RetryLine, 1, MMAPABLE> = Array::new();
#[btf_map(name = "answered")]
pub(crate) static ANSWERED: Array<MemoryLine, 1, MMAPABLE> = Array::new();
#[btf_map(name = "challenged")]
pub(crate) static CHALLENGED: Array<MemoryLine, 1, MMAPABLE> = Array::new();
#[btf_map(name = "flow_cache")]
pub(crate) static FLOW_CACHE: Array<FlowLine, 1, MMAPABLE> = Array::new();
#[btf_map(name = "known_flows")]
pub(crate) static KNOWN_FLOWS: Array<Shared, 1, MMAPABLE> = Array::new();
#[btf_map(name = "counters")]
pub(crate) static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();
#[btf_map(name = "refusals")]
pub(crate) static REFUSALS: PerCpuArray<u64, { Refuser::PLACES as usize }> = PerCpuArray::new();
#[btf_map(name = "workspace")]
pub(crate) static WORKSPACE: PerCpuArray<CpuState, 1> = PerCpuArray::new();
#[btf_map(name = "wakeups")]
pub(crate) static WAKEUPS: RingBuf<u64, 4096> = RingBuf::new();
#[btf_map(name = "captured")]
pub(crate) static CAPTURED: PerfEventArray = PerfEventArray::new();
#[btf_map(name = "capture_state")]
pub(crate) static CAPTURE_STATE: PerCpuArray<CaptureState, 1> = PerCpuArray::new();
#[btf_map(name = "allow_v4")]
pub(crate) static ALLOW_V4: LpmTrie<[u8; 4], ListEntry, LIST_CAPACITY> = LpmTrie::new();
#[btf_map(name = "allow_v6")]
pub(crate) static ALLOW_V6: LpmTrie<[u8; 16], ListEntry, LIST_CAPACITY> = LpmTrie::new();
#[btf_map(name = "deny_v4")]
pub(crate) static DENY_V4: LpmTrie<[u8; 4], ListEntry, LIST_CAPACITY> = LpmTrie::new();
#[btf_map(name = "deny_v6")]
pub(crate) static DENY_V6: LpmTrie<[u8; 16], ListEntry, LIST_CAPACITY> = LpmTrie::new();
#[btf_map(name = "feed_allow_v4")]
pub(crate) static FEED_ALLOW_V4: LpmTrie<[u8; 4], FeedEntry, FEED_CAPACITY> = LpmTrie::new();
#[btf_map(name = "feed_allow_v6")]
pub(crate) static FEED_ALLOW_V6: LpmTrie<[u8; 16], FeedEntry, FEED_CAPACITY> = LpmTrie::new();
#[btf_map(name = "feed_deny_v4")]
pub(crate) static FEED_DENY_V4: LpmTrie<[u8; 4], FeedEntry, FEED_CAPACITY> = LpmTrie::new();
#[btf_map(name = "feed_deny_v6")]
pub(crate) static FEED_DENY_V6: LpmTrie<[u8; 16], FeedEntry, FEED_CAPACITY> = LpmTrie::new();
