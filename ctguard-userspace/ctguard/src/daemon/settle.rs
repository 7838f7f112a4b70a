//! What a start writes into the maps before the first packet.

use ctguard_ebpf::{
    known_flows,
    layout::{CookieKey, Environment, FLOW_KINDS, HashKey, Interface, maps},
};
use log::warn;
use rustix::rand::{GetRandomFlags, getrandom};

use super::{StartError, StartOptions};
use ctguard_kernel::{
    conntrack::Timeouts,
    maps::{GuardMaps, Slot},
    net::{Link, station},
};
use ctguard_settings::{DEFAULT_POLICY, InterfaceSettings, Settings};
use ctguard_units::{CoarseClock, ceilings};

/// The `environment` map: the keys stay as long as the maps live.
pub(super) fn environment(
    maps: &GuardMaps,
    fresh: bool,
    coarse: CoarseClock,
    timeouts: &Timeouts,
    learning_until: u64,
) -> Result<Environment, StartError> {
    let old = maps.environment()?;
    // The flow cache answers for the first time, or conntrack does.
    let learns_anew = fresh || old.lookup_options_bytes != 0 || learning_until == 0;
    let (source_key, tuple_key) =
        if fresh { (hash_key()?, hash_key()?) } else { (old.source_key, old.tuple_key) };
    let cookie_key =
        if fresh { CookieKey { words: [random()?, random()?] } } else { old.cookie_key };
    let line_mask = |name| maps.entries(name).map(|lines| lines - 1);
    let mut environment = Environment {
        cookie_key,
        prefix_line_mask: line_mask(maps::BUCKETS_PREFIX)?,
        service_line_mask: line_mask(maps::BUCKETS_SERVICE)?,
        retry_line_mask: line_mask(maps::RETRIES)?,
        answered_line_mask: line_mask(maps::ANSWERED)?,
        reset_line_mask: line_mask(maps::RESETS)?,
        known_source_line_mask: line_mask(maps::SOURCES)?,
        source_line_mask: line_mask(maps::BUCKETS_SOURCE)?,
        flow_line_mask: line_mask(maps::FLOW_CACHE)?,
        known_words: maps.entries(maps::KNOWN_FLOWS)? / known_flows::GENERATIONS,
        tcp_loose: u32::from(timeouts.tcp_loose()),
        lists_in_use: old.lists_in_use,
        lookup_options_bytes: old.lookup_options_bytes,
        detection: old.detection,
        known_generation: old.known_generation,
        known_complete: old.known_complete,
        known_turned_at: old.known_turned_at,
        learning_until: if learns_anew { learning_until } else { old.learning_until },
        flow_timeouts: [1; FLOW_KINDS],
        ..Environment::unset([source_key, tuple_key])
    };
    coarse.write(&mut environment);
    timeouts.write(coarse, &mut environment);
    Ok(environment)
}

fn hash_key() -> Result<HashKey, StartError> {
    let mut words = [0; 12];
    for word in &mut words {
        *word = random()?;
    }
    // The last one multiplies.
    words[11] |= 1;
    Ok(HashKey { words })
}

fn random() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|error| StartError::Random(error.into()))?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Writes policy and slots, so that they hold for the first packet.
///
/// An interface that a former daemon guarded keeps its own settings, by number or by name.
pub(super) fn settle(
    maps: &mut GuardMaps,
    options: &StartOptions,
    links: &[Link],
    targets: &[Link],
    fresh: bool,
    jiffies_per_second: u32,
    lookup_options_bytes: u32,
) -> Result<(), StartError> {
    let used = maps.interfaces.used()?;
    let former = |link: &Link| {
        let slot = used
            .iter()
            .find(|slot| slot.interface.ifindex == link.index || slot.name() == link.name);
        let unset = Slot { index: 0, interface: Interface::FREE };
        InterfaceSettings { name: link.name.clone(), ..slot.unwrap_or(&unset).settings() }
    };
    let policy = if fresh { DEFAULT_POLICY } else { maps.policy()? };
    let mut settings = Settings { policy, interfaces: targets.iter().map(former).collect() };
    settings.apply(&options.assignments)?;
    if let Some(warning) = settings.zones(lookup_options_bytes)?.warning() {
        warn!("{warning}");
    }
    for (link, InterfaceSettings { overrides, zone, answers, .. }) in
        targets.iter().zip(&settings.interfaces)
    {
        let known = used.iter().find(|slot| slot.interface.ifindex == link.index);
        maps.interfaces.put(Interface {
            ifindex: link.index,
            mode: known.map_or(0, |slot| slot.interface.mode),
            station: station(links, link),
            ceilings: ceilings(&settings.policy.source, overrides, jiffies_per_second),
            name: name_bytes(&link.name),
            overrides: *overrides,
            zone: (*zone).into(),
            answers_nothing: u32::from(!answers),
        })?;
    }
    maps.note_stations()?;
    maps.set_policy(settings.policy)?;
    Ok(maps.note_scopes(&settings.policy)?)
}

/// A name as the `interfaces` map holds it.
pub(super) fn name_bytes(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    // The kernel's own names are 15 bytes at most.
    for (to, from) in bytes.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    bytes
}
