//! What fills the table: one cause, the likeliest, from what it holds.

use std::net::IpAddr;

use ctguard_datapath::packet::protocol;

use super::{
    census::{Census, Kind, Remote},
    finding::Finding,
    text::per_cent,
};
use crate::host::{MAX, TableNumbers};

/// A table that is less full has no cause to be looked for.
const HALF: f64 = 0.5;
/// Kinds that make up so much of it are the cause.
const DOMINATES: f64 = 0.3;
/// A source that holds so much of it is.
const ONE_SOURCE: f64 = 0.25;
/// Of one host's flows so many go to one service: it is not looking for others.
const ONE_SERVICE: f64 = 0.5;
/// Ports that source NAT gives to a flow from port 1024 and above (`nf_nat_l4proto_unique_tuple`,
/// `net/netfilter/nf_nat_core.c`).
const NAT_PORTS: u64 = 64_512;
/// Share of them towards one remote.
const NAT_PORTS_TAKEN: [f64; 2] = [0.8, 0.95];

/// Where all this is read.
pub(super) const DUMP: &str = "ctnetlink: a dump of the table";

/// What a source is to this machine.
pub(super) type Neighbours<'n> = &'n dyn Fn(IpAddr) -> Option<String>;

/// D, of the list in `docs/doctor.md`.
pub(super) fn judge(
    census: &Census,
    table: TableNumbers,
    neighbour: Neighbours<'_>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(ports(census));
    if table.fill_ratio().is_some_and(|fill| fill >= HALF) && census.entries > 0 {
        found.extend(cause(census, neighbour));
    }
    found.extend(old_deadlines(census));
    found.extend(offloaded(census));
    found
}

fn cause(census: &Census, neighbour: Neighbours<'_>) -> Option<Finding> {
    if let Some((source, held)) = census.sources.first()
        && census.share(held) >= ONE_SOURCE
    {
        return Some(one_source(census, source, held, neighbour));
    }
    let candidates = [
        (Kind::HalfOpen, syn_flood as fn(&Census, u64) -> Finding),
        (Kind::Dns, dns),
        (Kind::UdpUnanswered, udp_flood),
        (Kind::Idle, idle),
    ];
    let (kind, told) = candidates.into_iter().max_by_key(|(kind, _)| census.of(*kind))?;
    let many = census.of(kind);
    (census.share(many) >= DOMINATES).then(|| told(census, many))
}

fn held(census: &Census, finding: Finding, many: u64) -> Finding {
    finding.read(DUMP, format!("{many} of {} entries looked at", census.entries))
}

/// One source holds a quarter and more: what does it do?
fn one_source(census: &Census, source: IpAddr, many: u64, neighbour: Neighbours<'_>) -> Finding {
    let share = per_cent(census.share(many));
    let near = neighbour(source);
    let name = match &near {
        Some(mac) => format!("{source} ({mac})"),
        None => source.to_string(),
    };
    let of_kind = |kind| {
        let found = census.sources_of.first_that(|(of, who)| (*of, *who) == (kind, source));
        found.map_or(0, |(_, count)| count)
    };
    let most = Kind::ALL.into_iter().max_by_key(|kind| of_kind(*kind)).unwrap_or(Kind::Other);
    let one_service = census
        .destinations
        .first_that(|(kind, ..)| *kind == most)
        .is_some_and(|(_, count)| census.share(count) >= ONE_SERVICE * census.share(of_kind(most)));
    let finding = match most {
        Kind::Dns => Finding::fault(
            "dns-loop",
            format!("{name} holds {share} of the table with queries to port 53"),
        )
        .because(
            "each query from a port of its own is a flow for half a minute and more: a \
            program asks in a loop, or the host takes part in an attack",
        ),
        Kind::Idle => return idle(census, census.of(Kind::Idle)),
        Kind::HalfOpen | Kind::UdpUnanswered if one_service => Finding::fault(
            if most == Kind::HalfOpen { "syn-flood" } else { "udp-flood" },
            format!("{name} floods one service: {share} of the table"),
        )
        .because("nobody answers these flows, and each holds an entry until its timeout"),
        Kind::HalfOpen | Kind::UdpUnanswered => Finding::fault(
            "scan",
            format!("{name} holds {share} of the table with flows that nobody answers"),
        )
        .because(
            "it scans other networks: a worm, a scanner, or a torrent client that looks for \
            peers",
        ),
        Kind::Established | Kind::Closing | Kind::Udp | Kind::Other => {
            Finding::warning("one-source", format!("{name} holds {share} of the table"))
                .because("one client should not be able to take the table from all others")
        }
    };
    let finding = held(census, finding, many);
    finding
        .tune("ctguard run -i IFACE    # of the side that it comes from: limits each source")
        .by_hand(format!("conntrack -D -s {source}"))
}

