//! What the guard needs from its surroundings: maps, conntrack, and the frame.

use super::cpu_state::CpuState;
use crate::{
    challenge::{self, Answering, Reversible},
    classify::Flow,
    flow::FlowLines,
    known_flows::KnownWords,
    layout::{BucketLine, Grant, Interface, Limits, List, MemoryLine, Offered, Policy, RetryLine},
    packet::{Address, Ipv4, Ipv6, Packet},
    sources::SourceSet,
    units::Jiffies,
};

/// The maps that not every packet needs, conntrack and the frame.
pub trait Tables: FlowLines + KnownWords + SourceSet {
    /// The line of a scope's cells at `index`.
    fn bucket_line(&self, scope: Scope, index: u32) -> Option<&BucketLine>;
    /// The line at `index` of a memory.
    fn memory_line(&self, memory: Memory, index: u32) -> Option<&MemoryLine>;
    /// The line at `index` of the senders that may come again.
    fn retry_line(&self, index: u32) -> Option<&RetryLine>;
    /// Whether the list holds the IPv4 address, not expired at `now`.
    fn lists_ipv4(&self, list: List, address: Ipv4, now: Jiffies) -> bool;
    /// Whether the list holds the IPv6 address, not expired at `now`.
    fn lists_ipv6(&self, list: List, address: Ipv6, now: Jiffies) -> bool;
    /// The interface that the packet arrived on.
    fn interface(&self) -> Option<&Interface>;
    /// What the operator set.
    fn policy(&self) -> Option<&Policy>;
    /// The grant.
    fn grant(&self) -> Option<&Grant>;
    /// What the controller found.
    fn limits(&self) -> Option<&Limits>;
    /// This CPU's state.
    fn cpu_state(&self) -> &CpuState;
    /// Asks conntrack about the flow of a TCP or UDP packet.
    fn ask_conntrack<A: Address>(&self, packet: &Packet<A>, flow: Flow) -> Answer;
    /// Reads source and destination of the packet from the frame again.
    fn addresses<A: Answering>(&self) -> Option<(A, A)>;
    /// Overwrites a SYN with a challenge ACK; false if that failed.
    fn answer<A: Answering>(&self, answer: &challenge::Answer<A>) -> bool;
    /// Overwrites a DNS query with a truncated reply; false if it is none, or that failed.
    fn truncate<A: Reversible>(&self) -> bool;
    /// Whether this new flow is sampled for the offered load.
    fn samples(&self) -> bool;
    /// Keeps a packet that opens a flow or is denied for the trace.
    fn show<A: Address>(&self, packet: &Packet<A>, now: Jiffies);
    /// Notes offered load of a source.
    fn note_offered(&self, line: u32, offered: Offered);
}

/// What cells count for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A source.
    Source,
    /// A prefix of sources.
    Prefix,
    /// A destination address, protocol and port.
    Service,
}

/// What is remembered for seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Tuples that answered a challenge.
    Answered,
    /// Sources that were sent challenge ACKs.
    Challenged,
}

/// What conntrack says about a packet's flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has an entry of the flow, so the packet makes none.
    Tracked,
    /// It has none.
    Untracked,
    /// It was not asked, or the lookup failed.
    Silent,
}
