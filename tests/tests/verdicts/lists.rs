//! Allow and deny lists, both families.

use anyhow::Result;
use ctguard_layout::{Class, Counter, List, Outcome, Policy};
use ctguard_tests::{data_path::DataPath, frames::flags, require};

use crate::{
    packets::{self, LOCAL, LOCAL6, REMOTE, REMOTE6, ipv4_bytes, ipv6_bytes},
    row::{self, Row, drops, passes},
};
use Counter::{Allowed, Flows, Packets, Wakeups};
use Outcome::{Admitted, Denied, Exempt, RefusedFallback, RefusedGrant, RefusedSource};

/// Fails when a list is not asked, asked of the wrong address or family, or holds beyond its
/// purpose: an allowed source skips its ceiling, never its own grant.
#[test]
fn lists_hold_for_their_prefixes_and_no_further() -> Result<()> {
    if !require::root("lists_hold_for_their_prefixes_and_no_further") {
        return Ok(());
    }
    row::check(&rows())
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (class, four, six) in FLOWS {
        let new = [Flows(Admitted, class)];
        let allowed = [Flows(Admitted, class), Allowed(class)];
        rows.extend([
            drops("a denied source", four(), &[Flows(Denied, class)]).after(listed(List::DenyV4)),
            drops("a denied network", six(), &[Flows(Denied, class)]).after(listed(List::DenyV6)),
            passes("a denied source, dry run", four(), &[Flows(Denied, class)])
                .after(listed(List::DenyV4))
                .after(|path| path.set_policy(|policy| policy.switches = Policy::DRY_RUN)),
            passes("an allowed source, strangers' grant spent", four(), &allowed)
                .after(listed(List::AllowV4))
                .without_grant(),
            passes("an allowed network, strangers' grant spent", six(), &allowed)
                .after(listed(List::AllowV6))
                .without_grant(),
            passes("an allowed source has no ceiling", four(), &allowed)
                .after(listed(List::AllowV4))
                .after(no_burst),
            drops("its own grant spent", four(), &[Flows(RefusedGrant, class), Wakeups])
                .after(listed(List::AllowV4))
                .where_grant(|grant| grant.allowances[1].limit.store(0)),
            drops("its own fallback spent", four(), &[Flows(RefusedFallback, class)])
                .after(listed(List::AllowV4))
                .where_grant(|grant| {
                    grant.heartbeat.store(0);
                    grant.fallback[1].arrival.store(1 << 62);
                }),
            drops("denied and allowed", four(), &[Flows(Denied, class)])
                .after(listed(List::AllowV4))
                .after(listed(List::DenyV4))
                .after(in_use(List::AllowV4.bit() | List::DenyV4.bit())),
            drops("a source that a feed denies", four(), &[Flows(Denied, class)])
                .after(listed(List::FeedDenyV4)),
            drops("a network that a feed denies", six(), &[Flows(Denied, class)])
                .after(listed(List::FeedDenyV6)),
            passes("a source that a feed allows, strangers' grant spent", four(), &allowed)
                .after(listed(List::FeedAllowV4))
                .without_grant(),
            passes("a network that a feed allows, strangers' grant spent", six(), &allowed)
                .after(listed(List::FeedAllowV6))
                .without_grant(),
            passes("denied by a feed and allowed by the operator", four(), &allowed)
                .after(listed(List::FeedDenyV4))
                .after(listed(List::AllowV4))
                .after(in_use(List::FeedDenyV4.bit() | List::AllowV4.bit())),
            passes("denied by a feed and allowed by another", six(), &allowed)
                .after(listed(List::FeedDenyV6))
                .after(listed(List::FeedAllowV6))
                .after(in_use(List::FeedDenyV6.bit() | List::FeedAllowV6.bit())),
            drops("allowed by a feed and denied by the operator", four(), &[Flows(Denied, class)])
                .after(listed(List::FeedAllowV4))
                .after(listed(List::DenyV4))
                .after(in_use(List::FeedAllowV4.bit() | List::DenyV4.bit())),
            passes("a list that is not in use", four(), &new)
                .after(listed(List::DenyV4))
                .after(in_use(0)),
            passes("a list of the other family", six(), &new).after(listed(List::DenyV4)),
            row::refuses("the ceiling of a stranger", four(), RefusedSource, class).after(no_burst),
        ]);
    }
    rows.push(
        passes("neighbour discovery of a denied source", discovery(), &[Packets(Exempt)])
            .after(listed(List::DenyV6)),
    );
    rows.push(
        drops(
            "an established connection of a source denied later",
            ack(),
            &[Flows(Denied, Class::Tcp)],
        )
        .after_arrival_of(packets::syn(1))
        .after(listed(List::DenyV4)),
    );
    rows.push(
        passes("the source next to a denied one", packets::udp("192.0.2.2", LOCAL, 1), &NEW_UDP)
            .after(|path| {
                path.list_ipv4(List::DenyV4, ipv4_bytes(REMOTE), 32, 0)?;
                in_use(List::DenyV4.bit())(path)
            }),
    );
    rows
}

const NEW_UDP: [Counter; 1] = [Flows(Admitted, Class::Udp)];

type NewFlow = fn() -> Vec<u8>;

/// A new flow of each class over IPv4 and IPv6.
const FLOWS: [(Class, NewFlow, NewFlow); 3] = [
    (Class::Tcp, || packets::syn(1), || packets::tcp(REMOTE6, LOCAL6, 1, flags::SYN)),
    (Class::Udp, || packets::udp(REMOTE, LOCAL, 1), || packets::udp(REMOTE6, LOCAL6, 1)),
    (
        Class::Other,
        || packets::icmp(REMOTE, LOCAL, 8, 1),
        || packets::icmp(REMOTE6, LOCAL6, 128, 1),
    ),
];

fn ack() -> Vec<u8> {
    packets::tcp(REMOTE, LOCAL, 1, flags::ACK)
}

fn discovery() -> Vec<u8> {
    packets::icmp(REMOTE6, LOCAL6, 135, 0)
}

/// The remote's network (a /24, a /48) on the list, and the list in use.
fn listed(list: List) -> impl Fn(&mut DataPath) -> Result<()> {
    move |path| {
        match list {
            List::AllowV4 | List::DenyV4 | List::FeedAllowV4 | List::FeedDenyV4 => {
                path.list_ipv4(list, ipv4_bytes("192.0.2.0"), 24, 0)?;
            }
            List::AllowV6 | List::DenyV6 | List::FeedAllowV6 | List::FeedDenyV6 => {
                path.list_ipv6(list, ipv6_bytes("2001:db8::"), 48, 0)?;
            }
        }
        in_use(list.bit())(path)
    }
}

fn in_use(lists: u32) -> impl Fn(&mut DataPath) -> Result<()> {
    move |path| row::set_environment(path, |environment| environment.operator.lists_in_use = lists)
}

/// No source may open anything: its ceilings' theoretical arrival time may not even be now.
fn no_burst(path: &mut DataPath) -> Result<()> {
    path.set_interface(|interface| {
        interface.ceilings = [row::slow(1); ctguard_layout::CLASS_SLOTS];
    })?;
    for frame in
        [packets::syn(9), packets::udp(REMOTE, LOCAL, 9), packets::icmp(REMOTE, LOCAL, 8, 9)]
    {
        path.judge(&frame)?;
    }
    Ok(())
}
