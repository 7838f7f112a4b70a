//! Runs rows, one after the other.

use std::{fs, num::NonZeroU32, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use clap::ValueEnum as _;

use super::{
    Judged, Length, Round, Row,
    judge::{self, Strictness},
};
use crate::{
    delay::ROUND_TRIP,
    lab::{self, IDLE, LabOptions, Runs},
    picture,
    recipe::{FloodKind, Rate},
    report::{Options, Report, Run},
    summary,
};

const NONE: Runs = Runs { baseline: false, unguarded: false, guarded: false, ideal: false };

/// Which runs of a row are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    /// Those with ctguard.
    Guarded,
    /// Those without; no bar is judged.
    Unguarded,
}

/// Where rows are tried.
#[derive(Debug)]
pub struct Bench {
    /// The `ctguard` to try.
    pub ctguard: PathBuf,
    /// Where its output goes, and the report of each round.
    pub out: PathBuf,
    /// How long a row may take.
    pub length: Length,
    /// How often each row is tried.
    pub rounds: NonZeroU32,
    /// Which runs are made, if not both.
    pub only: Option<Only>,
    /// Seconds of flood, if not as many as the row says.
    pub seconds: Option<u32>,
    /// By what the pace of a flood of packets is divided, for a machine that cannot carry the row's.
    pub slower: NonZeroU32,
    /// Connections of an office behind one far address.
    pub office: u32,
    /// How long packets travel between far hosts and the router, both ways together.
    pub round_trip: Duration,
    baselines: Vec<(Options, Run)>,
    idle_watched: bool,
}

/// What a row's rounds found.
#[derive(Debug)]
pub struct Told {
    /// The row.
    pub row: &'static Row,
    /// Entries that the table takes.
    pub table_max: u64,
    /// The rounds held against the bars, or why they could not be made.
    pub found: Result<(Vec<Round>, Vec<Judged>)>,
}

impl Told {
    /// Whether every bar was cleared.
    #[must_use]
    pub fn held(&self) -> bool {
        self.found.as_ref().is_ok_and(|(_, bars)| bars.iter().all(|judged| judged.held))
    }

    /// Whether the machine was at its limit in a guarded run: then its numbers are the machine's.
    #[must_use]
    pub fn is_at_limit(&self) -> bool {
        self.found.as_ref().is_ok_and(|(rounds, _)| judge::guarded(rounds).any(Run::is_at_limit))
    }
}

impl Bench {
    /// Nothing tried yet.
    #[must_use]
    pub fn new(ctguard: PathBuf, out: PathBuf, length: Length, rounds: NonZeroU32) -> Self {
        Self {
            ctguard,
            out,
            length,
            rounds,
            only: None,
            seconds: None,
            slower: NonZeroU32::MIN,
            office: 0,
            round_trip: ROUND_TRIP,
            baselines: Vec::new(),
            idle_watched: false,
        }
    }

    /// The tables that a row is tried at.
    #[must_use]
    pub fn tables(&self, row: &Row) -> &'static [u64] {
        row.tables(self.length)
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
    ) -> Result<(Vec<Round>, Vec<Judged>)> {
        let options = self.options(row, table_max)?;
        let named = |what: &str| progress(&format!("{} ({table_max}): {what}", row.name));
        let (baseline, strictness) = match self.length {
            Length::Full if self.only.is_some() => (None, Strictness::Promise),
            Length::Full => (Some(self.baseline(&options, &named)?), Strictness::Promise),
            Length::Short => (None, Strictness::Stalling),
        };
        let runs = match self.only {
            Some(Only::Guarded) => Runs { guarded: true, ..NONE },
            Some(Only::Unguarded) => Runs { unguarded: true, ..NONE },
            None => {
                let unguarded = self.length == Length::Full || row.compares();
                Runs { unguarded, guarded: true, ..NONE }
            }
        };
        let options = LabOptions { runs, ..options };
        let mut rounds = Vec::new();
        for round in 1..=self.rounds.get() {
            let report = lab::run(&options, &named)?;
            self.keep(&report, &format!("{}-{table_max}-{round}", row.name))?;
            let Report { guarded, unguarded, .. } = report;
            rounds.push(Round { guarded, unguarded });
        }
        self.idle_watched |= self.length == Length::Full;
        let bars = judge::judge(row, &rounds, baseline.as_ref(), strictness);
        Ok((rounds, bars))
    }

    /// Keeps a round's report and its picture, for whoever asks why a bar was missed.
    fn keep(&self, report: &Report, name: &str) -> Result<()> {
        let path = self.out.join(format!("{name}.json"));
        let json = serde_json::to_string(report).context("cannot write the report")?;
        fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))?;
        picture::draw(report, &self.out, name)
    }

    /// The pace at which a row's flood comes here.
    ///
    /// # Errors
    /// If the lab has no such flood.
    pub fn rate(&self, row: &Row) -> Result<Rate> {
        Ok(row.rate(self.length, flood(row)?, self.slower))
    }

    fn options(&self, row: &Row, table_max: u64) -> Result<LabOptions> {
        let watch_idle = self.length == Length::Full && !self.idle_watched;
        Ok(LabOptions {
            rate: self.rate(row)?,
            seconds: self.seconds.unwrap_or_else(|| row.seconds(self.length)),
            table_max,
            port_dropped: row.port_dropped,
            ctguard: self.ctguard.clone(),
            settings: row.settings.iter().map(|&setting| setting.to_owned()).collect(),
            lan_guarded: row.lan_guarded,
            allowed: row.allowed.to_vec(),
            legitimate_per_second: row.legitimate_per_second,
            day: row.day,
            neighbour: row.neighbour,
            favours: row.favours,
            office: self.office,
            settles: Duration::from_secs(row.settles.into()),
            round_trip: self.round_trip,
            script: row.script(self.length),
            idle: if watch_idle { IDLE } else { Duration::ZERO },
            log: self.out.join("ctguard.log"),
            ..LabOptions::new(flood(row)?)
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

fn flood(row: &Row) -> Result<FloodKind> {
    FloodKind::from_str(row.flood, false)
        .map_err(|_| anyhow!("this lab has no flood called {}", row.flood))
}
