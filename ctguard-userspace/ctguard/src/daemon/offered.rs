//! Looks at what sources offer, as the data path counts it.

use std::time::Duration;

use ctguard_control::{OfferedLoad, OfferedRates};
use ctguard_kernel::maps::SourceMemory;

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
        self.rates.look(now, sources.offered(), sources.lines(), sources.cells())
    }
}
