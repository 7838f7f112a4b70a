//! Looks at what sources offer, as the data path counts it.

use std::time::Duration;

use ctguard_ebpf::{
    layout::{OfferedSlot, SourceCells, Tier},
    shared::SharedWord,
};

use crate::{
    control::{OfferedLoad, OfferedRates},
    maps::SourceMemory,
};

/// The counters' reader.
#[derive(Debug, Default)]
pub(super) struct Offered {
    rates: OfferedRates,
}

impl Offered {
    /// Begins to count from now on.
    pub(super) fn begin(&mut self, now: Duration, sources: &SourceMemory) {
        self.rates = OfferedRates::default();
        self.look(now, sources);
    }

    /// What each source asks for, by tier and class.
    pub(super) fn look(&mut self, now: Duration, sources: &SourceMemory) -> Vec<OfferedLoad> {
        let standings = sources.standings();
        let unknown = sources.offered().iter().map(|slot| {
            let OfferedSlot { offered: [tcp, udp, other, _], answered, retried, .. } = slot;
            [tcp, udp, other, answered, retried].map(SharedWord::load)
        });
        let known = standings.zip(sources.cells()).map(|(tier, SourceCells { offered, .. })| {
            let [tcp, udp, other, _] = offered.each_ref().map(SharedWord::load);
            tier.map(|tier: Tier| (tier, [tcp, udp, other]))
        });
        self.rates.observe(now, unknown, known)
    }
}
