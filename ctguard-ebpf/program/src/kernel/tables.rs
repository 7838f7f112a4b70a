//! The maps, conntrack and the frame, as the data path sees them.

use aya_ebpf::{
    btf_maps::{LpmTrie, lpm_trie::Key},
    programs::XdpContext,
};
use ctguard_datapath::{
    challenge::{self, Answering, Reversible},
    classify::Flow,
    flow::FlowLines,
    guard::{Answer, CpuState, Memory, Offered, Scope, Tables},
    known_flows::KnownWords,
    packet::{Address, Ipv4, Ipv6, Packet},
    sources::SourceSet,
    verifier::OpaqueZero,
};
use ctguard_layout::{
    BucketLine, Environment, FeedEntry, FlowLine, Grant, Interface, Limits, List, ListEntry,
    MemoryLine, Policy, RetryLine, SourceCells, SourceLine, shared::Shared, units::Jiffies,
};

use ctguard_program::answer;

use super::{
    conntrack::{self, Question},
    interface, maps, trace,
};

/// What a packet that leaves needs.
pub(crate) struct KernelFlows;

impl FlowLines for KernelFlows {
    #[inline(always)]
    fn flow_line(&self, index: u32) -> Option<&FlowLine> {
        maps::FLOW_CACHE.get(index)
    }
}

impl KnownWords for KernelFlows {
    #[inline(always)]
    fn known_word(&self, index: u32) -> Option<&Shared> {
        maps::KNOWN_FLOWS.get(index)
    }
}

/// What a packet that arrives needs.
pub(crate) struct KernelTables<'c> {
    pub(crate) context: &'c XdpContext,
    pub(crate) environment: &'static Environment,
    pub(crate) cpu_state: &'static CpuState,
}

impl FlowLines for KernelTables<'_> {
    #[inline(always)]
    fn flow_line(&self, index: u32) -> Option<&FlowLine> {
        maps::FLOW_CACHE.get(index)
    }
}

impl KnownWords for KernelTables<'_> {
    #[inline(always)]
    fn known_word(&self, index: u32) -> Option<&Shared> {
        maps::KNOWN_FLOWS.get(index)
    }
}

impl SourceSet for KernelTables<'_> {
    #[inline(always)]
    fn source_line(&self, index: u32) -> Option<&SourceLine> {
        maps::SOURCES.get(index)
    }

    #[inline(always)]
    fn source_cells(&self, slot: u32) -> Option<&SourceCells> {
        maps::SOURCE_CELLS.get(slot)
    }
}

