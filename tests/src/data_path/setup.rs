//! What the loader and the daemon would write into the maps, set by hand.

use anyhow::{Context as _, Result};
use aya::{
    Pod,
    maps::{Array, LpmTrie, MapData, lpm_trie::Key},
};
use ctguard_datapath::sources;
use ctguard_layout as layout;
use ctguard_layout::{
    CLASS_SLOTS, CLASSES, Ceiling, DaemonFacts, Environment, FLOW_KINDS, Fixed, FlowKind, HashKey,
    Interface, LAYOUT_VERSION, Limits, List, Policy, Rate, Stage, units::Ticks,
};
use ctguard_units::sizes::{ANSWERED_LINES, CHALLENGED_LINES};

use super::DataPath;

/// The device that a test run says its packets arrived on: the loopback of any namespace.
const LOOPBACK: u32 = 1;

#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Plain<T>(pub(super) T);

// SAFETY: used below for the `repr(C)` types of the layout, which hold integers alone and name
// their padding.
unsafe impl<T: Copy + 'static> Pod for Plain<T> {}

const fn map_of(list: List) -> &'static str {
    match list {
        List::AllowV4 => layout::maps::ALLOW_V4,
        List::AllowV6 => layout::maps::ALLOW_V6,
        List::DenyV4 => layout::maps::DENY_V4,
        List::DenyV6 => layout::maps::DENY_V6,
        List::FeedAllowV4 => layout::maps::FEED_ALLOW_V4,
        List::FeedAllowV6 => layout::maps::FEED_ALLOW_V6,
        List::FeedDenyV4 => layout::maps::FEED_DENY_V4,
        List::FeedDenyV6 => layout::maps::FEED_DENY_V6,
    }
}

impl DataPath {
    /// Sets everything up as it was loaded: lists empty, a whole grant, a daemon that lives. Each
    /// `start` has hash keys of its own, so nothing is known of packets that came before another.
    pub fn reset(&mut self, start: u64) -> Result<()> {
        self.start = start;
        self.set_policy(|_| {})?;
        self.set_environment(|_| {})?;
        self.set_interface(|_| {})?;
        for list in [layout::maps::ALLOW_V4, layout::maps::DENY_V4] {
            self.clear::<[u8; 4], [u32; 2]>(list)?;
        }
        for list in [layout::maps::ALLOW_V6, layout::maps::DENY_V6] {
            self.clear::<[u8; 16], [u32; 2]>(list)?;
        }
        for list in [layout::maps::FEED_ALLOW_V4, layout::maps::FEED_DENY_V4] {
            self.clear::<[u8; 4], [u32; 3]>(list)?;
        }
        for list in [layout::maps::FEED_ALLOW_V6, layout::maps::FEED_DENY_V6] {
            self.clear::<[u8; 16], [u32; 3]>(list)?;
        }
        let grant = self.grant();
        for (tier, allowance) in grant.allowances.iter().enumerate() {
            grant.admitted[tier].0.store(0);
            allowance.limit.store(self.setup.grant);
            allowance.wake_at.store(u64::MAX);
            grant.fallback[tier].arrival.store(0);
            grant.fallback[tier].interval.store(0);
            grant.fallback[tier].tolerance.store(0);
        }
        grant.exempt.arrival.store(0);
        grant.woken_at.store(0);
        self.beat()
    }

    /// Changes the policy from the default of tests.
    pub fn set_policy(&mut self, change: impl FnOnce(&mut Policy)) -> Result<()> {
        let mut policy = Policy {
            layout_version: LAYOUT_VERSION,
            switches: 0,
            target_ppm: 850_000,
            source: [Rate { flows_per_second: self.setup.rate, burst: self.setup.burst }; CLASSES],
            fallback_flows_per_second: 0,
            floor: [1; CLASSES],
            prefix: [Rate::default(); CLASSES],
            service: [Rate::default(); CLASSES],
            adaptive_ppm: [0; 2],
            reclaim_after: [0; 6],
            overload_after: 0,
            overload_for: 0,
            own_ceilings: 0,
            answers_per_second: 0,
        };
        change(&mut policy);
        self.write(layout::maps::POLICY, 0, policy)
    }

