//! The library's view of the maps that are looked into with a key.

use aya_ebpf::{
    btf_maps::{LpmTrie, lpm_trie::Key},
    programs::XdpContext,
};
use ctguard_ebpf::{
    classify::Flow,
    flow::FlowLines,
    guard::{Answer, Offered, Outcome, Tables},
    known_flows::KnownWords,
    layout::{
        BucketLine, Environment, FlowLine, Grant, Interface, List, ListEntry, OfferedSlot, Policy,
    },
    packet::{Address, Ipv4, Ipv6, Packet},
    recent,
    shared::Shared,
    units::Jiffies,
};

use super::{
    conntrack::{self, Question},
    count::CpuCounters,
    interface, maps, trace,
};

/// The flow cache and the known-flows filter.
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

/// The maps, as a packet that arrives needs them.
pub(crate) struct KernelTables<'c> {
    /// The packet.
    pub(crate) context: &'c XdpContext,
    /// What every packet needs.
    pub(crate) environment: &'static Environment,
    /// This CPU's counters.
    pub(crate) counters: CpuCounters,
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

impl Tables for KernelTables<'_> {
    #[inline(always)]
    fn recent(&self, hash: u64) -> Option<&Shared> {
        Some(recent::slot(self.counters.recent(), hash))
    }

    #[inline(always)]
    fn ask_conntrack<A: Address>(&self, packet: &Packet<A>, flow: Flow) -> Answer {
        let question = Question {
            protocol: packet.protocol,
            ports: flow.key,
            zone: self.interface().map_or(0, |interface| interface.zone),
            options_bytes: self.environment.lookup_options_bytes,
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
        self.counters.samples()
    }

    #[inline(always)]
    fn bucket_line(&self, index: u32) -> Option<&BucketLine> {
        maps::BUCKETS_SOURCE.get(index)
    }

    #[inline(always)]
    fn lists_ipv4(&self, list: List, address: Ipv4, now: Jiffies) -> bool {
        let key = Key::new(32, address.0.to_be_bytes());
        match list {
            List::AllowV4 => holds(&maps::ALLOW_V4, &key, now),
            List::DenyV4 => holds(&maps::DENY_V4, &key, now),
            List::AllowV6 | List::DenyV6 => false,
        }
    }

    #[inline(always)]
    fn lists_ipv6(&self, list: List, address: Ipv6, now: Jiffies) -> bool {
        let key = Key::new(128, address.to_bytes());
        match list {
            List::AllowV6 => holds(&maps::ALLOW_V6, &key, now),
            List::DenyV6 => holds(&maps::DENY_V6, &key, now),
            List::AllowV4 | List::DenyV4 => false,
        }
    }

    #[inline(always)]
    fn show<A: Address>(&self, packet: &Packet<A>, outcome: Outcome, now: Jiffies) {
        trace::note(packet, outcome, now);
    }

    #[inline(always)]
    fn note_offered(&self, line: u32, offered: Offered, now: Jiffies) {
        let Some(slot) = maps::OFFERED_SOURCE.get(line) else { return };
        slot.offered.fetch_add(OfferedSlot::SAMPLE);
        if offered.refused {
            slot.refused.fetch_add(OfferedSlot::SAMPLE);
        }
        slot.address.store(offered.address);
        slot.last.store(now.0 << 8 | u64::from(offered.family) << 4 | offered.class as u64);
    }
}

#[inline(always)]
fn holds<K, const CAPACITY: usize>(
    list: &LpmTrie<K, ListEntry, CAPACITY>,
    key: &Key<K>,
    now: Jiffies,
) -> bool {
    match list.get(key) {
        Some(entry) => {
            let expires_at = entry.expires_at;
            expires_at == 0 || now < Jiffies(expires_at)
        }
        None => false,
    }
}
