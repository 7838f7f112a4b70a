//! `ctguard simulate`: the data path's own admission and the daemon's own control over a load that a
//! file describes or recorded, in a time of their own.
//!
//! `scenario` is the file, `traffic` and `capture` make packets of it, `tables` is the data path over
//! maps in memory, `steer` the daemon's tick, `table` stands for conntrack. `run` brings them
//! together, event by event, and `outcome` counts. The same seed gives the same report.
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

use std::{path::Path, time::Duration};

use thiserror::Error;

#[cfg(feature = "plot")]
pub use plot::{PlotError, draw};
pub use report::SimulationReport;

use self::{
    capture::{Capture, CaptureError, is_capture},
    quantity::Span,
    run::Run,
    scenario::{Scenario, ScenarioError},
};
use ctguard_settings::{Assignment, SettingError};

/// Why a load cannot be simulated.
#[derive(Debug, Error)]
pub enum SimulationError {
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error(transparent)]
    Setting(#[from] SettingError),
    #[error("{0} is for recordings only, and this file is a scenario")]
    OfRecordings(&'static str),
}

/// What is asked for beyond the file.
#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    /// Settings besides the file's.
    pub assignments: Vec<Assignment>,
    /// Instead of the file's.
    pub duration: Option<Duration>,
    /// Of a recording.
    pub table_max: Option<u32>,
    pub speed: Option<f64>,
}

/// Runs a file.
pub fn simulate(path: &Path, options: &Options) -> Result<SimulationReport, SimulationError> {
    let (mut scenario, capture) = if is_capture(path)? {
        let speed = options.speed.unwrap_or(1.0);
        let length = Capture::open(path, speed)?.length()?;
        (capture::scenario(length)?, Some(Capture::open(path, speed)?))
    } else {
        if options.speed.is_some() {
            return Err(SimulationError::OfRecordings("--speed"));
        }
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
    Ok(SimulationReport::new(name, options.seed, scenario, policy.target_ppm, &finished))
}

#[cfg(test)]
mod tests;
