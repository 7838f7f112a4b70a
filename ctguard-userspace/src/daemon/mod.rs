//! The impure shell round `control`: start, tick, watch interfaces, stop.

mod bring_up;
mod dismantle;
mod guard;
mod housekeeping;
mod known_flows;
mod run;
mod settle;
mod start;
mod tick;
mod watch;

pub(crate) use dismantle::dismantle;
pub(crate) use guard::{Guard, Guarded};
pub(crate) use run::MainLoop;
pub(crate) use start::{StartError, StartOptions, start};
