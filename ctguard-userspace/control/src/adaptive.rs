//! Adaptive timeouts as in pf: between the fills `start` and `end`, conntrack's timeouts shrink
//! linearly, towards 0.
//!
//! Timeouts of replied entries shrink only in the second half, and never below what RFC 5382 (section
//! 5) and RFC 4787 (section 4.3) ask for. If the operator sets a timeout meanwhile, that value
//! becomes the original.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One of conntrack's timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// Without the prefix `nf_conntrack_`.
    pub name: &'static str,
    /// It shrinks only in the second half.
    late: bool,
    /// Lower bound in seconds; a lower original stays as it is.
    pub floor: u32,
}

/// A handshake over a lossy path: the third SYN comes after 3 s, the fourth after 7.
const HANDSHAKE_FLOOR: u32 = 8;
/// Time for one answer.
const ANSWER_FLOOR: u32 = 3;
/// RFC 5382: at least four minutes for partially open and closing connections. Most of the kernel's
/// timeouts are lower, and stay.
const TRANSITORY_FLOOR: u32 = 240;
/// RFC 5382: two hours and four minutes.
const ESTABLISHED_FLOOR: u32 = 7440;
/// RFC 4787: two minutes.
const UDP_FLOOR: u32 = 120;

/// All timeouts that adapt.
pub const TIMEOUTS: [Timeout; 19] = [
    early("tcp_timeout_syn_sent", HANDSHAKE_FLOOR),
    early("tcp_timeout_syn_recv", HANDSHAKE_FLOOR),
    early("udp_timeout", ANSWER_FLOOR),
    early("icmp_timeout", ANSWER_FLOOR),
    early("icmpv6_timeout", ANSWER_FLOOR),
    early("gre_timeout", ANSWER_FLOOR),
    early("generic_timeout", ANSWER_FLOOR),
    early("sctp_timeout_cookie_wait", ANSWER_FLOOR),
    early("dccp_timeout_request", HANDSHAKE_FLOOR),
    early("tcp_timeout_unacknowledged", TRANSITORY_FLOOR),
    early("tcp_timeout_max_retrans", TRANSITORY_FLOOR),
    early("tcp_timeout_fin_wait", TRANSITORY_FLOOR),
    early("tcp_timeout_close_wait", TRANSITORY_FLOOR),
    early("tcp_timeout_last_ack", TRANSITORY_FLOOR),
    early("tcp_timeout_time_wait", TRANSITORY_FLOOR),
    late("tcp_timeout_established", ESTABLISHED_FLOOR),
    late("udp_timeout_stream", UDP_FLOOR),
    late("gre_timeout_stream", UDP_FLOOR),
    late("sctp_timeout_established", ESTABLISHED_FLOOR),
];

const fn early(name: &'static str, floor: u32) -> Timeout {
    Timeout { name, late: false, floor }
}

const fn late(name: &'static str, floor: u32) -> Timeout {
    Timeout { name, late: true, floor }
}

/// The fills between which timeouts shrink, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaptiveRange {
    start: f64,
    end: f64,
}

impl AdaptiveRange {
    /// `None` unless 0 ≤ `start` < `end` ≤ 1.
    pub fn new(start: f64, end: f64) -> Option<Self> {
        (0.0 <= start && start < end && end <= 1.0).then_some(Self { start, end })
    }

    /// 1 up to `start`, 0 from `end` on.
    fn left(self, fill: f64) -> f64 {
        ((self.end - fill) / (self.end - self.start)).clamp(0.0, 1.0)
    }
}

/// A timeout that ctguard has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adapted {
    /// The operator's value, to be restored.
    pub original: u32,
    /// The value that is to be written, or was written last.
    pub written: u32,
    /// The value before that. A daemon that is killed leaves either of the two.
    pub before: u32,
}

impl Adapted {
    const fn explains(self, value: u32) -> bool {
        value == self.original || value == self.written || value == self.before
    }
}

/// All timeouts that ctguard has changed, by name, so that they can be restored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Record(BTreeMap<String, Adapted>);

impl Record {
    /// Whether there is nothing to restore.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes that the value of `name` was written.
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
    /// To be saved before the writes, and settled after each of them.
    pub record: Record,
    /// Name and new value of each timeout that must change.
    pub writes: Vec<(String, u32)>,
}

/// Fits the timeouts to the fill. Without a `range` it restores them: adaptive timeouts are off, or
/// the daemon starts or ends.
///
/// `current` reads a timeout; `None` if this kernel does not have it.
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
    /// Rounded up, so that a change is at least one second.
    fn adapted(self, original: u32, left: f64) -> u32 {
        let factor = if self.late { (2.0 * left).min(1.0) } else { left };
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
