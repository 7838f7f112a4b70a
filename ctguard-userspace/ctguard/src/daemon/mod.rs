//! The daemon round `control`: starts, ticks, watches interfaces, stops.

mod adaptive_timeouts;
mod background;
mod bring_up;
mod complaints;
mod dismantle;
mod guard;
mod held;
mod housekeeping;
mod keep_regulars;
mod known_flows;
mod look;
mod reclaim;
mod run;
mod settle;
mod start;
mod state_file;
mod tick;
mod tick_timer;
mod undo;
mod watch;
mod watched;

pub(crate) use dismantle::dismantle;
pub(crate) use guard::{Guard, Guarded};
pub(crate) use run::MainLoop;
pub(crate) use start::{StartError, StartOptions};
