//! What every packet needs, in parts by who writes them. All in one map, whose address the loader writes
//! into the program.

use super::{
    capture::CaptureOrder,
    interface::Ceiling,
    policy::{CLASS_SLOTS, Class},
};

/// The random key of a hash (see `hash`), drawn when the maps are made.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashKey {
    /// One for the start, one for each 32-bit word, one odd one for the end.
    pub words: [u64; 12],
}

/// The random key of the cookies (see `challenge`), drawn when the maps are made.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CookieKey {
    /// The two halves of a `SipHash` key.
    pub words: [u64; 2],
}

/// The kinds of flows by conntrack's timeouts. TCP has a timeout for each of a slot's four states;
/// the others have four equal entries of the table.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowKind {
    /// TCP before the inside has answered: the lesser of `syn_sent` and `syn_recv`.
    TcpOpening = 0,
    /// TCP after a FIN or RST: the least of `fin_wait`, `close_wait`, `last_ack`, `time_wait`.
    TcpClosing = 1,
    /// TCP, established: the least of `established`, `max_retrans` and `unacknowledged`, because
    /// the data path cannot see which of them holds.
    TcpEstablished = 2,
    /// As [`Self::TcpClosing`], established before.
    TcpClosingEstablished = 3,
    /// UDP, and UDP-Lite where it has a tracker.
    Udp = 4,
    /// ICMP and ICMPv6.
    Icmp = 8,
    /// GRE.
    Gre = 12,
    /// SCTP and DCCP where they have a tracker: the least of their states.
    Sctp = 16,
    /// Every other protocol.
    Generic = 20,
    /// TCP after a RST, whatever the state.
    TcpReset = 24,
}

/// Entries of [`DaemonFacts::flow_timeouts`].
pub const FLOW_KINDS: usize = 32;

/// The `environment` map's only value. Nearly every packet reads three cache lines of it: the end
/// of `operator` with the start of `fixed`, and the start of `daemon`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Written under the lock for settings.
    pub operator: OperatorLimits,
    /// Written once, when the maps are made.
    pub fixed: Fixed,
    /// Written by the daemon alone.
    pub daemon: DaemonFacts,
    /// Written by `ctguard capture` alone.
    pub capture: CaptureOrder,
}

/// The operator's limits besides those of sources.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperatorLimits {
    /// Limits per prefix, by class; an interval of 0 is none.
    pub prefix: [Ceiling; CLASS_SLOTS],
    /// Limits per service, by class; an interval of 0 is none.
    pub service: [Ceiling; CLASS_SLOTS],
    /// A bit for each scope that has limits: [`Self::PREFIX`], [`Self::SERVICE`].
    pub scopes_in_use: u32,
    /// A bit per [`super::List`] that has entries; the data path skips the others.
    pub lists_in_use: u32,
    /// Challenges that may be answered in each unit of the times of retries; 0 is as many as
    /// [`DaemonFacts::answers`] says.
    pub answers: u32,
    /// Zero.
    pub reserved: u32,
}

/// Keys and sizes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fixed {
    /// Zero, hidden from the verifier (see `verifier`).
    pub zero: u32,
    /// Lines of `buckets_source` less one; the number of lines is a power of two.
    pub source_line_mask: u32,
    /// The same for `flow_cache`.
    pub flow_line_mask: u32,
    /// Words of each generation of `known_flows`.
    pub known_words: u32,
    /// Key of the hash of tuples.
    pub tuple_key: HashKey,
    /// Key of the hash of sources.
    pub source_key: HashKey,
    /// Key of the challenge's cookies.
    pub cookie_key: CookieKey,
    /// Lines of `buckets_prefix` less one; the number of lines is a power of two.
    pub prefix_line_mask: u32,
    /// The same for `buckets_service`.
    pub service_line_mask: u32,
    /// The same for `retries`.
    pub retry_line_mask: u32,
    /// The same for `answered`.
    pub answered_line_mask: u32,
    /// The same for `challenged`.
    pub challenged_line_mask: u32,
    /// The same for `sources`.
    pub known_source_line_mask: u32,
}

