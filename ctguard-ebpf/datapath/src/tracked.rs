//! Writes a dump of conntrack's table into the known-flows filter, and into the flow cache for
//! flows about which conntrack cannot be asked.

use crate::{
    classify,
    flow::{self, FlowLines, Passing},
    hash,
    known_flows::{self, KnownWords},
    layout::{Environment, FlowKind},
    packet::{Address, TcpFlags, protocol},
    place::Place,
    units::Coarse,
};

/// The tuple of one direction of an entry, as its packets arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Transport protocol.
    pub protocol: u8,
    /// See [`classify::Flow::key`].
    pub key: u32,
}

impl<A: Address> Tuple<A> {
    /// Notes the tuple in one generation of the filter.
    pub fn note<W: KnownWords>(&self, words: &W, environment: &Environment, generation: u32) {
        known_flows::note_in(words, environment, self.hash(environment), generation);
    }

    /// Adds the flow to the flow cache, if there is room, for at most `life` coarse units.
    pub fn remember<L: FlowLines>(
        &self,
        lines: &L,
        environment: &Environment,
        answered: bool,
        life: u32,
        now: Coarse,
    ) {
        let passing = Passing {
            leaving: true,
            answers: answered,
            kind: classify::kind_of(self.protocol, &environment.daemon),
            flags: TcpFlags(0),
        };
        // A connection that is being opened or closed is left out and charged once: the cache would
        // keep it as an established one, for longer than conntrack does.
        let established = environment.flow_timeout(FlowKind::TcpEstablished);
        if self.protocol == protocol::TCP && (!answered || life < established) {
            return;
        }
        let place = Place::of_flow(self.hash(environment), environment);
        flow::learn(lines, place, environment, passing, life, now);
    }

    fn hash(&self, environment: &Environment) -> u64 {
        let Self { source, destination, protocol, key } = *self;
        hash::tuple(&environment.fixed.tuple_key, source, destination, protocol, key)
    }
}
