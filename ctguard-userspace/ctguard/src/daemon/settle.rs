//! Writes keys, policy and interfaces into the maps before the first packet.

use ctguard_datapath::{known_flows, sources};
use ctguard_layout::{CookieKey, Fixed, HashKey, maps};
use log::warn;
use rustix::rand::{GetRandomFlags, getrandom};

use super::{StartError, StartOptions, targets::Targets};
use crate::foreign::Foreign;
use ctguard_kernel::{
    maps::{GuardMaps, SettingsWriter},
    net::{Link, Surroundings},
};
use ctguard_settings::{InterfaceSettings, Settings};

pub(super) fn fixed(maps: &GuardMaps) -> Result<Fixed, StartError> {
    let line_mask = |name| maps.entries(name).map(|lines| lines - 1);
    Ok(Fixed {
        zero: 0,
        source_line_mask: line_mask(maps::BUCKETS_SOURCE)?,
        flow_line_mask: line_mask(maps::FLOW_CACHE)?,
        known_words: maps.entries(maps::KNOWN_FLOWS)? / known_flows::GENERATIONS,
        tuple_key: hash_key()?,
        source_key: hash_key()?,
        cookie_key: CookieKey { words: [random()?, random()?] },
        prefix_line_mask: line_mask(maps::BUCKETS_PREFIX)?,
        service_line_mask: line_mask(maps::BUCKETS_SERVICE)?,
        retry_line_mask: line_mask(maps::RETRIES)?,
        answered_line_mask: line_mask(maps::ANSWERED)?,
        challenged_line_mask: line_mask(maps::CHALLENGED)?,
        known_source_line_mask: sources::LINES - 1,
    })
}

fn hash_key() -> Result<HashKey, StartError> {
    let mut words = [0; 12];
    for word in &mut words {
        *word = random()?;
    }
    // The multiplier must be odd.
    words[11] |= 1;
    Ok(HashKey { words })
}

fn random() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|error| StartError::cannot("draw random numbers")(error.into()))?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Settings that are kept are those of an interface by index or by name.
pub(super) fn settle(
    writer: &SettingsWriter<'_>,
    options: &StartOptions,
    around: &Surroundings,
    targets: &Targets,
    fresh: bool,
    lookup_options_bytes: u32,
) -> Result<(), StartError> {
    let Targets { links, absent, .. } = targets;
    let keeps = options.keeps_settings(fresh);
    let of_link = |(position, link): (usize, &Link)| {
        if keeps || targets.is_spared(position) {
            writer.interface_settings(link.index, &link.name)
        } else {
            InterfaceSettings::unset(&link.name)
        }
    };
    // Those of interfaces that come later are checked, too.
    let of_absent = absent.iter().map(|name| {
        const NO_INDEX: u32 = 0;
        if keeps {
            writer.interface_settings(NO_INDEX, name)
        } else {
            InterfaceSettings::unset(name)
        }
    });
    let mut settings = Settings::of_new_guard([]);
    settings.interfaces = links.iter().enumerate().map(of_link).chain(of_absent).collect();
    if keeps {
        settings.policy = writer.settings().policy;
    }
    let foreign = Foreign::of(&options.interfaces, !absent.is_empty());
    options.config.apply_to(&mut settings, foreign)?;
    settings.apply(&foreign.own(&options.assignments, &settings, options.config.interfaces()))?;
    if let Some(warning) = settings.zone_warning(lookup_options_bytes)? {
        warn!("{warning}");
    }
    writer.apply(&settings);
    for (link, own) in links.iter().zip(&settings.interfaces) {
        writer.add_interface(around, link, own)?;
    }
    writer.note_stations();
    Ok(())
}