/// Facts of the kernel and the network, and the state of the known-flows filter.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DaemonFacts {
    /// Jiffies in a second on this kernel.
    pub jiffies_per_second: u32,
    /// Coarse time is jiffies shifted right by this much: about a second.
    pub coarse_shift: u32,
    /// If the heartbeat is older than this many jiffies, the daemon is dead.
    pub heartbeat_patience_jiffies: u32,
    /// 1 while `nf_conntrack_tcp_loose` is on: an ACK of an unknown connection makes an entry.
    pub tcp_loose: u32,
    /// For how long a repeated SYN is not charged again, in coarse units.
    pub repeat_window_coarse: u32,
    /// 1 while any interface has `stations`.
    pub stations_in_use: u32,
    /// Bytes of the kernel's `struct bpf_ct_opts` (12 or 16); 0 if conntrack is not asked.
    pub lookup_options_bytes: u32,
    /// The number of a [`super::Detection`].
    pub detection: u32,
    /// The generation of `known_flows` that is asked: 0 or 1.
    pub known_generation: u32,
    /// 1 once that generation has held the whole table: a tuple that is not in it is new.
    pub known_complete: u32,
    /// Cookies change every 2^this jiffies, some four seconds.
    pub cookie_shift: u32,
    /// The unit of the times of retries is 2^this jiffies, an eighth of a second or less.
    pub memory_shift: u32,
    /// A refused sender that comes again is admitted if its batch began at least this many units ago.
    pub retry_after: u32,
    /// If it began more than this many units ago, the sender counts as refused for the first time.
    pub retry_before: u32,
    /// Senders join a batch that began up to this many units ago.
    pub retry_joined: u32,
    /// Nobody takes the place of a batch that began up to this many units ago.
    pub retry_kept: u32,
    /// A tuple that answered a challenge may open its flow for this many coarse units.
    pub answered_life_coarse: u32,
    /// A source is sent one challenge ACK in so many jiffies.
    pub challenge_interval: u32,
    /// Challenges that the links can take in each unit of the times of retries; 0 is not known.
    pub answers: u32,
    /// A bit for each protocol that this kernel tracks by addresses alone: see
    /// [`Self::port_bit_as_sign`].
    pub without_ports: u32,
    /// Jiffies of the filter's last swap, after a complete dump of the table; 0 before the first.
    pub known_turned_at: u64,
    /// Jiffies until which TCP segments of unknown connections pass and make them known: the maps
    /// are new and the table has not been dumped yet, and older connections must go on.
    pub learning_until: u64,
    /// Timeouts by [`FlowKind`], in coarse units, below 2^20.
    pub flow_timeouts: [u32; FLOW_KINDS],
}

impl OperatorLimits {
    /// The prefix scope has limits.
    pub const PREFIX: u32 = 1;
    /// The service scope has limits.
    pub const SERVICE: u32 = 2;
}

impl DaemonFacts {
    /// Sets the timeout of one of TCP's states, or of all states of another kind.
    pub fn set_flow_timeout(&mut self, kind: FlowKind, coarse_units: u32) {
        let states = if (kind as usize) < FlowKind::Udp as usize { 1 } else { 4 };
        for timeout in self.flow_timeouts.iter_mut().skip(kind as usize).take(states) {
            *timeout = coarse_units;
        }
    }

    /// Says which protocols this kernel tracks by addresses alone, although they have ports or calls.
    pub fn set_without_ports(&mut self, protocols: &[u8]) {
        self.without_ports = protocols.iter().fold(0, |bits, number| bits | 1 << (*number & 31));
    }

    /// Negative if this kernel tracks a protocol by addresses alone. Asked about SCTP, DCCP,
    /// UDP-Lite and GRE, whose bits differ; other protocols without ports may share them.
    #[inline(always)]
    pub const fn port_bit_as_sign(&self, protocol: u8) -> i64 {
        ((self.without_ports as u64) << (63 - (protocol & 31))).cast_signed()
    }
}

impl Environment {
    /// Only the keys are set.
    pub fn unset([source_key, tuple_key]: [HashKey; 2]) -> Self {
        let fixed = Fixed { tuple_key, source_key, ..Fixed::default() };
        Self { fixed, ..Self::default() }
    }

    /// Whether conntrack is asked about flows of this class: its function takes TCP and UDP.
    #[inline(always)]
    pub const fn asks_conntrack(&self, class: Class) -> bool {
        self.daemon.lookup_options_bytes != 0 && !matches!(class, Class::Other)
    }

    /// The timeout of a flow of `kind`, in coarse units.
    #[inline(always)]
    pub const fn flow_timeout(&self, kind: FlowKind) -> u32 {
        self.flow_timeout_at(kind as u32, 0)
    }

    /// The timeout of a flow in a state, which is below four; `kind` is the number of a [`FlowKind`].
    #[inline(always)]
    pub const fn flow_timeout_at(&self, kind: u32, state: u32) -> u32 {
        self.daemon.flow_timeouts[kind.wrapping_add(state) as usize & (FLOW_KINDS - 1)]
    }
}

// Each part is written in words of 64 bits.
const _: () = assert!(size_of::<OperatorLimits>() == 144);
const _: () = assert!(size_of::<Fixed>() == 248);
const _: () = assert!(size_of::<DaemonFacts>() == 224);
const _: () = assert!(core::mem::offset_of!(Environment, daemon) == 392);
const _: () = assert!(core::mem::offset_of!(Environment, capture) == 616);
