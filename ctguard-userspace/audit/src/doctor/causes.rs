//! What fills the table: the likeliest cause, from a dump of its entries.

use std::net::IpAddr;

use ctguard_datapath::packet::protocol;

use super::{
    census::{CLOSE_WAIT_SECONDS, Census, Kind, Remote},
    finding::Finding,
    guard::START,
    neighbours::Neighbours,
    planned::Planned,
    text::{per_cent, share},
    timeout_rules::shortest_established,
};
use crate::host::{MAX, TableNumbers, sysctl_path};

/// No cause is looked for in a table that is less full.
const HALF: f64 = 0.5;
/// A kind of entry is the cause from this share on.
const DOMINATES: f64 = 0.3;
/// A source is the cause from this share on.
const ONE_SOURCE: f64 = 0.25;
/// A source of whose flows this share goes to one service is not scanning.
const ONE_SERVICE: f64 = 0.5;
/// Ports that source NAT gives to a flow from port 1024 and above (`nf_nat_l4proto_unique_tuple`,
/// `net/netfilter/nf_nat_core.c`).
const NAT_PORTS: u64 = 64_512;
const NAT_PORTS_TAKEN: [f64; 2] = [0.8, 0.95];

/// One kind of flow from many sources: its kind, the check, what fills the table, why, and a comment.
type Flood = (Kind, &'static str, &'static str, &'static str, &'static str);
const WHERE: &str = "    # the interface where it arrives";
const FLOODS: [Flood; 3] = [
    (
        Kind::HalfOpen,
        "syn-flood",
        "TCP handshakes from many sources that were never completed",
        "a flood of SYNs, or of ACKs and FINs, from many or forged addresses: each address and port \
         creates an entry that lives for a minute or longer",
        WHERE,
    ),
    (
        Kind::Dns,
        "dns-loop",
        "DNS queries",
        "every query from a new port is a flow; a resolver without NAT need not track them",
        "",
    ),
    (
        Kind::UdpUnanswered,
        "udp-flood",
        "unreplied UDP flows from many sources",
        "a UDP flood: every datagram from a new address or port creates an entry for half a minute",
        WHERE,
    ),
];

pub(super) const DUMP: &str = "ctnetlink: dump of the table";
pub(super) const CLOSE_WAIT: &str = "net.netfilter.nf_conntrack_tcp_timeout_close_wait";

pub(super) fn judge(
    census: &Census,
    table: TableNumbers,
    neighbours: &Neighbours,
    planned: &Planned,
) -> Vec<Finding> {
    let mut found = Vec::from_iter(ports(census));
    if table.fill_ratio().is_some_and(|fill| fill >= HALF) && census.entries > 0 {
        found.extend(cause(census, neighbours, planned));
    }
    found.extend(old_deadlines(census));
    found.extend(offloaded(census));
    found
}

fn cause(census: &Census, neighbours: &Neighbours, planned: &Planned) -> Option<Finding> {
    let half_closed = census.of(Kind::CloseWait);
    if census.share(half_closed) >= DOMINATES {
        return Some(close_wait(census, half_closed));
    }
    if let Some((source, held)) = census.sources.first()
        && census.share(held) >= ONE_SOURCE
    {
        return Some(one_source(census, (source, held), neighbours, planned));
    }
    let flood = FLOODS.iter().max_by_key(|(kind, ..)| census.of(*kind))?;
    let (many, quiet) = (census.of(flood.0), census.of(Kind::Idle));
    let finding = if quiet < many {
        from_many_sources(census, flood, many)
    } else {
        idle(census, quiet, planned)
    };
    finding.when(census.share(many.max(quiet)) >= DOMINATES)
}

fn held(census: &Census, finding: Finding, many: u64) -> Finding {
    finding.read(DUMP, format!("{many} of {} entries read", census.entries))
}

/// What a source that holds a quarter or more is doing.
fn one_source(
    census: &Census,
    (source, many): (IpAddr, u64),
    neighbours: &Neighbours,
    planned: &Planned,
) -> Finding {
    let share = per_cent(census.share(many));
    let near = neighbours.get(&source).map(|name| format!(" ({name})")).unwrap_or_default();
    let name = format!("{source}{near}");
    let most = census.sources_of.first_that(|(_, who)| *who == source);
    let (most, of_most) = most.map_or((Kind::Other, 0), |((kind, _), count)| (kind, count));
    let service = census.destinations.first_that(|(kind, ..)| *kind == most);
    let one_service = service
        .is_some_and(|(_, count)| census.share(count) >= ONE_SERVICE * census.share(of_most));
    let finding = match most {
        Kind::Idle => return idle(census, census.of(Kind::Idle), planned),
        Kind::Dns => {
            let what = format!("DNS queries from {name} hold {share} of the table");
            Finding::fault("dns-loop", what).because(
                "every query from a new port is a flow that stays for at least half a minute: a \
                 program resolves names in a loop, or the host takes part in an attack",
            )
        }
        Kind::HalfOpen | Kind::UdpUnanswered if one_service => {
            let check = if most == Kind::HalfOpen { "syn-flood" } else { "udp-flood" };
            let what = format!("{name} floods one service and holds {share} of the table");
            Finding::fault(check, what).because(
                "nobody replies to these flows, and each keeps its entry until the timeout",
            )
        }
        Kind::HalfOpen | Kind::UdpUnanswered => {
            let what = format!("{name} holds {share} of the table with unreplied flows");
            Finding::fault("scan", what).because(
                "it is scanning: a worm, a port scanner, or a torrent client that looks for peers",
            )
        }
        Kind::Established | Kind::Closing | Kind::CloseWait | Kind::Udp | Kind::Other => {
            Finding::warning("one-source", format!("{name} holds {share} of the table"))
                .because("one client should not be able to use up the table of all others")
        }
    };
    held(census, finding, many)
        .tune(format!("{START}    # the interface towards it: limits every source"))
        .by_hand(format!("conntrack -D -s {source}"))
}

