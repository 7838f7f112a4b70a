//! `ctguard why`: how a source stands, and what would become of its next packets.

mod trial;

use std::{collections::BTreeMap, net::IpAddr};

use clap::Args;
use ctguard_control::sources::SourceScope;
use ctguard_datapath::{
    place::Place,
    sources::{LINES, Tiers, find},
    verifier::OpaqueZero,
};
use ctguard_layout::{Class, Outcome, Policy, units::Jiffies};
use ctguard_settings::parse_prefix;
use ctguard_simulation::Kind;
use ipnet::IpNet;

use super::{
    CliError, Code, Context, in_use::read_configuration_in_use, operator::client_address, status,
};
use crate::{
    daemon::kind_of,
    feeds::feeds_status,
    report::{
        ByClass, HeldReport, ListedReport, NextReport, SCHEMA_VERSION, StatusReport, WhyReport,
        write_why,
    },
    terminal::{Terminal, write_json},
};
use ctguard_kernel::{
    conntrack,
    maps::{Entry, FeedListed, GuardMaps, ListError, ListKind, Slot},
};
use trial::Verdict;

/// Show how a source stands, and what would become of its next packets
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctguard why 192.0.2.7\n  ctguard why 2001:db8::7 --json\n\n\
    The guard limits an IPv6 client by its /64. What its next packets meet is found by the data path's\n\
    own code over a copy of the guard's maps, so the question changes nothing.")]
pub(super) struct WhyArgs {
    /// Address of the source
    address: String,
    /// Print JSON (later versions only add fields; see `schema_version`)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &WhyArgs, context: &Context) -> Result<Code, CliError> {
    let address = parse(&args.address)?;
    let report = read(address, &context.maps()?, context)?;
    let mut out = Terminal::stdout();
    if args.json { write_json(&mut out, &report) } else { write_why(&report, &mut out) }
        .map_err(CliError::Output)?;
    Ok(Code::Done)
}

/// An address, or a source as `status` and the lists name it.
fn parse(text: &str) -> Result<IpAddr, CliError> {
    if let Some(address) = client_address(text) {
        return Ok(address);
    }
    match parse_prefix(text).map_err(|_| CliError::NoAddress(text.to_owned()))? {
        IpNet::V4(net) if net.prefix_len() == 32 => Ok(net.addr().into()),
        IpNet::V6(net) if net.prefix_len() >= 64 => Ok(net.addr().into()),
        IpNet::V4(_) | IpNet::V6(_) => Err(CliError::ManySources(text.to_owned())),
    }
}

/// What the next SYN of a source would meet on the first guarded interface that refuses it for what
/// the source does, if any.
pub(super) fn refusal_of_syn(
    address: IpAddr,
    maps: &GuardMaps,
    now: Jiffies,
) -> Result<Option<&'static str>, CliError> {
    for slot in maps.interfaces.used() {
        let verdict = trial::judge(maps, &slot.interface, (Kind::Syn, address), now)?;
        let by_source = [Outcome::Denied, Outcome::RefusedSource, Outcome::RefusedPrefix];
        if by_source.contains(&verdict.outcome) {
            return Ok(Some(words(verdict.outcome)));
        }
    }
    Ok(None)
}

fn read(address: IpAddr, maps: &GuardMaps, context: &Context) -> Result<WhyReport, CliError> {
    let status = status::read(context, maps)?;
    let (now, _) = context.now(maps)?;
    let source = SourceScope::from(address);
    let name = source.to_string();
    let known = known(source, maps)?;
    let above = status.holders.iter().flat_map(|holders| &holders.above_limits);
    let above = above.filter(|above| above.source == name).cloned().collect();
    let (entries, by_state) = held(source)?;
    let parts = status.holders.as_ref().and_then(|holders| holders.parts);
    Ok(WhyReport {
        schema_version: SCHEMA_VERSION,
        allow: listed(ListKind::Allow, address, maps, (now, context))?,
        deny: listed(ListKind::Deny, address, maps, (now, context))?,
        next: next(address, maps, now)?,
        shares: shares(&known, &status),
        default_ceilings: ByClass::new(|class| !maps.policy().has_own_ceiling(class as usize)),
        held: HeldReport { entries, by_state, parts },
        source: name,
        known,
        above,
        stage: status.stage,
        dry_run: status.dry_run,
        pause: status.pause,
        limits: status.limits,
    })
}

