//! Pure control: what was read and what the operator wants in, what to write out.
//!
//! Nothing here reads a clock or the kernel, so that tests and simulation run what the daemon
//! runs. [`Controller::tick`] holds the order of what makes a decision.
#![forbid(unsafe_code)]

pub mod adaptive;
mod budget;
mod controller;
mod decision;
mod fair_share;
mod fallback;
mod generations;
mod grant;
mod headroom;
mod in_flight;
mod load;
mod offered;
mod pace;
#[cfg(test)]
mod random;
pub mod reclaim_pass;
pub mod regulars;
mod reserve;
mod room;
mod shares;
mod smoothed;
pub mod sources;
mod stage;
mod tiers;
pub mod tuning;

pub use controller::Controller;
pub use decision::{ControlPolicy, Decision, Snapshot, StageChange};
pub use fallback::fallback;
pub use generations::{Generations, IN_FLIGHT, Load, Step};
pub use grant::TierGrant;
pub use in_flight::InFlight;
pub use load::OfferedLoad;
pub use offered::{OfferedRates, standings};
pub use pace::Pace;
pub use reserve::Reserve;
