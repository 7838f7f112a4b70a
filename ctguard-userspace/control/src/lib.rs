//! The controller, as pure functions: a snapshot and the operator's policy in, a decision out.
//!
//! Nothing here reads a clock or the kernel, so tests and simulation run the daemon's own code.
//! [`Controller::tick`] has the order of the steps.
#![warn(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "only the binary writes to a terminal"
)]
#![forbid(unsafe_code)]

pub mod adaptive;
mod controller;
mod decision;
mod fair_share;
mod fallback;
mod generations;
mod headroom;
pub mod holdings;
mod in_flight;
mod let_in;
mod load;
pub mod look;
mod networks;
mod offered;
pub mod overload;
mod pace;
pub mod reclaim;
pub mod refusals;
pub mod regulars;
mod reserve;
mod room;
mod saved;
mod shares;
mod smoothed;
mod source_map;
pub mod sources;
mod stage;
pub mod standing;
#[cfg(test)]
mod testing;
mod tiers;
pub mod tuning;

pub use controller::Controller;
pub use decision::{ControlPolicy, Decision, Snapshot, StageChange, TierGrant};
pub use fallback::fallback;
pub use generations::{Generations, IN_FLIGHT, Load, Step};
pub use in_flight::InFlight;
pub use let_in::LetIn;
pub use load::OfferedLoad;
pub use offered::{OfferedRates, known_tiers};
pub use pace::Pace;
pub use reserve::Reserve;
