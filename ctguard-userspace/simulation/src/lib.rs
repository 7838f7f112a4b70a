//! `ctguard simulate`: runs the data path and the controller in simulated time, under a load that a
//! scenario describes or a capture holds. The same seed gives the same report.
#![warn(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "only the binary writes to a terminal"
)]
#![expect(
    missing_docs,
    reason = "internal to the product: names of fields and messages of errors say what they are"
)]

mod agenda;
mod capture;
mod clock;
mod flow;
mod flows;
mod frame;
mod group;
mod network;
mod outcome;
#[cfg(feature = "plot")]
mod plot;
mod quantity;
mod replay;
mod report;
mod run;
mod scenario;
mod steer;
mod summary;
mod table;
mod tables;
mod traffic;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;

pub use frame::{Frame, Kind, Tuple};
#[cfg(feature = "plot")]
pub use plot::{PlotError, draw};
pub use report::SimulationReport;

use self::{
    capture::{Capture, is_capture},
    quantity::Span,
    run::Run,
    scenario::Scenario,
};
use ctguard_settings::{Assignment, SettingError};

/// Why a load cannot be simulated.
#[derive(Debug, Error)]
pub enum SimulationError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// `place` names the file, and the line or key where there is one.
    #[error("{place}: {reason}")]
    Content { place: String, reason: String },
    #[error(transparent)]
    Setting(#[from] SettingError),
    #[error("--speed is for recordings only, and this file is a scenario")]
    SpeedOfScenario,
}

/// What the command line adds to the file.
#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub assignments: Vec<Assignment>,
    /// Overrides the file's.
    pub duration: Option<Duration>,
    /// Overrides the file's.
    pub table_max: Option<u32>,
    /// Captures only.
    pub speed: Option<f64>,
}

/// Simulates a scenario or a capture.
pub fn simulate(path: &Path, options: &Options) -> Result<SimulationReport, SimulationError> {
    let (mut scenario, capture) = if is_capture(path)? {
        let speed = options.speed.unwrap_or(1.0);
        let length = Capture::open(path, speed)?.length()?;
        (capture::scenario(length)?, Some(Capture::open(path, speed)?))
    } else if options.speed.is_some() {
        return Err(SimulationError::SpeedOfScenario);
    } else {
        (Scenario::read(path)?, None)
    };
    if let Some(duration) = options.duration {
        scenario.duration = Span(duration);
    }
    if let Some(max) = options.table_max {
        scenario.table.max = max;
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    run(name, &scenario, capture, options)
}

fn run(
    name: String,
    scenario: &Scenario,
    capture: Option<Capture>,
    options: &Options,
) -> Result<SimulationReport, SimulationError> {
    let policy = scenario.settings(&options.assignments)?.policy;
    let finished = Run::new(scenario, policy, options.seed, capture).finish()?;
    Ok(SimulationReport::new(name, options.seed, scenario, policy.target_ppm, finished))
}

#[cfg(test)]
mod tests;