/// The names of the tiers that a source is known for.
fn known(source: SourceScope, maps: &GuardMaps) -> Result<Vec<&'static str>, CliError> {
    let hash = source.hash(&maps.environment().fixed.source_key);
    let place = Place::of(hash, LINES - 1, OpaqueZero::new(0));
    let Some(known) = find(&maps.source_memory()?, place) else { return Ok(Vec::new()) };
    let names = [
        (Tiers::ABOVE_PART, "above-part"),
        (Tiers::REGULAR, "regulars"),
        (Tiers::EARLIER, "earlier"),
        (Tiers::PROVEN, "proven"),
        (Tiers::CHALLENGED, "challenged"),
    ];
    Ok(names.into_iter().filter(|(tier, _)| known.tiers.has(*tier)).map(|(_, name)| name).collect())
}

/// Shares of the first tier that serves the source.
fn shares(known: &[&str], status: &StatusReport) -> ByClass<Option<f64>> {
    let tier = known.iter().find(|name| **name != "challenged").copied().unwrap_or("strangers");
    let tier = status.tiers.iter().find(|report| report.name == tier);
    ByClass::new(|class| tier.and_then(|tier| *tier.share.of(class)))
}

/// The longest prefix that holds the address, on the operator's list or else on that of the feeds.
fn listed(
    kind: ListKind,
    address: IpAddr,
    maps: &GuardMaps,
    (now, context): (Jiffies, &Context),
) -> Result<Option<ListedReport>, CliError> {
    let longest = |entries: Vec<(Entry, u32)>| {
        let holds =
            |(entry, _): &(Entry, u32)| entry.is_live(now.0) && entry.prefix.contains(&address);
        entries.into_iter().filter(holds).max_by_key(|(entry, _)| entry.prefix.prefix_len())
    };
    let own = maps.lists.entries(kind)?.into_iter().map(|entry| (entry, 0));
    let of_feeds = || -> Result<_, CliError> {
        let entries = maps.feeds.entries(kind).map_err(ListError::from)?.into_iter();
        let entries = entries
            .map(|FeedListed { prefix, expires_at, feeds }| (Entry { prefix, expires_at }, feeds));
        Ok(longest(entries.collect()))
    };
    let found = match longest(own.collect()) {
        Some(own) => Some(own),
        None => of_feeds()?,
    };
    let Some((entry, feeds)) = found else { return Ok(None) };
    let origin = if feeds == 0 {
        // Whether a file lists it is only for information.
        let config = read_configuration_in_use(context).unwrap_or_default();
        config.list(kind).get(&entry.prefix).map(ToString::to_string)
    } else {
        Some(format!("feed {}", feeds_status().names(feeds).join(", ")))
    };
    let per_second = u64::from(maps.environment().daemon.jiffies_per_second.max(1));
    let ends = (entry.expires_at != 0).then(|| (entry.expires_at - now.0).div_ceil(per_second));
    Ok(Some(ListedReport { prefix: entry.prefix.to_string(), origin, remaining_seconds: ends }))
}

fn next(address: IpAddr, maps: &GuardMaps, now: Jiffies) -> Result<Vec<NextReport>, CliError> {
    let mut next = Vec::new();
    for slot in maps.interfaces.used() {
        for (packet, kind) in [("syn", Kind::Syn), ("datagram", Kind::Datagram)] {
            let verdict = trial::judge(maps, &slot.interface, (kind, address), now)?;
            next.push(report(&slot, packet, &verdict, maps));
        }
    }
    Ok(next)
}