fn from_many_sources(census: &Census, flood: &Flood, many: u64) -> Finding {
    let (kind, check, flows, why, interface) = *flood;
    let what = format!("{} of the table is {flows}", per_cent(census.share(many)));
    let finding = aimed_at(census, kind, held(census, Finding::fault(check, what), many));
    let tune = format!("{START}{interface}");
    from_network(census, kind, finding).because(why).tune(tune)
}

fn idle(census: &Census, many: u64, planned: &Planned) -> Finding {
    let share = per_cent(census.share(many));
    let what = format!("{share} of the table is connections that have been idle for over an hour");
    let finding = held(census, Finding::fault("idle-connections", what), many).because(
        "their peers have most likely disappeared; tcp_timeout_established is five days by default",
    );
    // Where it matters that connections may be idle for longer, tune leaves them a day.
    let (key, least) = shortest_established();
    if planned.after(&key).is_some_and(|after| after > least) {
        return finding
            .tune("ctguard tune --for nat-router --apply --existing")
            .by_hand(format!("sysctl -w {key}={least}"));
    }
    let finding = finding.tune("ctguard tune --apply --existing");
    planned.set(&key).into_iter().fold(finding, Finding::by_hand)
}

/// Both sides have sent packets, so it is no flood of forged addresses.
fn close_wait(census: &Census, many: u64) -> Finding {
    let share = per_cent(census.share(many));
    let what = format!("{share} of the table is connections that only one side has closed");
    let finding = held(census, Finding::fault("close-wait", what), many);
    let finding = aimed_at(census, Kind::CloseWait, finding);
    let closes = "the other side never closes, or its packets take another way";
    match census.close_wait {
        Some(now) if now > u64::from(CLOSE_WAIT_SECONDS) => finding
            .read(sysctl_path(CLOSE_WAIT), now)
            .because(format!(
                "{closes}, and nf_conntrack_tcp_timeout_close_wait keeps each entry for longer than the \
                 kernel's default, {CLOSE_WAIT_SECONDS} s; entries that exist keep their old timeout"
            ))
            .by_hand(format!("sysctl -w {CLOSE_WAIT}={CLOSE_WAIT_SECONDS}")),
        _ => finding.because(format!(
            "{closes}, and each entry has the timeout that was set when its last packet came, or that a \
             rule gave it: without further packets it ends by itself, and `conntrack -D -s ADDRESS` \
             deletes those of one address at once"
        )),
    }
}

fn aimed_at(census: &Census, kind: Kind, finding: Finding) -> Finding {
    let first = census.destinations.first_that(|(of, ..)| *of == kind);
    match first.filter(|(_, count)| census.share(*count) >= ONE_SERVICE * DOMINATES) {
        Some(((_, address, port), count)) => {
            finding.read("aimed at", format!("{address} port {port} ({count} entries)"))
        }
        None => finding,
    }
}

/// Names the network that a quarter or more come from: one customer, or one host's many addresses.
fn from_network(census: &Census, kind: Kind, finding: Finding) -> Finding {
    let first = census.networks.first_that(|(of, _)| *of == kind);
    match first.filter(|(_, count)| census.share(*count) >= ONE_SOURCE) {
        Some(((_, network), count)) => finding.read("from", format!("{network} ({count} entries)")),
        None => finding,
    }
}

fn ports(census: &Census) -> Option<Finding> {
    let (Remote { protocol, own, address, port }, count) = census.remotes.first()?;
    let name = match protocol {
        protocol::TCP => "TCP",
        protocol::UDP => "UDP",
        _ => return None,
    };
    let remote = format!("{address} port {port} ({name})");
    let what = format!("NAT uses {count} of {NAT_PORTS} ports of {own} for flows to {remote}");
    let taken = share(count, NAT_PORTS);
    let why = format!(
        "source NAT needs a free port for every flow to the same remote. When none is left, new flows \
         are dropped and counted as insert_failed. A larger {MAX} does not help; another address does"
    );
    held(census, Finding::graded("nat-ports", taken, NAT_PORTS_TAKEN, what)?, count)
        .because(why)
        .by_hand("nft … snat to 192.0.2.1-192.0.2.4    # more addresses to translate to")
        .into()
}

fn old_deadlines(census: &Census) -> Option<Finding> {
    let many = census.old_deadlines;
    let what = format!("{many} connections still have an earlier, longer timeout");
    held(census, Finding::note("old-deadlines", what), many)
        .because("a lower timeout applies to an entry from its next packet on")
        .tune("ctguard tune --apply --existing")
        .when(census.share(many) > 0.01)
}

fn offloaded(census: &Census) -> Option<Finding> {
    let many = census.offloaded;
    let what = format!("{many} flows bypass conntrack through a flowtable");
    held(census, Finding::note("offloaded", what), many)
        .because("conntrack does not see their packets, and the flowtable's timeouts apply")
        .when(many > 0)
}

#[cfg(test)]
mod tests;
