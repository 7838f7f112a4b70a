//! SYNs that somebody sends in a client's name.

use std::collections::BTreeMap;

use super::*;

/// A live client at [`REMOTE`] that opens a connection twice a second, and somebody who sends 1,000
/// SYNs per second in its name; the share of its connections that are served by their third SYN.
struct Impersonated {
    lab: Lab,
    random: u64,
    /// When each SYN is sent, in milliseconds: its port, sequence number and try; the attacker's
    /// have no try.
    due: BTreeMap<u64, Vec<(u32, u32, Option<usize>)>>,
}

impl Impersonated {
    const SECONDS: u64 = 60;

    fn new(lab: Lab) -> Self {
        Self { lab, random: 0x9e37_79b9_7f4a_7c15, due: BTreeMap::new() }
    }

    fn next(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        hash::low_word(self.random >> 16)
    }

    fn plan(&mut self, at: u64, port: u32, sequence: u32, attempt: Option<usize>) {
        self.due.entry(at).or_default().push((port, sequence, attempt));
    }

    fn served(mut self) -> f64 {
        for at in 0..Self::SECONDS * 1000 {
            let (port, sequence) = (self.next() & 0xffff, self.next());
            self.plan(at, port, sequence, None);
        }
        let connections = 2 * (Self::SECONDS - 10);
        for number in 0..connections {
            let sequence = self.next();
            let port = 40_000 + u32::try_from(number).unwrap();
            self.plan(3_000 + number * 500, port, sequence, Some(0));
        }
        let (mut served, mut passed) = (0_u32, 0);
        while let Some((at, syns)) = self.due.pop_first() {
            self.lab.pass(at - passed);
            passed = at;
            for (port, sequence, attempt) in syns {
                let mut frame = syn(REMOTE, LOCAL, port);
                let field = frame.len() - 20 + 4;
                frame[field..field + 4].copy_from_slice(&sequence.to_be_bytes());
                let judged = self.lab.judge(&frame);
                if judged == ASKED {
                    // The client's host answers whoever is asked in its name.
                    reset(&self.lab, port, self.lab.cookie.get().unwrap());
                }
                let Some(attempt) = attempt else { continue };
                if judged == Outcome::Admitted {
                    served += 1;
                } else if attempt < 2 {
                    let gap = if judged == ASKED { 10 } else { 1_000 };
                    self.plan(at + gap, port, sequence, Some(attempt + 1));
                }
            }
        }
        f64::from(served) / f64::from(u32::try_from(connections).unwrap())
    }
}

/// A lab where only shares limit sources.
fn shared() -> Lab {
    let mut lab = remembering();
    let [share, ..] = lab.interface.ceilings;
    lab.interface.ceilings = [Ceiling { interval: Ticks(0), tolerance: Ticks(0) }; CLASS_SLOTS];
    lab.limits.shares = [[share; CLASS_SLOTS]; Tier::ALL.len()];
    lab
}

/// Fails when who sends SYNs in a client's name spends its answers and its share.
#[test]
fn a_thousand_syns_per_second_in_its_name_keep_no_client_out() {
    let served = Impersonated::new(shared()).served();
    assert!(served >= 0.99, "{served}");
}

#[test]
fn a_thousand_syns_per_second_in_its_name_keep_no_regular_out() {
    for stage in [Stage::Fair, Stage::Challenge] {
        let mut lab = shared();
        lab.limits.stages = [stage as u32; 4];
        know(&lab, 0xc000_0201, Tiers::REGULAR);
        let served = Impersonated::new(lab).served();
        assert!(served >= 0.99, "{stage:?}: {served}");
    }
}
