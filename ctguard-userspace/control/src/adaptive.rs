//! Adaptive timeouts as pf has them: from `start` on conntrack's timeouts shrink with the space that
//! is left, and would be nothing at `end`.
//!
//! Entries that nobody answered shrink first; those of established flows only in the second half of
//! the way, and never under what RFC 5382 (section 5) and RFC 4787 (section 4.3) ask. What the
//! operator sets meanwhile wins: a value that is not the one written last is theirs, and the new
//! original.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A kind of flows that has a timeout of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// Behind `nf_conntrack_` in the name of its setting.
    pub name: &'static str,
    /// Who shrinks when.
    turn: Turn,
    /// It is never made less, in seconds; a lower original stays as it is.
    pub floor: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Nobody has answered: between `start` and `end`.
    Unreplied,
    /// Half open or closing: the same, and the floor is what RFC 5382 asks of such.
    Transitory,
    /// Answered: from half way on.
    Replied,
}

/// A handshake over a bad path: its third SYN comes after 3 s, its fourth after 7.
const HANDSHAKE_FLOOR: u32 = 8;
/// Of a protocol that waits for one answer.
const ANSWER_FLOOR: u32 = 3;
/// RFC 5382: the transitory idle timeout of a connection, partially open or closing, is at least
/// four minutes. The kernel's own are mostly less, and stay.
const TRANSITORY_FLOOR: u32 = 240;
/// RFC 5382: two hours and four minutes.
const ESTABLISHED_FLOOR: u32 = 7440;
/// RFC 4787: two minutes.
const UDP_FLOOR: u32 = 120;

/// Every timeout that adapts.
pub const TIMEOUTS: [Timeout; 19] = [
    unreplied("tcp_timeout_syn_sent", HANDSHAKE_FLOOR),
    unreplied("tcp_timeout_syn_recv", HANDSHAKE_FLOOR),
    unreplied("udp_timeout", ANSWER_FLOOR),
    unreplied("icmp_timeout", ANSWER_FLOOR),
    unreplied("icmpv6_timeout", ANSWER_FLOOR),
    unreplied("gre_timeout", ANSWER_FLOOR),
    unreplied("generic_timeout", ANSWER_FLOOR),
    unreplied("sctp_timeout_cookie_wait", ANSWER_FLOOR),
    unreplied("dccp_timeout_request", HANDSHAKE_FLOOR),
    transitory("tcp_timeout_unacknowledged"),
    transitory("tcp_timeout_max_retrans"),
    transitory("tcp_timeout_fin_wait"),
    transitory("tcp_timeout_close_wait"),
    transitory("tcp_timeout_last_ack"),
    transitory("tcp_timeout_time_wait"),
    replied("tcp_timeout_established", ESTABLISHED_FLOOR),
    replied("udp_timeout_stream", UDP_FLOOR),
    replied("gre_timeout_stream", UDP_FLOOR),
    replied("sctp_timeout_established", ESTABLISHED_FLOOR),
];

const fn unreplied(name: &'static str, floor: u32) -> Timeout {
    Timeout { name, turn: Turn::Unreplied, floor }
}

const fn transitory(name: &'static str) -> Timeout {
    Timeout { name, turn: Turn::Transitory, floor: TRANSITORY_FLOOR }
}

const fn replied(name: &'static str, floor: u32) -> Timeout {
    Timeout { name, turn: Turn::Replied, floor }
}

/// Between which fills timeouts shrink, each a share of the table's maximum, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaptiveRange {
    start: f64,
    end: f64,
}

impl AdaptiveRange {
    /// `None` unless `start` lies before `end`, both being shares.
    pub fn new(start: f64, end: f64) -> Option<Self> {
        (0.0 <= start && start < end && end <= 1.0).then_some(Self { start, end })
    }

    /// What is left of the way: 1 up to `start`, 0 from `end` on.
    fn left(self, fill: f64) -> f64 {
        ((self.end - fill) / (self.end - self.start)).clamp(0.0, 1.0)
    }
}

/// What is known of one setting that is in our hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adapted {
    /// The operator's value, to be restored.
    pub original: u32,
    /// What is to be written, or was written last.
    pub written: u32,
    /// What it was before that: a daemon that is killed leaves the one or the other.
    pub before: u32,
}

impl Adapted {
    const fn explains(self, value: u32) -> bool {
        value == self.original || value == self.written || value == self.before
    }
}

/// The settings that are in our hands, by name; whoever finds it can restore them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Record(BTreeMap<String, Adapted>);

impl Record {
    /// Nothing to restore.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes that the kernel has taken what was to be written to `name`.
    pub fn settle(&mut self, name: &str) {
        if let Some(adapted) = self.0.get_mut(name) {
            adapted.before = adapted.written;
            if adapted.written == adapted.original {
                self.0.remove(name);
            }
        }
    }
}

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adaptation {
    /// Saved before anything of `writes` is written, and settled with each write.
    pub record: Record,
    /// Name and value of each setting that must change.
    pub writes: Vec<(String, u32)>,
}

/// Fits the timeouts to the fill, or restores them where `range` is `None`: it is off, or the
/// daemon starts or ends.
///
/// `current` tells what a setting is now, `None` where this kernel has none.
pub fn adapt(
    range: Option<AdaptiveRange>,
    fill: f64,
    record: &Record,
    current: impl Fn(&str) -> Option<u32>,
) -> Adaptation {
    let left = range.map_or(1.0, |range| range.left(fill));
    let mut adaptation = Adaptation::default();
    for timeout in TIMEOUTS {
        let name = timeout.name;
        let Some(before) = current(name) else { continue };
        let known = record.0.get(name).filter(|adapted| adapted.explains(before));
        let original = known.map_or(before, |adapted| adapted.original);
        let written = timeout.adapted(original, left);
        if written != original || written != before {
            let adapted = Adapted { original, written, before };
            adaptation.record.0.insert(name.to_owned(), adapted);
        }
        if written != before {
            adaptation.writes.push((name.to_owned(), written));
        }
    }
    adaptation
}

impl Timeout {
    /// Rounded up, so that nothing is written before it makes a second's difference.
    fn adapted(self, original: u32, left: f64) -> u32 {
        let factor = match self.turn {
            Turn::Unreplied | Turn::Transitory => left,
            Turn::Replied => (2.0 * left).min(1.0),
        };
        let scaled = (f64::from(original) * factor).ceil();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a u32"
        )]
        let scaled = scaled as u32;
        scaled.max(self.floor.min(original))
    }
}

#[cfg(test)]
mod tests;
