//! How packets of each kind were judged, against what conntrack made of them.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
};

/// What came of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Finding {
    /// Charged, and an entry was made.
    AgreedNew,
    /// Neither.
    AgreedOld,
    /// They differ for this reason.
    Explained(&'static str),
    /// They differ.
    Unexplained,
}

/// Counts findings by kind of packet.
#[derive(Default)]
pub(crate) struct Tally {
    kinds: BTreeMap<&'static str, BTreeMap<Finding, u32>>,
}

impl Tally {
    pub(crate) fn add(&mut self, kind: &'static str, finding: Finding) {
        *self.kinds.entry(kind).or_default().entry(finding).or_default() += 1;
    }

    /// Packets of every kind with this finding.
    pub(crate) fn total(&self, finding: Finding) -> u32 {
        self.kinds.values().filter_map(|findings| findings.get(&finding)).sum()
    }

    /// Every finding but agreement.
    fn differences(&self) -> Vec<Finding> {
        let all = self.kinds.values().flat_map(BTreeMap::keys).copied();
        let differ = |finding: &Finding| *finding > Finding::AgreedOld;
        let mut differences: Vec<_> = all.filter(differ).collect();
        differences.sort_unstable();
        differences.dedup();
        differences
    }
}

/// A row a kind, a column a difference: 1, 2, 3, told below.
impl Display for Tally {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let differences = self.differences();
        write!(f, "{:24}{:>7}{:>7}", "kind", "new", "old")?;
        for column in 1..=differences.len() {
            write!(f, "{:>6}", format!("[{column}]"))?;
        }
        writeln!(f)?;
        let columns = [Finding::AgreedNew, Finding::AgreedOld];
        for (kind, findings) in &self.kinds {
            write!(f, "{kind:24}")?;
            for (finding, width) in
                columns.iter().map(|finding| (finding, 7)).chain(differences.iter().map(|d| (d, 6)))
            {
                let count = findings.get(finding).map_or(String::new(), u32::to_string);
                write!(f, "{count:>width$}")?;
            }
            writeln!(f)?;
        }
        for (column, difference) in differences.iter().enumerate() {
            let reason = match difference {
                Finding::Explained(reason) => reason,
                Finding::AgreedNew | Finding::AgreedOld | Finding::Unexplained => "unexplained",
            };
            writeln!(f, "[{}] {:>6} {reason}", column + 1, self.total(*difference))?;
        }
        Ok(())
    }
}
