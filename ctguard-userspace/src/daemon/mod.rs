//! The impure shell round `control`: start, tick, watch interfaces, stop.

#[cfg_attr(not(test), expect(dead_code, reason = "the main loop does not call it yet"))]
pub(crate) mod background;
mod bring_up;
mod dismantle;
mod guard;
mod housekeeping;
mod known_flows;
#[cfg_attr(not(test), expect(dead_code, reason = "the main loop does not call it yet"))]
pub(crate) mod relief;
mod run;
mod settle;
mod start;
#[cfg_attr(not(test), expect(dead_code, reason = "the main loop does not call it yet"))]
pub(crate) mod state_file;
mod tick;
mod watch;

pub(crate) use dismantle::dismantle;
pub(crate) use guard::{Guard, Guarded};
pub(crate) use run::MainLoop;
pub(crate) use start::{StartError, StartOptions, start};
