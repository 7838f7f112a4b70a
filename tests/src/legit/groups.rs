//! The far clients as a guard may tell them apart: known for days, known since before the flood,
//! or met in its midst.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// Far clients that open new flows; even numbers are known before the flood, odd ones are not.
pub const SOURCES: u16 = 600;
/// Those that nobody knows keep silent so long into a flood, until it is there for certain.
pub(super) const SETTLED: Duration = Duration::from_millis(300);

/// What a guard can know of a client when its flow starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Known for days, by the guard's own record; they hold a TCP connection as well.
    Regulars,
    /// They opened flows before the flood; where there are favours, they hold a connection, too.
    Known,
    /// Never seen before the flood, and no TCP connection of theirs has succeeded since.
    Strangers,
    /// Never seen before the flood; a TCP connection of theirs has succeeded since.
    Newcomers,
    /// Clients behind the router.
    Inside,
    /// Sources that each open many flows on a calm day.
    Busy,
}

impl Group {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 6] =
        [Self::Regulars, Self::Known, Self::Strangers, Self::Newcomers, Self::Inside, Self::Busy];

    /// The group of a far client; `met` says whether a TCP connection of its has succeeded, and
    /// `favours` whether some are regulars.
    pub(super) fn of(source: u16, met: bool, favours: bool) -> Self {
        match source {
            known if favours && known.is_multiple_of(4) => Self::Regulars,
            known if known.is_multiple_of(2) => Self::Known,
            _ if met => Self::Newcomers,
            _ => Self::Strangers,
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Regulars => "regulars",
            Self::Known => "known",
            Self::Strangers => "new, first contact",
            Self::Newcomers => "new, connected since",
            Self::Inside => "inside",
            Self::Busy => "busy sources",
        })
    }
}

/// Far clients that are known before the flood.
pub(super) fn known() -> impl Iterator<Item = u16> {
    (0..SOURCES).step_by(2)
}

/// Those of them that are regulars.
pub fn regulars() -> impl Iterator<Item = u16> {
    known().filter(|&source| Group::of(source, false, true) == Group::Regulars)
}

/// Whose turn it is, and whether it speaks UDP: a third of all flows, whoever may call.
pub(super) fn caller(turn: u32, strangers: bool) -> (u16, bool) {
    let (callers, step) = if strangers { (SOURCES, 1) } else { (SOURCES / 2, 2) };
    let round = turn / u32::from(callers);
    let source = step * u16::try_from(turn % u32::from(callers)).unwrap_or_default();
    // Strangers keep to one protocol: who connects once by TCP is none any more.
    let udp = if source.is_multiple_of(2) {
        (round + u32::from(source / 2)) % 3 == 2
    } else {
        source % 6 == 1
    };
    (source, udp)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn before_the_flood_only_known_clients_call() {
        let callers: HashSet<u16> = (0..1000).map(|turn| caller(turn, false).0).collect();
        assert_eq!(callers, known().collect());
        assert_eq!(callers.len(), 300);
        assert_eq!(regulars().count(), 150);
    }

    #[test]
    fn a_third_of_the_flows_of_each_half_is_udp() {
        let udp = |half: u16| {
            let turns = (0..6000).map(|turn| caller(turn, true));
            turns.filter(|&(source, udp)| udp && source % 2 == half).count()
        };
        assert!((980..=1020).contains(&udp(0)), "{}", udp(0));
        assert!((980..=1030).contains(&udp(1)), "{}", udp(1));
    }

    #[test]
    fn every_known_client_speaks_both_protocols() {
        for wanted in [false, true] {
            let turns = (0..1800).map(|turn| caller(turn, true));
            let sources = turns.filter(|(source, udp)| *udp == wanted && source % 2 == 0);
            assert_eq!(sources.map(|(source, _)| source).collect::<HashSet<_>>().len(), 300);
        }
    }
}
