//! How many TCP entries of a conntrack table are in which state.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use netlink_packet_core::{NLM_F_DUMP, NetlinkPayload};
use netlink_packet_netfilter::{
    NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{ConntrackAttribute, ConntrackMessage, ProtoInfo, ProtoInfoTCP, Status},
};
use rustix::net::{RecvFlags, recv};

use crate::{conntrack, netns::Handle};

/// `enum tcp_conntrack`, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "states of RFC 9293, and the kernel's names for them")]
pub enum State {
    None,
    SynSent,
    SynReceived,
    Established,
    FinWait,
    CloseWait,
    LastAck,
    TimeWait,
    Close,
}

/// What a table holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpStates {
    /// TCP entries by their state.
    pub by_state: BTreeMap<State, u64>,
    /// Those that the kernel does not evict (`IPS_ASSURED`).
    pub assured: u64,
}

impl TcpStates {
    /// Counts the entries of the namespace, of both families.
    pub fn count(namespace: &Handle) -> Result<Self> {
        namespace.run(|| {
            let mut states = Self::default();
            dump(|attributes| states.add(attributes))?;
            Ok(states)
        })
    }

    /// Entries in this state.
    #[must_use]
    pub fn of(&self, state: State) -> u64 {
        self.by_state.get(&state).copied().unwrap_or(0)
    }

    fn add(&mut self, attributes: &[ConntrackAttribute]) {
        let state = attributes.iter().find_map(|attribute| {
            let ConntrackAttribute::CtaProtoInfo(infos) = attribute else { return None };
            infos.iter().find_map(tcp_state)
        });
        let Some(state) = state else { return };
        *self.by_state.entry(state).or_default() += 1;
        let assured = attributes.iter().any(|attribute| {
            matches!(attribute, ConntrackAttribute::CtaStatus(status)
                if status.contains(Status::Assured))
        });
        self.assured += u64::from(assured);
    }
}

fn tcp_state(info: &ProtoInfo) -> Option<State> {
    const STATES: [State; 9] = [
        State::None,
        State::SynSent,
        State::SynReceived,
        State::Established,
        State::FinWait,
        State::CloseWait,
        State::LastAck,
        State::TimeWait,
        State::Close,
    ];
    let ProtoInfo::TCP(fields) = info else { return None };
    fields.iter().find_map(|field| {
        let ProtoInfoTCP::State(state) = field else { return None };
        STATES.get(usize::from(*state)).copied()
    })
}

/// Lists this thread's table.
fn dump(mut each: impl FnMut(&[ConntrackAttribute])) -> Result<()> {
    let socket = conntrack::open(0)?;
    let all = ConntrackMessage::Get(Vec::new());
    conntrack::send_request(&socket, NLM_F_DUMP, NetfilterProtoFamily::Unspec, all)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let (length, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        for message in conntrack::messages(buffer.get(..length).unwrap_or_default())? {
            if let NetlinkPayload::Done(_) = message.payload {
                return Ok(());
            } else if let NetlinkPayload::Error(error) = message.payload {
                return Err(std::io::Error::from(error)).context("ctnetlink lists nothing");
            } else if let NetlinkPayload::InnerMessage(message) = message.payload
                && let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) =
                    &message.inner
            {
                each(attributes);
            }
        }
    }
}
