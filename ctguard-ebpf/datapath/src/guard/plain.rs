//! The short way of nearly every packet: one of a flow that this CPU has just seen, or one of a flood.
//!
//! What it decides, [`Guard::judge`] would decide too. It has few values to carry along, so the
//! compiler keeps them in registers.

use super::{Guard, Judgement, Tables};
use crate::{
    classify::{self, Meaning},
    known_flows,
    layout::{List, Outcome},
    packet::{self, Reader, TcpFlags},
    recent,
    units::Jiffies,
};

const DENY: u32 = List::DenyV4.bit() | List::FeedDenyV4.bit();

impl<T: Tables> Guard<'_, T> {
    /// Judges a frame if it is plain, and known to this CPU or to be refused at once; the others are
    /// [`Judgement::UNDECIDED`], and nothing has changed.
    #[inline(always)]
    pub fn judge_plain(&self, frame: Reader<'_>, now: Jiffies) -> Judgement {
        let environment = self.environment;
        let (operator, daemon) = (&environment.operator, &environment.daemon);
        if operator.lists_in_use & DENY | daemon.stations_in_use != 0 {
            return Judgement::UNDECIDED;
        }
        let Some(packet) = packet::parse_plain(frame) else { return Judgement::UNDECIDED };
        let Meaning::Of(flow) = classify::classify(&packet, daemon) else {
            return Judgement::UNDECIDED;
        };
        if flow.is_syn() && self.may_answer_syns() || flow.flags.any(TcpFlags::RST) {
            return Judgement::UNDECIDED;
        }
        let hash = self.tuple_hash(&packet, flow);
        if flow.goes_on()
            && self.tables.cpu_state().recent(hash).load() == recent::mark(hash, self.coarse(now))
        {
            return Judgement::packet(Outcome::Known);
        }
        if !environment.asks_conntrack(flow.class)
            || daemon.known_complete == 0
            || now.0 < environment.capture.until
            || !flow.opens(daemon.tcp_loose != 0)
            || self.learns(flow, now)
            || classify::may_be_exempt(&packet)
            || known_flows::may_hold(&self.tables, environment, hash)
            || self.is_allowed(packet.source, now)
        {
            return Judgement::UNDECIDED;
        }
        self.refuse_early(packet.source, flow, now)
    }
}
