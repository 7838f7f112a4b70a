//! Whether this kernel can look up flows in a conntrack zone.

use super::{Key, SettingError, Settings};

/// Bytes of `struct bpf_ct_opts` until Linux 6.9, which have no room for a zone.
const WITHOUT_ZONE_BYTES: u32 = 12;

/// What happens to the zones of the interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Zones {
    /// Each flow is looked up in the zone of its interface.
    Kept,
    /// The flow cache ignores zones, so it mixes flows of these interfaces with others that have the
    /// same addresses and ports.
    Mixed(Vec<String>),
}

impl Settings {
    /// What happens to the zones, given the size of the lookup's options in bytes; 0 if the flow cache
    /// is used instead.
    ///
    /// # Errors
    /// If the kernel's lookup knows the default zone only, it would find the wrong flows.
    pub fn zones(&self, lookup_options_bytes: u32) -> Result<Zones, SettingError> {
        let zoned = || self.interfaces.iter().filter(|interface| interface.zone != 0);
        match lookup_options_bytes {
            0 if zoned().next().is_some() => {
                Ok(Zones::Mixed(zoned().map(|interface| interface.name.clone()).collect()))
            }
            WITHOUT_ZONE_BYTES => zoned().next().map_or(Ok(Zones::Kept), |interface| {
                let key = Key::Zone(interface.name.clone());
                Err(SettingError::ZoneUnknown { key, zone: interface.zone })
            }),
            _ => Ok(Zones::Kept),
        }
    }
}

impl Zones {
    /// What the operator should know, if anything.
    pub fn warning(&self) -> Option<String> {
        match self {
            Self::Kept => None,
            Self::Mixed(interfaces) => Some(format!(
                "the flow cache ignores zones: on {} a packet counts as known if any zone has a flow \
                 with its addresses and ports",
                interfaces.join(", ")
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use ctguard_layout::{CLASSES, Rate};

    use super::*;
    use crate::{DEFAULT_POLICY, InterfaceSettings};

    #[test]
    fn a_zone_is_looked_in_where_the_lookup_takes_one() {
        assert_eq!(settings(5).zones(16), Ok(Zones::Kept));
        assert_eq!(settings(5).zones(16).unwrap().warning(), None);
    }

    #[test]
    fn a_lookup_that_takes_none_refuses_all_but_the_default_zone() {
        let error = settings(5).zones(12).unwrap_err().to_string();
        for part in ["interface.wan0.zone", "zone 5", "Linux 6.10", "flow-cache"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert_eq!(settings(0).zones(12), Ok(Zones::Kept));
    }

    #[test]
    fn the_flow_cache_takes_a_zone_and_says_that_it_means_nothing() {
        let warning = settings(5).zones(0).unwrap().warning().unwrap();
        assert!(warning.contains("on wan0"), "{warning}");
        assert_eq!(settings(0).zones(0), Ok(Zones::Kept));
    }

    fn settings(zone: u16) -> Settings {
        let overrides = [Rate::default(); CLASSES];
        let interface = |name: &str, zone| InterfaceSettings {
            name: name.into(),
            overrides,
            zone,
            answers: true,
        };
        Settings {
            policy: DEFAULT_POLICY,
            interfaces: vec![interface("lan0", 0), interface("wan0", zone)],
        }
    }
}
