//! The steps, in their order: those before conntrack is loaded, and those after.

use anyhow::Result;

use super::{detach, detection, machine, nat, pinned, report::Report, start, suite, traffic, vlan};

/// Something that must hold on every kernel.
pub(super) struct Step {
    /// A sentence.
    pub(super) name: &'static str,
    /// Whether it holds.
    pub(super) run: fn(&mut Report) -> Result<()>,
}

pub(super) const ALL: &[Step] = &[
    Step {
        name: "without conntrack a guard starts, goes by the flow cache, and says why",
        run: start::without_conntrack,
    },
    Step { name: "conntrack's modules load, and tell their types", run: machine::load_conntrack },
    Step { name: "a guard on a veth is native and watches what leaves", run: start::guards },
    Step { name: "the pinned programs judge frames as they should", run: pinned::judges },
    Step { name: "of real packets only the admitted make entries", run: traffic::makes_entries },
    Step {
        name: "answers through a NAT pass, and nothing else, told by conntrack",
        run: nat::by_conntrack,
    },
    Step {
        name: "answers through a NAT pass, and nothing else, told by the flow cache",
        run: nat::by_flow_cache,
    },
    Step {
        name: "conntrack, asked through its module's types, knows flows older than the guard",
        run: detection::knows_older_flows,
    },
    Step {
        name: "the flow cache learns flows older than the guard from a dump",
        run: detection::flow_cache_learns,
    },
    Step {
        name: "without the module's types the flow cache answers, and says why",
        run: detection::falls_back,
    },
    Step { name: "a guard below a VLAN reads tags in frames", run: vlan::in_frames },
    Step { name: "a guard below a VLAN reads tags beside frames", run: vlan::beside_frames },
    Step { name: "detach leaves nothing behind", run: detach::leaves_nothing },
    Step { name: "every verdict of the object is the expected one", run: suite::verdicts },
];
