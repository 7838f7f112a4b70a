//! What ctguard promises under each flood, a row each: the flood, the settings, and the bars that
//! its numbers must clear.

mod bar;
mod judge;
mod list;
mod measure;
mod run;
mod table;
mod who;
mod windows;

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use crate::{
    legit::Day,
    recipe::{FloodKind, Rate},
    script::Script,
};

pub use bar::Bar;
pub use judge::{Judged, Round};
pub use list::ROWS;
pub use run::{Bench, Only, Told};
pub use table::{head, table};
pub use who::Who;

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// By what it is asked for.
    pub name: &'static str,
    /// What it says.
    pub sentence: &'static str,
    /// The kind of flood, as `ctguard-lab --flood` takes it.
    pub flood: &'static str,
    /// Its packets a second; of sources that complete their connections, new connections.
    pub rate: Rate,
    /// Entries that the table takes; the first of them where time is short.
    pub tables: &'static [u64],
    /// What a short row takes instead.
    pub short: Short,
    /// Legitimate new flows a second, where they are not what the table is large for.
    pub legitimate_per_second: Option<f64>,
    /// Some clients are regulars, and all that are known hold a connection from before the flood.
    pub favours: bool,
    /// What a calm day brings beside the usual clients.
    pub day: Option<Day>,
    /// New flows a second of a single inside client, where there is only one.
    pub neighbour: Option<f64>,
    /// Seconds of flood at full length, where they are not the plot's.
    pub attack: Option<u32>,
    /// Service is settled so many seconds after the flood begins, or the guard starts.
    pub settles: u32,
    /// Settings beside the defaults.
    pub settings: &'static [&'static str],
    /// The flood goes at a port that the router's own rules drop.
    pub port_dropped: bool,
    /// The LAN side is guarded, too.
    pub lan_guarded: bool,
    /// Addresses on the allow list.
    pub allowed: &'static [IpAddr],
    /// What happens to the guard.
    pub plot: Plot,
    /// What must hold, besides `fill`.
    pub bars: &'static [Bar],
    /// What the fill may be.
    pub fill: Fill,
}

/// What a short row takes instead of the promise's numbers, where its few seconds of flood would not
/// fill the table, so that a guard that does nothing would clear the bars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    /// None: the first of the row's.
    pub tables: &'static [u64],
    /// Packets or connections a second, see [`Row::rate`].
    pub per_second: Option<u32>,
}

impl Short {
    const SAME: Self = Self { tables: &[], per_second: None };
}

/// What happens to the guard, by name: its times depend on how long a flood may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plot {
    /// It is there throughout.
    Throughout,
    /// It is started when the table is full.
    Late,
    /// It is killed and started again.
    Outage,
    /// The same, and for longer.
    LongOutage,
    /// It is started when the flood has had its way, before there is any other traffic.
    After,
}

/// What the fill may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// At most so much above the target, as a share of the table, and no flow is dropped for a
    /// full table.
    Within(f64),
    /// Anything: the guard came too late.
    Anything,
}

/// How long a row takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// As long as the promise says, beside the unguarded run and the one without a flood.
    Full,
    /// A few seconds, guarded only, by bars that bear a machine that stalls, and with floods that leave
    /// it time: two processors that are at their limit show what they can do, not what the guard does.
    Short,
}

/// Packets a second of a short row's flood at most: it fills the smallest table in a sixth of a second.
const SHORT_PACKETS: u32 = 100_000;
/// Connections a second at most, of which the router forwards each packet.
const SHORT_CONNECTIONS: u32 = 20_000;

impl Row {
    /// A row of the usual kind: 500,000 packets a second at a table of 16,384, all defaults.
    const fn usual(name: &'static str, sentence: &'static str, flood: &'static str) -> Self {
        Self {
            name,
            sentence,
            flood,
            rate: Rate::PerSecond(500_000),
            tables: &[16_384],
            short: Short::SAME,
            legitimate_per_second: None,
            favours: true,
            day: None,
            neighbour: None,
            attack: None,
            settles: 2,
            settings: &[],
            port_dropped: false,
            lan_guarded: false,
            allowed: &[],
            plot: Plot::Throughout,
            bars: &[],
            fill: Fill::Within(bar::OVER_TARGET),
        }
    }

    /// A row of clients without favours, more than the table has room for.
    const fn plain(name: &'static str, sentence: &'static str, flood: &'static str) -> Self {
        Self {
            legitimate_per_second: Some(150.0),
            favours: false,
            attack: Some(24),
            ..Self::usual(name, sentence, flood)
        }
    }

    /// Whether the flood has a pace; the test of the guarantee has those at full speed.
    #[must_use]
    pub fn is_paced(&self) -> bool {
        self.rate != Rate::Full
    }

