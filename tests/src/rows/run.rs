//! Runs rows, one after the other.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use clap::ValueEnum as _;

use super::{
    Bar, Judged, Length, Row, Strictness,
    bar::{self, Beside},
};
use crate::{
    lab::{self, IDLE, LabOptions, Runs},
    recipe::FloodKind,
    report::{Options, Report, Run, ratio},
    summary,
};

const NONE: Runs = Runs { baseline: false, unguarded: false, guarded: false, ideal: false };

/// Where rows are tried.
#[derive(Debug)]
pub struct Bench {
    /// The `ctguard` to try.
    pub ctguard: PathBuf,
    /// Where its output goes.
    pub log: PathBuf,
    /// How long a row may take.
    pub length: Length,
    baselines: Vec<(Options, Run)>,
    idle_watched: bool,
}

/// What a row's runs found.
#[derive(Debug)]
pub struct Told {
    /// The row.
    pub row: &'static Row,
    /// Entries that the table takes.
    pub table_max: u64,
    /// The guarded run held against the bars, or why it could not be made.
    pub found: Result<(Run, Vec<Judged>)>,
}

impl Told {
    /// Whether every bar was cleared.
    #[must_use]
    pub fn held(&self) -> bool {
        self.found.as_ref().is_ok_and(|(_, bars)| bars.iter().all(|judged| judged.held))
    }
}

impl Bench {
    /// Nothing tried yet.
    #[must_use]
    pub fn new(ctguard: PathBuf, log: PathBuf, length: Length) -> Self {
        Self { ctguard, log, length, baselines: Vec::new(), idle_watched: false }
    }

    /// The tables that a row is tried at.
    #[must_use]
    pub fn tables(&self, row: &Row) -> &'static [u64] {
        match self.length {
            Length::Full => row.tables,
            Length::Short => row.tables.get(..1).unwrap_or_default(),
        }
    }

    /// Tries a row at one table; `progress` is told in a few words what begins.
    pub fn run(
        &mut self,
        row: &'static Row,
        table_max: u64,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Told {
        Told { row, table_max, found: self.run_at(row, table_max, progress) }
    }

    fn run_at(
        &mut self,
        row: &'static Row,
        table_max: u64,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<(Run, Vec<Judged>)> {
        let options = self.options(row, table_max)?;
        let named = |what: &str| progress(&format!("{} ({table_max}): {what}", row.name));
        let guarded = Runs { guarded: true, ..NONE };
        match self.length {
            Length::Short => {
                let compares = row.bars.contains(&Bar::NoWorseThanUnguarded);
                let runs = Runs { unguarded: compares, ..guarded };
                let report = lab::run(&LabOptions { runs, ..options }, &named)?;
                let run = report.guarded.context("the guarded run")?;
                let beside = Beside { baseline: None, unguarded: report.unguarded.as_ref() };
                let bars = bar::judge(row, &run, beside, Strictness::Stalling);
                Ok((run, bars))
            }
            Length::Full => {
                let baseline = self.baseline(&options, &named)?;
                let runs = Runs { unguarded: true, ..guarded };
                let Report { guarded, unguarded, .. } =
                    lab::run(&LabOptions { runs, ..options }, &named)?;
                let run = guarded.context("the guarded run")?;
                let beside = Beside { baseline: Some(&baseline), unguarded: unguarded.as_ref() };
                let bars = bar::judge(row, &run, beside, Strictness::Promise);
                self.idle_watched = true;
                Ok((run, bars))
            }
        }
    }

    fn options(&self, row: &Row, table_max: u64) -> Result<LabOptions> {
        let flood = FloodKind::from_str(row.flood, false)
            .map_err(|_| anyhow!("this lab has no flood called {}", row.flood))?;
        let watch_idle = self.length == Length::Full && !self.idle_watched;
        Ok(LabOptions {
            rate: row.rate,
            seconds: row.seconds(self.length),
            table_max,
            port_dropped: row.port_dropped,
            ctguard: self.ctguard.clone(),
            settings: row.settings.iter().map(|&setting| setting.to_owned()).collect(),
            lan_guarded: row.lan_guarded,
            allowed: row.allowed.to_vec(),
            legitimate_per_second: row.legitimate_per_second,
            script: row.script(self.length),
            idle: if watch_idle { IDLE } else { Duration::ZERO },
            log: self.log.clone(),
            ..LabOptions::new(flood)
        })
    }

    /// The run without a flood, made once for all rows with the same load.
    fn baseline(&mut self, options: &LabOptions, progress: &(dyn Fn(&str) + Sync)) -> Result<Run> {
        let load = |options: &Options| {
            let Options { seconds, table_max, family, .. } = options;
            (*seconds, *table_max, family.clone(), options.legitimate_per_second.to_bits())
        };
        let wanted = load(&lab::described(options));
        if let Some((_, run)) = self.baselines.iter().find(|(made, _)| load(made) == wanted) {
            return Ok(run.clone());
        }
        let runs = Runs { baseline: true, ..NONE };
        let report = lab::run(&LabOptions { runs, ..options.clone() }, progress)?;
        if let Some(line) = summary::load_fits(&report) {
            progress(&line);
        }
        let run = report.baseline.context("the run without a flood")?;
        self.baselines.push((report.options, run.clone()));
        Ok(run)
    }
}

/// A row's fill for people: the peak, then how steady it was.
pub(super) fn fill(run: &Run) -> String {
    let peak = summary::percent(ratio(run.fill.peak, run.table_max));
    match run.fill.second_half {
        Some(spread) => format!(
            "{peak} (mean {}, σ {:.2} %)",
            summary::percent(spread.mean_ratio),
            spread.deviation_ratio * 100.0
        ),
        None => peak,
    }
}