fn report(slot: &Slot, packet: &'static str, verdict: &Verdict, maps: &GuardMaps) -> NextReport {
    let class = if packet == "syn" { Class::Tcp } else { Class::Udp };
    let own = ctguard_units::in_force(
        maps.policy().source[class as usize],
        slot.interface.overrides[class as usize],
    );
    NextReport {
        interface: slot.name(),
        packet,
        outcome: verdict.outcome.row().label,
        verdict: words(verdict.outcome),
        tier: verdict.tier.name(),
        admitted_at_once: verdict.at_once,
        then: verdict.then.map(words),
        passes: verdict.outcome.row().action == ctguard_layout::Action::Pass
            || maps.policy().has(Policy::DRY_RUN),
        ceiling_per_second: own.flows_per_second,
        ceiling_burst: own.burst,
    }
}

/// What becomes of a packet, unless nothing is dropped.
const fn words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Admitted => "admitted",
        Outcome::ChallengedByAck => "challenged by an ACK, and admitted if a client answers",
        Outcome::ChallengedBySilence => "dropped, and admitted when it comes again",
        Outcome::ChallengedByTruncation => "answered by a truncated reply, to come over TCP",
        Outcome::RefusedSource => "refused: the source is above its ceiling or its share",
        Outcome::RefusedGrant => "refused: the grant of its tier is spent",
        Outcome::RefusedFallback => "refused: no daemon, and the fallback rate is spent",
        Outcome::Denied => "dropped: it is on the deny list",
        Outcome::RefusedChallenge => "refused: it would be challenged, but cannot be",
        Outcome::RefusedPrefix => "refused: its /24 or /48 is above its limit",
        Outcome::RefusedService => "refused: the service is above its limit",
        Outcome::Exempt => "passed: such packets are exempt",
        Outcome::Repeated
        | Outcome::Known
        | Outcome::MakesNoEntry
        | Outcome::LaterFragment
        | Outcome::NotOurs
        | Outcome::TinyFragment
        | Outcome::MalformedLink
        | Outcome::MalformedIpv4
        | Outcome::MalformedIpv6
        | Outcome::MalformedTcp
        | Outcome::MalformedUdp
        | Outcome::MalformedIcmp
        | Outcome::UnknownInterface
        | Outcome::ChallengeAnswered => outcome.row().label,
    }
}

/// Entries of the table that the source opened, by state.
fn held(source: SourceScope) -> Result<(u64, BTreeMap<&'static str, u64>), CliError> {
    let mut by_state = BTreeMap::new();
    let dumped = conntrack::dump(|entry| {
        if SourceScope::from(entry.original.source) == source {
            *by_state.entry(kind_of(entry).name()).or_insert(0) += 1;
        }
    });
    match dumped {
        Ok(_) | Err(conntrack::DumpError::Untracked | conntrack::DumpError::Absent) => {}
        Err(error) => return Err(CliError::Daemon(error.into())),
    }
    Ok((by_state.values().sum(), by_state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_may_be_named_as_status_names_it_and_a_network_is_refused_in_words() {
        for (text, address) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("2001:db8:1::/64", "2001:db8:1::"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("::ffff:192.0.2.7/128", "192.0.2.7"),
            ("2001:db8::7/128", "2001:db8::7"),
            ("fe80::7%wan0", "fe80::7"),
        ] {
            assert_eq!(parse(text).unwrap(), address.parse::<IpAddr>().unwrap(), "{text}");
        }
        for text in ["192.0.2.0/24", "2001:db8::/48"] {
            let error = parse(text).unwrap_err();
            assert!(error.sentence().contains("many sources"), "{}", error.sentence());
            assert_eq!(error.code(), Code::Usage);
        }
        for text in ["wan0", "", "192.0.2", "192.0.2.7:80"] {
            let error = parse(text).unwrap_err();
            assert!(error.sentence().ends_with("(write 192.0.2.7 or 2001:db8::7)"));
            assert_eq!(error.code(), Code::Usage);
        }
    }
}
