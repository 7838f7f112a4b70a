//! Peers in a table, with what ctguard may cost beside them.

use std::fmt::Write as _;

use super::{FEW, MANY, Measured, Peer, Peers};

/// What ctguard is to be beside a peer: how many times its cost at most.
struct Bar {
    peer: Peer,
    sources_bits: u32,
    at_most: f64,
}

const BARS: [Bar; 5] = [
    Bar { peer: Peer::DropOnly, sources_bits: FEW, at_most: 1.5 },
    Bar { peer: Peer::DropOnly, sources_bits: MANY, at_most: 2.0 },
    Bar { peer: Peer::XdpFilter, sources_bits: FEW, at_most: 1.0 / 1.2 },
    Bar { peer: Peer::XdpFilter, sources_bits: MANY, at_most: 1.0 },
    Bar { peer: Peer::NftIngressMeter, sources_bits: FEW, at_most: 1.0 / 5.0 },
];

impl Peers {
    fn of(&self, peer: Peer, bits: u32) -> Option<&Measured> {
        self.measured.iter().find(|one| one.peer == peer && one.sources_bits == bits)
    }

    /// What ctguard costs in times of a peer, and the bar, where both were measured.
    fn judged(&self) -> impl Iterator<Item = (&Bar, f64)> {
        BARS.iter().filter_map(|bar| {
            let ctguard = self.of(Peer::Ctguard, bar.sources_bits)?.nanoseconds;
            Some((bar, ctguard / self.of(bar.peer, bar.sources_bits)?.nanoseconds))
        })
    }

    /// Whether every bar holds.
    pub(crate) fn holds(&self) -> bool {
        self.judged().all(|(bar, ratio)| ratio <= bar.at_most)
    }

    /// Names, and nanoseconds a packet with few and with many sources.
    pub(crate) fn costs(&self) -> Vec<(Peer, [f64; 2])> {
        let costs = Peer::ALL.into_iter().filter_map(|peer| {
            let [few, many] = [FEW, MANY].map(|bits| self.of(peer, bits));
            Some((peer, [few?.nanoseconds, many?.nanoseconds]))
        });
        costs.collect()
    }

    /// How often each flood was made.
    pub(crate) fn rounds(&self) -> usize {
        self.measured.iter().map(|one| one.rounds.len()).max().unwrap_or(0)
    }

    /// A Markdown table.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "| on the outer interface | 4,096 sources: ns/packet | × | packets per CPU-second | new clients served | 2^28 sources: ns/packet | × | packets per CPU-second | new clients served |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for peer in Peer::ALL.into_iter().filter(|peer| self.of(*peer, FEW).is_some()) {
            let cells = [FEW, MANY].map(|bits| {
                let Some(one) = self.of(peer, bits) else {
                    return "– | – | – | –".to_owned();
                };
                let floor = self.of(Peer::DropOnly, bits).map_or(f64::NAN, |one| one.nanoseconds);
                let (cost, success) = (one.nanoseconds, 100.0 * one.success);
                let (times, millions) = (cost / floor, 1000.0 / cost);
                // What drops all is no guard.
                let drops_all = peer == Peer::DropOnly;
                let served = if drops_all { "–".to_owned() } else { format!("{success:.0} %") };
                format!("{cost:.0} | {times:.1} | {millions:.2} M | {served}")
            });
            let _ = writeln!(text, "| {} | {} | {} |", peer.name(), cells[0], cells[1]);
        }
        text
    }

    /// What was not measured, and the bars, one a line.
    pub(crate) fn remarks(&self) -> String {
        let mut text = String::new();
        for (peer, reason) in &self.missing {
            let _ = writeln!(text, "- not measured: {} ({reason})", peer.name());
        }
        for bits in [FEW, MANY] {
            let Some(ctguard) = self.of(Peer::Ctguard, bits) else { continue };
            let percent = 100.0 * ctguard.daemon_ratio;
            let _ = writeln!(
                text,
                "- 2^{bits} sources: ctguard's daemon takes {percent:.0} % of a CPU besides"
            );
        }
        for (bar, ratio) in self.judged() {
            let missed = if ratio > bar.at_most { ": **missed**" } else { "" };
            let _ = writeln!(
                text,
                "- 2^{} sources: ctguard costs {ratio:.2} × {}, bar ≤ {:.2}{missed}",
                bar.sources_bits,
                bar.peer.name(),
                bar.at_most
            );
        }
        text
    }
}