impl Tables for KernelTables<'_> {
    #[inline(always)]
    fn cpu_state(&self) -> &CpuState {
        self.cpu_state
    }

    #[inline(always)]
    fn ask_conntrack<A: Address>(&self, packet: &Packet<A>, flow: Flow) -> Answer {
        let question = Question {
            protocol: packet.protocol,
            ports: flow.key,
            zone: self.interface().map_or(0, |interface| interface.zone),
            options_bytes: self.environment.daemon.lookup_options_bytes,
        };
        conntrack::ask(self.context, packet.source, packet.destination, question)
    }

    #[inline(always)]
    fn interface(&self) -> Option<&Interface> {
        interface::find(self.context)
    }

    #[inline(always)]
    fn policy(&self) -> Option<&Policy> {
        maps::POLICY.get(0)
    }

    #[inline(always)]
    fn grant(&self) -> Option<&Grant> {
        maps::GRANT.get(0)
    }

    #[inline(always)]
    fn samples(&self) -> bool {
        self.cpu_state.samples()
    }

    #[inline(always)]
    fn limits(&self) -> Option<&Limits> {
        maps::LIMITS.get(0)
    }

    #[inline(always)]
    fn bucket_line(&self, scope: Scope, index: u32) -> Option<&BucketLine> {
        match scope {
            Scope::Source => maps::BUCKETS_SOURCE.get(index),
            Scope::Prefix => maps::BUCKETS_PREFIX.get(index),
            Scope::Service => maps::BUCKETS_SERVICE.get(index),
        }
    }

    #[inline(always)]
    fn memory_line(&self, memory: Memory, index: u32) -> Option<&MemoryLine> {
        match memory {
            Memory::Answered => maps::ANSWERED.get(index),
            Memory::Challenged => maps::CHALLENGED.get(index),
        }
    }

    #[inline(always)]
    fn retry_line(&self, index: u32) -> Option<&RetryLine> {
        maps::RETRIES.get(index)
    }

    #[inline(always)]
    fn addresses<A: Answering>(&self) -> Option<(A, A)> {
        A::read(answer::frame(self.context).reader(OpaqueZero::new(self.environment.fixed.zero)))
    }

    #[inline(always)]
    fn answer<A: Answering>(&self, answer: &challenge::Answer<A>) -> bool {
        let zero = OpaqueZero::new(self.environment.fixed.zero);
        answer::write(self.context, zero, answer).is_some()
    }

    #[inline(always)]
    fn truncate<A: Reversible>(&self) -> bool {
        let zero = OpaqueZero::new(self.environment.fixed.zero);
        answer::truncate::<A>(self.context, zero).is_some()
    }

    #[inline(always)]
    fn lists_ipv4(&self, list: List, address: Ipv4, now: Jiffies) -> bool {
        let key = Key::new(32, address.0.to_be_bytes());
        let ends = match list {
            List::AllowV4 => own_end(&maps::ALLOW_V4, &key),
            List::DenyV4 => own_end(&maps::DENY_V4, &key),
            List::FeedAllowV4 => feeds_end(&maps::FEED_ALLOW_V4, &key),
            List::FeedDenyV4 => feeds_end(&maps::FEED_DENY_V4, &key),
            List::AllowV6 | List::DenyV6 | List::FeedAllowV6 | List::FeedDenyV6 => None,
        };
        ends.is_some_and(|at| at == 0 || now < Jiffies(at))
    }

    #[inline(always)]
    fn lists_ipv6(&self, list: List, address: Ipv6, now: Jiffies) -> bool {
        let key = Key::new(128, address.to_bytes());
        let ends = match list {
            List::AllowV6 => own_end(&maps::ALLOW_V6, &key),
            List::DenyV6 => own_end(&maps::DENY_V6, &key),
            List::FeedAllowV6 => feeds_end(&maps::FEED_ALLOW_V6, &key),
            List::FeedDenyV6 => feeds_end(&maps::FEED_DENY_V6, &key),
            List::AllowV4 | List::DenyV4 | List::FeedAllowV4 | List::FeedDenyV4 => None,
        };
        ends.is_some_and(|at| at == 0 || now < Jiffies(at))
    }

    #[inline(always)]
    fn show<A: Address>(&self, packet: &Packet<A>, now: Jiffies) {
        trace::note(packet, now);
    }

    #[inline(always)]
    fn note_offered(&self, line: u32, offered: Offered) {
        let Some(slot) = maps::OFFERED_SOURCE.get(line) else { return };
        slot.note(&offered);
    }
}

impl KernelTables<'_> {
    /// The feeds that deny the source of a packet that is denied, a bit for each; none if the
    /// operator denies it. `None` if the frame's first buffer ends before its source.
    ///
    /// Only such a packet pays for a second look: if the first one were noted, the verifier would
    /// find fewer states equal.
    #[inline(always)]
    pub(crate) fn refusing_feeds(&self, is_ipv4: bool, now: Jiffies) -> Option<u32> {
        Some(if is_ipv4 {
            let (source, _) = self.addresses::<Ipv4>()?;
            if self.lists_ipv4(List::DenyV4, source, now) {
                return Some(0);
            }
            feeds_of(&maps::FEED_DENY_V4, &Key::new(32, source.0.to_be_bytes()))
        } else {
            let (source, _) = self.addresses::<Ipv6>()?;
            if self.lists_ipv6(List::DenyV6, source, now) {
                return Some(0);
            }
            feeds_of(&maps::FEED_DENY_V6, &Key::new(128, source.to_bytes()))
        })
    }
}

#[inline(always)]
fn feeds_of<K, const N: usize>(list: &LpmTrie<K, FeedEntry, N>, key: &Key<K>) -> u32 {
    list.get(key).map_or(0, |&FeedEntry { feeds, .. }| feeds)
}

/// When the longest prefix ends that holds the address.
#[inline(always)]
fn own_end<K, const N: usize>(list: &LpmTrie<K, ListEntry, N>, key: &Key<K>) -> Option<u64> {
    list.get(key).map(|&ListEntry { expires_at }| expires_at)
}

/// The same of feeds.
#[inline(always)]
fn feeds_end<K, const N: usize>(list: &LpmTrie<K, FeedEntry, N>, key: &Key<K>) -> Option<u64> {
    list.get(key).map(|&FeedEntry { expires_at, .. }| expires_at)
}
