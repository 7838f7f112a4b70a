//! Finds an interface's slot in the `interfaces` map.

use aya_ebpf::programs::XdpContext;
use ctguard_layout::{INTERFACE_PROBES, INTERFACE_SLOTS, Interface};

use super::maps;

/// The interface that the packet arrived on.
#[inline(always)]
pub(crate) fn find(context: &XdpContext) -> Option<&'static Interface> {
    let ifindex = context.ingress_ifindex() as u32;
    for probe in 0..INTERFACE_PROBES {
        let slot = maps::INTERFACES.get(ifindex.wrapping_add(probe) % INTERFACE_SLOTS)?;
        if slot.ifindex == ifindex {
            return Some(slot);
        }
    }
    None
}