    /// Entries that the tables take in which it is tried.
    #[must_use]
    pub fn tables(&self, length: Length) -> &'static [u64] {
        match length {
            Length::Full => self.tables,
            Length::Short if self.short.tables.is_empty() => {
                self.tables.get(..1).unwrap_or_default()
            }
            Length::Short => self.short.tables,
        }
    }

    /// Whether a bar is about what happens without a guard.
    fn compares(&self) -> bool {
        self.bars.contains(&Bar::NoWorseThanUnguarded)
    }

    /// Whether a bar is about how even shares are.
    fn shares(&self) -> bool {
        self.bars.iter().any(|bar| matches!(bar, Bar::Jain(_)))
    }

    /// The flood's packets or connections a second; a short flood of packets, but none of connections,
    /// comes so many times slower: it fills its table all the same.
    #[must_use]
    pub fn rate(&self, length: Length, flood: FloodKind, slower: NonZeroU32) -> Rate {
        let most =
            if flood.sources().answer() { SHORT_CONNECTIONS } else { SHORT_PACKETS / slower };
        match (length, self.rate) {
            (Length::Short, Rate::PerSecond(rate)) => {
                Rate::PerSecond(self.short.per_second.unwrap_or(rate).min(most))
            }
            (Length::Full | Length::Short, rate) => rate,
        }
    }

    /// Seconds of flood. Runs without a guard are a matter of luck, which takes some seconds to
    /// even out; and so are shares, until a source has some dozens of connections.
    #[must_use]
    pub fn seconds(&self, length: Length) -> u32 {
        match (length, self.plot) {
            (Length::Full, _) if self.attack.is_some() => self.attack.unwrap_or_default(),
            (Length::Short, _) if self.compares() => 16,
            (Length::Short, _) if self.shares() => 12,
            (Length::Full, Plot::Throughout) => 20,
            (Length::Full, Plot::Late | Plot::Outage | Plot::LongOutage | Plot::After) => 24,
            (Length::Short, Plot::Throughout | Plot::After) => 4,
            (Length::Short, Plot::Late) => 12,
            (Length::Short, Plot::Outage | Plot::LongOutage) => 8,
        }
    }

    /// What happens to the guard.
    #[must_use]
    pub fn script(&self, length: Length) -> Script {
        let seconds = Duration::from_secs;
        match (self.plot, length) {
            (Plot::Throughout, _) => Script::Throughout,
            (Plot::Late, Length::Full) => Script::Late(seconds(4)),
            (Plot::Late, Length::Short) => Script::Late(seconds(2)),
            (Plot::Outage, Length::Full) => {
                Script::Outage { after: seconds(5), lasts: seconds(10) }
            }
            (Plot::After, _) => Script::After(seconds(3)),
            (Plot::LongOutage, Length::Full) => {
                Script::Outage { after: seconds(5), lasts: seconds(15) }
            }
            (Plot::Outage | Plot::LongOutage, Length::Short) => {
                Script::Outage { after: seconds(2), lasts: seconds(4) }
            }
        }
    }
}

/// The rows of these names; `all` is every one.
///
/// # Errors
/// Names the rows where one is unknown.
pub fn named(names: &[String]) -> anyhow::Result<Vec<&'static Row>> {
    let mut found = Vec::new();
    for name in names {
        let before = found.len();
        found.extend(ROWS.iter().filter(|row| name == "all" || name == row.name));
        if found.len() == before {
            let known: Vec<_> = ROWS.iter().map(|row| row.name).collect();
            anyhow::bail!("no row is called {name}; there are: all, {}", known.join(", "));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own_and_a_bar() {
        let names: HashSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
        for row in ROWS {
            assert!(!row.bars.is_empty() || row.fill != Fill::Anything, "{}", row.name);
            assert!(!row.tables.is_empty(), "{}", row.name);
        }
    }

    #[test]
    fn an_unknown_row_is_refused_with_the_names_of_all() {
        let error = named(&["nothing".to_owned()]).expect_err("no such row").to_string();
        assert!(ROWS.iter().all(|row| error.contains(row.name)), "{error}");
        assert_eq!(named(&["all".to_owned()]).expect("all rows").len(), ROWS.len());
    }

    /// Fails when a short row could not fail: the table takes all its connections.
    #[test]
    fn connections_of_a_short_flood_are_more_than_its_table_takes() {
        /// Their floods fill the table only at full length.
        const FULL_ONLY: [&str; 2] = ["bots", "many-completers"];
        let is_tried = |row: &&Row| row.is_paced() && !FULL_ONLY.contains(&row.name);
        for row in ROWS.iter().filter(is_tried) {
            let flood = FloodKind::from_str(row.flood, true).expect("a kind of flood");
            let Rate::PerSecond(rate) = row.rate(Length::Short, flood, NonZeroU32::MIN) else {
                continue;
            };
            let connections = u64::from(rate) * u64::from(row.seconds(Length::Short));
            let is_kept = flood.sources().answer() && row.plot == Plot::Throughout;
            let table = row.tables(Length::Short)[0];
            assert!(!is_kept || connections > table, "{}: {connections} of {table}", row.name);
        }
    }

    /// Fails when a flood that is slowed for a weak machine leaves the table empty.
    #[test]
    fn packets_of_a_slowed_flood_are_more_than_its_table_takes() {
        let slowest = NonZeroU32::new(4).expect("not zero");
        for row in ROWS.iter().filter(|row| row.is_paced()) {
            let flood = FloodKind::from_str(row.flood, true).expect("a kind of flood");
            let Rate::PerSecond(rate) = row.rate(Length::Short, flood, slowest) else { continue };
            if row.rate(Length::Short, flood, NonZeroU32::MIN) != Rate::PerSecond(rate) {
                let table = row.tables(Length::Short)[0];
                assert!(u64::from(rate) > table, "{}: {rate}/s of {table}", row.name);
            }
        }
    }

    #[test]
    fn a_script_ends_before_the_flood_does() {
        for row in ROWS {
            for length in [Length::Full, Length::Short] {
                let last = match row.script(length) {
                    Script::Throughout | Script::After(_) => Duration::ZERO,
                    Script::Late(after) => after,
                    Script::Outage { after, lasts } => after + lasts,
                };
                let flood = Duration::from_secs(row.seconds(length).into());
                assert!(last + Duration::from_secs(2) <= flood, "{} {length:?}", row.name);
            }
        }
    }
}