    /// Changes the environment from the default of tests.
    pub fn set_environment(&mut self, change: impl FnOnce(&mut Environment)) -> Result<()> {
        let words = std::array::from_fn(|word| {
            (12 * self.start + word as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
        });
        let key = HashKey { words };
        let fixed = Fixed {
            source_key: key,
            tuple_key: key,
            source_line_mask: self.setup.source_lines - 1,
            flow_line_mask: self.setup.flow_lines - 1,
            known_words: self.setup.known_words,
            answered_line_mask: ANSWERED_LINES - 1,
            challenged_line_mask: CHALLENGED_LINES - 1,
            known_source_line_mask: sources::LINES - 1,
            ..Fixed::default()
        };
        let daemon = DaemonFacts {
            jiffies_per_second: 1000,
            coarse_shift: 10,
            heartbeat_patience_jiffies: 2000,
            lookup_options_bytes: self.options_bytes,
            tcp_loose: 1,
            repeat_window_coarse: 3,
            cookie_shift: 11,
            answered_life_coarse: 35,
            challenge_interval: 100,
            flow_timeouts: [30; FLOW_KINDS],
            ..DaemonFacts::default()
        };
        let mut environment = Environment { fixed, daemon, ..Environment::default() };
        environment.daemon.set_flow_timeout(FlowKind::TcpOpening, 60);
        environment.daemon.set_flow_timeout(FlowKind::TcpEstablished, 300);
        environment.daemon.set_flow_timeout(FlowKind::TcpReset, 10);
        change(&mut environment);
        self.write(layout::maps::ENVIRONMENT, 0, environment)
    }

    /// Sets the stage of every class, and tiers as the daemon uses them then.
    pub fn set_stage(&mut self, stage: Stage) -> Result<()> {
        let stages = [stage as u32; CLASS_SLOTS];
        let tiers_in_use = u32::from(stage != Stage::Calm);
        let limits = Limits { stages, tiers_in_use, ..Limits::default() };
        self.write(layout::maps::LIMITS, 0, limits)
    }

    /// Changes the interface from the default of tests.
    pub fn set_interface(&mut self, change: impl FnOnce(&mut Interface)) -> Result<()> {
        let interval = Ticks(1000 * Ticks::PER_JIFFY / u64::from(self.setup.rate));
        let tolerance = Ticks(interval.0 * u64::from(self.setup.burst - 1));
        let mut interface = Interface {
            ifindex: LOOPBACK,
            mode: Interface::NATIVE,
            ceilings: [Ceiling { interval, tolerance }; CLASS_SLOTS],
            ..Interface::FREE
        };
        change(&mut interface);
        self.write(layout::maps::INTERFACES, LOOPBACK, interface)
    }

    /// Puts an IPv4 prefix on a list.
    pub fn list_ipv4(
        &mut self,
        list: List,
        address: [u8; 4],
        bits: u32,
        expires: u64,
    ) -> Result<()> {
        self.insert(list, Key::new(bits, address), expires)
    }

    /// Puts an IPv6 prefix on a list.
    pub fn list_ipv6(
        &mut self,
        list: List,
        address: [u8; 16],
        bits: u32,
        expires: u64,
    ) -> Result<()> {
        self.insert(list, Key::new(bits, address), expires)
    }

    fn clear<A: Pod, V: Pod>(&mut self, list: &str) -> Result<()> {
        let map = self.object.map_mut(list).with_context(|| format!("no map {list}"))?;
        let mut trie: LpmTrie<_, A, V> = LpmTrie::try_from(map)?;
        let keys = trie.keys().collect::<Result<Vec<_>, _>>()?;
        keys.iter().try_for_each(|key| Ok(trie.remove(key)?))
    }

    fn insert<A: Pod>(&mut self, list: List, key: Key<A>, expires: u64) -> Result<()> {
        let [low, high] = [u32::try_from(expires & 0xffff_ffff)?, u32::try_from(expires >> 32)?];
        let name = map_of(list);
        let map = self.object.map_mut(name).with_context(|| format!("no map {name}"))?;
        let inserted = if name.starts_with("feed_") {
            LpmTrie::<_, A, [u32; 3]>::try_from(map)?.insert(&key, [low, high, 1], 0)
        } else {
            LpmTrie::<_, A, [u32; 2]>::try_from(map)?.insert(&key, [low, high], 0)
        };
        inserted.with_context(|| format!("cannot add to {name}"))
    }

    fn write<T: Copy + 'static>(&mut self, name: &str, index: u32, value: T) -> Result<()> {
        let map = self.object.map_mut(name).with_context(|| format!("no map {name}"))?;
        let mut array: Array<&mut MapData, Plain<T>> = Array::try_from(map)?;
        array.set(index, Plain(value), 0).with_context(|| format!("cannot write {name}"))
    }
}
