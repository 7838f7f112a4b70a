//! Whether this kernel can look up flows in a conntrack zone.

use super::{InterfaceSettings, SettingError, Settings};

/// Bytes of `struct bpf_ct_opts` until Linux 6.9, which have no room for a zone.
const WITHOUT_ZONE_BYTES: u32 = 12;

impl Settings {
    /// What the operator should know about the interfaces' zones, given the size of the lookup's
    /// options in bytes; 0 if the flow cache is used instead.
    ///
    /// # Errors
    /// If the kernel's lookup knows the default zone only, it would find the wrong flows.
    pub fn zone_warning(&self, lookup_options_bytes: u32) -> Result<Option<String>, SettingError> {
        let zoned: Vec<_> = self.interfaces.iter().filter(|it| it.zone != 0).collect();
        match (lookup_options_bytes, zoned.first()) {
            (0, Some(_)) => {
                let names: Vec<_> = zoned.iter().map(|interface| &interface.name[..]).collect();
                Ok(Some(format!(
                    "the flow cache ignores zones: on {} a packet counts as known if any zone has a \
                     flow with its addresses and ports",
                    names.join(", ")
                )))
            }
            (WITHOUT_ZONE_BYTES, Some(InterfaceSettings { name, zone, .. })) => {
                Err(SettingError::ZoneUnknown { interface: name.clone(), zone: *zone })
            }
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use ctguard_layout::{CLASSES, Rate};

    use super::*;
    use crate::DEFAULT_POLICY;

    #[test]
    fn a_zone_is_looked_in_where_the_lookup_takes_one() {
        assert_eq!(settings(5).zone_warning(16), Ok(None));
    }

    #[test]
    fn a_lookup_that_takes_none_refuses_all_but_the_default_zone() {
        let error = settings(5).zone_warning(12).unwrap_err().to_string();
        for part in ["interface.wan0.zone", "zone 5", "Linux 6.10", "flow-cache"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert_eq!(settings(0).zone_warning(12), Ok(None));
    }

    #[test]
    fn the_flow_cache_takes_a_zone_and_says_that_it_means_nothing() {
        let warning = settings(5).zone_warning(0).unwrap().unwrap();
        assert!(warning.contains("on wan0"), "{warning}");
        assert_eq!(settings(0).zone_warning(0), Ok(None));
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
