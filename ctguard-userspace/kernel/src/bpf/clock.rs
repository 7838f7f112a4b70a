//! Reads the kernel's jiffies by test runs of the program `ctguard_clock`, the only way to get them.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use aya::programs::{ProgramError, TestRun, TestRunOptions, Xdp};
use aya_obj::programs::XdpAttachType;
use ctguard_layout::units::Jiffies;
use rustix::time::{ClockId, clock_gettime};
use thiserror::Error;

use ctguard_units::{Sample, extend, jiffies_per_second};

/// A test run of an XDP program needs a frame.
const FRAME: [u8; 64] = [0; 64];

/// Shortest time between the two readings from which a jiffy's length is computed.
const CALIBRATION: Duration = Duration::from_millis(110);

/// How long to wait for the next jiffy; the longest is 10 ms.
const LONGEST_JIFFY: Duration = Duration::from_millis(50);

#[derive(Debug, Error)]
pub enum ClockError {
    #[error("cannot read the kernel's clock")]
    TestRun(#[from] ProgramError),
    #[error("the kernel's clock does not run evenly")]
    Uneven,
}

#[derive(Debug)]
pub struct KernelClock(Xdp);

impl KernelClock {
    pub fn from_pin(path: &Path) -> Result<Self, ClockError> {
        Ok(Self(Xdp::from_pin(path, XdpAttachType::Interface)?))
    }

    pub fn now(&self, per_second: u32) -> Result<Jiffies, ClockError> {
        Ok(extend(low(&self.0)?, monotonic(), per_second))
    }

    /// Measures the jiffies in a second from two readings, each at the start of a jiffy. The first is
    /// `earlier`, if there is one.
    pub fn calibrate(&self, mut earlier: Option<Sample>) -> Result<u32, ClockError> {
        for _ in 0..3 {
            let first = earlier.take().map_or_else(|| edge(&self.0), Ok)?;
            std::thread::sleep((first.at + CALIBRATION).saturating_sub(monotonic()));
            if let Some(jiffies) = jiffies_per_second(first, edge(&self.0)?) {
                return Ok(jiffies);
            }
        }
        Err(ClockError::Uneven)
    }
}

/// Reads the clock at the start of a jiffy.
pub(super) fn edge(clock: &Xdp) -> Result<Sample, ClockError> {
    let started = Instant::now();
    let before = low(clock)?;
    loop {
        let sample = Sample { low_jiffies: low(clock)?, at: monotonic() };
        if sample.low_jiffies != before || started.elapsed() > LONGEST_JIFFY {
            return Ok(sample);
        }
    }
}

fn low(clock: &Xdp) -> Result<u32, ClockError> {
    let options = TestRunOptions { data_in: Some(&FRAME), ..TestRunOptions::new() };
    Ok(clock.test_run(options)?.return_value)
}

/// Time since boot without suspension, as jiffies count it.
pub fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or_default(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
}
