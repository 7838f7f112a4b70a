//! Pure control: what was read and what the operator wants in, what to write out.
//!
//! Nothing here reads a clock or the kernel, so that tests and simulation run what the daemon
//! runs. Fair shares and stages come here too.

#[cfg_attr(not(test), expect(dead_code, reason = "the main loop does not call it yet"))]
pub(crate) mod adaptive;
mod calibration;
mod ceiling;
mod coarse;
mod fallback;
mod generations;
mod grant;
mod in_flight;
mod jiffies;
mod pace;
#[cfg_attr(not(test), expect(dead_code, reason = "the main loop does not call it yet"))]
pub(crate) mod regulars;
mod reserve;
#[cfg_attr(not(test), expect(dead_code, reason = "the main loop does not call it yet"))]
pub(crate) mod sources;

pub(crate) use calibration::{Sample, jiffies_per_second};
pub(crate) use ceiling::{ceilings, in_force};
pub(crate) use coarse::CoarseClock;
pub(crate) use fallback::{FallbackRate, fallback};
pub(crate) use generations::{Generations, IN_FLIGHT, Load, Step};
pub(crate) use grant::{TableSample, TierGrant, grants};
pub(crate) use in_flight::InFlight;
pub(crate) use jiffies::{JiffiesClock, extend};
pub(crate) use pace::Pace;
pub(crate) use reserve::Reserve;
