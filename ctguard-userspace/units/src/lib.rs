//! Types and arithmetic that control, kernel access and simulation share: jiffies, ceilings in ticks,
//! samples of the table, sizes of maps.
#![warn(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "only the binary writes to a terminal"
)]
#![forbid(unsafe_code)]

mod calibration;
mod ceiling;
mod coarse;
mod fallback_rate;
mod jiffies;
mod numbers;
pub mod sizes;
mod table_sample;

pub use calibration::{Sample, jiffies_per_second};
pub use ceiling::{ceilings, in_force, interval, operator_limits, share};
pub use coarse::{CoarseClock, answers};
pub use fallback_rate::FallbackRate;
pub use jiffies::{JiffiesClock, extend};
pub use numbers::{real, real_difference, whole};
pub use sizes::Sizes;
pub use table_sample::TableSample;