fn syn_flood(census: &Census, many: u64) -> Finding {
    let finding = from_many_sources(
        census,
        (Kind::HalfOpen, many),
        "syn-flood",
        "TCP handshakes that never completed",
    );
    finding.because(
        "a SYN flood, its sources forged or many: an entry lives one or two minutes for each \
         packet",
    )
}

fn udp_flood(census: &Census, many: u64) -> Finding {
    let finding = from_many_sources(
        census,
        (Kind::UdpUnanswered, many),
        "udp-flood",
        "UDP flows that nobody answers",
    );
    finding.because(
        "a UDP flood: each datagram from another address or port holds an entry for half a minute",
    )
}

fn from_many_sources(
    census: &Census,
    (kind, many): (Kind, u64),
    check: &'static str,
    flows: &str,
) -> Finding {
    let share = per_cent(census.share(many));
    let what = format!("{share} of the table are {flows}, from many sources");
    let finding = aimed_at(census, kind, held(census, Finding::fault(check, what), many));
    from_network(census, kind, finding)
        .tune("ctguard run -i IFACE    # the interface that it comes in by")
}

fn dns(census: &Census, many: u64) -> Finding {
    let what = format!("{} of the table are queries to port 53", per_cent(census.share(many)));
    let finding = held(census, Finding::fault("dns-loop", what), many);
    from_network(census, Kind::Dns, aimed_at(census, Kind::Dns, finding))
        .because(
            "each query from a port of its own is a flow; on a resolver without NAT these \
            need no tracking",
        )
        .tune("ctguard run -i IFACE")
}

fn idle(census: &Census, many: u64) -> Finding {
    let what = format!(
        "{} of the table are connections without a packet for an hour",
        per_cent(census.share(many))
    );
    held(census, Finding::fault("idle-connections", what), many)
        .because("their ends are most likely gone; tcp_timeout_established is five days by default")
        .tune("ctguard tune --apply --existing")
        .by_hand("sysctl -w net.netfilter.nf_conntrack_tcp_timeout_established=7440")
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

/// Many sources may be neighbours: a provider's customers, or one host with many addresses.
fn from_network(census: &Census, kind: Kind, finding: Finding) -> Finding {
    let first = census.networks.first_that(|(of, _)| *of == kind);
    match first.filter(|(_, count)| census.share(*count) >= ONE_SOURCE) {
        Some(((_, network), count)) => finding.read("from", format!("{network} ({count} entries)")),
        None => finding,
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn ports(census: &Census) -> Option<Finding> {
    let (remote, count) = census.remotes.first()?;
    let Remote { protocol, own, address, port } = remote;
    let name = match protocol {
        protocol::TCP => "TCP",
        protocol::UDP => "UDP",
        _ => return None,
    };
    let what = format!(
        "{count} of {NAT_PORTS} ports of {own} are taken towards {address} port {port} ({name})"
    );
    let finding =
        Finding::graded("nat-ports", count as f64 / NAT_PORTS as f64, NAT_PORTS_TAKEN, what)?;
    Some(
        held(census, finding, count)
            .because(format!(
                "source NAT needs a free port for each flow to the same remote; without one the \
                 flow is lost and counted as insert_failed. A larger {MAX} does not help: another \
                 address does"
            ))
            .by_hand("nft … snat to 192.0.2.1-192.0.2.4    # more addresses for masqueraded flows"),
    )
}

fn old_deadlines(census: &Census) -> Option<Finding> {
    let many = census.old_deadlines;
    (census.share(many) > 0.01).then(|| {
        let what = format!("{many} connections live by a timeout that was longer than that of now");
        held(census, Finding::note("old-deadlines", what), many)
            .because(
                "a timeout that is lowered holds for an entry from its next packet on; idle \
                ones keep the old",
            )
            .tune("ctguard tune --apply --existing")
    })
}

fn offloaded(census: &Census) -> Option<Finding> {
    let many = census.offloaded;
    (many > 0).then(|| {
        held(
            census,
            Finding::note("offloaded", format!("{many} flows pass by conntrack, over a flowtable")),
            many,
        )
        .because("their packets are not seen here, and their timeouts are the flowtable's")
    })
}

#[cfg(test)]
mod tests;
