//! Pure control: what was read and what the operator wants in, what to write out.
//!
//! Nothing here reads a clock or the kernel, so that tests and simulation run what the daemon
//! runs. [`Controller::tick`] holds the order of what makes a decision.

pub(crate) mod adaptive;
mod budget;
mod calibration;
mod ceiling;
mod coarse;
mod controller;
mod decision;
pub(crate) mod deletions;
mod fair_share;
mod fallback;
mod generations;
mod grant;
mod headroom;
mod in_flight;
mod jiffies;
mod load;
mod offered;
mod pace;
#[cfg(test)]
mod random;
pub(crate) mod regulars;
mod reserve;
mod room;
mod shares;
mod smoothed;
pub(crate) mod sources;
mod stage;
mod tiers;

pub(crate) use calibration::{Sample, jiffies_per_second};
pub(crate) use ceiling::{ceilings, compile_scopes, in_force};
pub(crate) use coarse::CoarseClock;
pub(crate) use controller::Controller;
pub(crate) use decision::{ControlPolicy, Decision, Snapshot, StageChange};
pub(crate) use fallback::{FallbackRate, fallback};
pub(crate) use generations::{Generations, IN_FLIGHT, Load, Step};
pub(crate) use grant::{TableSample, TierGrant};
pub(crate) use in_flight::InFlight;
pub(crate) use jiffies::{JiffiesClock, extend};
pub(crate) use load::OfferedLoad;
pub(crate) use offered::{OfferedRates, standings};
pub(crate) use pace::Pace;
pub(crate) use reserve::Reserve;
