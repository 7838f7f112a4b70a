//! What clients met, kept from one call to the next, and the table of it.

use std::{collections::BTreeMap, fmt::Write as _, fs, io::ErrorKind, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{
    asked::Asked,
    catalogue::{Catalogue, Protocol},
    contact::{Fate, PATIENCE},
};

/// What one client met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Met {
    /// As the client tells it.
    pub version: String,
    /// First contacts without a flood.
    pub calm: Vec<Fate>,
    /// First contacts in the flood.
    pub flooded: Vec<Fate>,
    /// When the first of those asked.
    pub asked: Asked,
}

/// What each client met, by its name.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Results(BTreeMap<String, Met>);

impl Results {
    /// Reads what earlier calls left; nothing where there was none.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        serde_json::from_str(&text)
            .with_context(|| format!("{} is not of this version: remove it", path.display()))
    }

    /// Keeps them for later calls.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("cannot write results")?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }

    /// Takes in what a client met, in place of what it met before.
    pub(super) fn note(&mut self, client: &str, met: Met) {
        self.0.insert(client.to_owned(), met);
    }

    /// A Markdown table of the clients that open with `protocol`, in the catalogue's order.
    #[must_use]
    pub fn table(&self, catalogue: &Catalogue, protocol: Protocol) -> String {
        let columns = [
            "client",
            "version",
            "first contact",
            "served, no flood",
            "asks again in the flood after",
            "served, flooded",
        ];
        let rule = ["---"; 6].join(" | ");
        let mut table = format!("| {} |\n| {rule} |\n", columns.join(" | "));
        for client in catalogue.client.iter().filter(|client| client.protocol == protocol) {
            let Some(met) = self.0.get(&client.name) else { continue };
            let [calm, flooded] = [&met.calm, &met.flooded].map(|fates| told(fates, false));
            let (name, version, does) = (&client.name, &met.version, &client.does);
            let again = &met.asked;
            let _ =
                writeln!(table, "| {name} | {version} | {does} | {calm} | {again} | {flooded} |");
        }
        table
    }
}

/// Median and maximum of those that were served; how many were not, if asked for with the last words
/// of one.
#[must_use]
pub(super) fn told(fates: &[Fate], words: bool) -> String {
    let mut served: Vec<f64> = fates.iter().filter_map(Fate::seconds).collect();
    served.sort_by(f64::total_cmp);
    let mut parts = Vec::new();
    if let (Some(median), Some(most)) = (served.get(served.len() / 2), served.last()) {
        let number = format!("{} of {}", served.len(), fates.len());
        parts.push(format!("{number} after {} s (at most {})", short(*median), short(*most)));
    }
    let mut failures = BTreeMap::<String, (usize, &str)>::new();
    for (failure, said) in fates.iter().filter_map(Fate::failure) {
        failures.entry(failure).or_insert((0, said)).0 += 1;
    }
    parts.extend(failures.iter().map(|(failure, (number, said))| match *said {
        said if words && !said.is_empty() => format!("{number} not: {failure} ({said})"),
        _ => format!("{number} not: {failure}"),
    }));
    parts.join("; ")
}

impl Fate {
    /// How long it took to be served.
    fn seconds(&self) -> Option<f64> {
        match self {
            Self::Served(seconds) => Some(*seconds),
            Self::GaveUp(..) | Self::Waiting => None,
        }
    }

    /// How it was not served, and its last words.
    fn failure(&self) -> Option<(String, &str)> {
        match self {
            Self::Served(_) => None,
            Self::GaveUp(seconds, said) => Some((format!("gave up after {seconds:.0} s"), said)),
            Self::Waiting => Some((format!("not within {} s", PATIENCE.as_secs()), "")),
        }
    }
}

/// Seconds, with as many digits as matter.
pub(super) fn short(seconds: f64) -> String {
    if seconds < 0.995 { format!("{seconds:.2}") } else { format!("{seconds:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_were_served_have_a_median_and_the_others_a_reason() {
        let gave_up = |said: &str| Fate::GaveUp(15.2, said.to_owned());
        let fates = [5.04, 0.05, 10.01].map(Fate::Served).to_vec();
        let fates = [fates, vec![gave_up("query 7"), gave_up("query 9")]].concat();
        assert_eq!(
            told(&fates, true),
            "3 of 5 after 5.0 s (at most 10.0); 2 not: gave up after 15 s (query 7)"
        );
        assert_eq!(told(&[Fate::Waiting, Fate::Waiting], true), "2 not: not within 40 s");
    }
}
