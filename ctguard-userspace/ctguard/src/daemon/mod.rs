//! The impure shell round `control`: start, tick, watch interfaces, stop.

pub(crate) mod background;
mod bring_up;
mod complaints;
mod dismantle;
mod guard;
mod housekeeping;
mod known_flows;
mod known_sources;
mod offered;
mod reclaim;
pub(crate) mod relief;
mod run;
mod settle;
mod start;
pub(crate) mod state_file;
mod tick;
mod tick_timer;
mod undo;
mod watch;

pub(crate) use dismantle::dismantle;
pub(crate) use guard::{Guard, Guarded};
pub(crate) use run::MainLoop;
pub(crate) use start::{StartError, StartOptions, start};
