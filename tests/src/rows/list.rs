//! The rows, as they are promised.

use std::net::{IpAddr, Ipv4Addr};

use super::{Bar, Fill, Plot, Row, Short, Who, bar::OVER_TARGET};
use crate::{legit::Day, recipe::Rate};

/// Both tables that the promise names.
const BOTH: &[u64] = &[16_384, 262_144];
const LARGE: &[u64] = &[262_144];
/// Connections a second of all sources that complete them.
const COMPLETED: Rate = Rate::PerSecond(50_000);
/// A quarter of what is left above the usual target.
const ALLOWED_SHARE: f64 = 0.15 / 4.0;
/// The source of the flood that is on the allow list.
const ALLOWED: &[IpAddr] = &[IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77))];

const ALL_AT_ONCE: Bar = Bar::AtOnce(Who::Everybody, 0.999);
const PROVEN_AT_ONCE: Bar = Bar::AtOnce(Who::Proven, 0.999);
const NO_DELAY: Bar = Bar::MedianAdded(Who::Proven, 1.0);
const THERE_99: Bar = Bar::AtOnce(Who::There, 0.99);
const NEWCOMERS_95: Bar = Bar::AtOnce(Who::Newcomers, 0.95);

const PREFIX_LIMITS: &[&str] = &["prefix.tcp.rate=200/s", "prefix.tcp.burst=200"];

/// Every row.
pub const ROWS: &[Row] = &[
    Row {
        tables: BOTH,
        bars: &[ALL_AT_ONCE, Bar::MedianAdded(Who::Everybody, 1.0)],
        ..Row::usual("syn-one-source", "SYNs from one source", "syn-one-source")
    },
    Row {
        tables: BOTH,
        bars: &[ALL_AT_ONCE, Bar::MedianAdded(Who::Everybody, 1.0)],
        ..Row::usual("udp-one-source", "UDP from one source", "udp-one-source")
    },
    Row {
        tables: BOTH,
        bars: &[
            Bar::AtOnce(Who::Everybody, 0.99),
            PROVEN_AT_ONCE,
            NO_DELAY,
            Bar::MedianAdded(Who::FirstContact, 100.0),
        ],
        ..Row::usual("syn-spoofed", "SYNs from 2^28 spoofed sources", "syn-spoofed")
    },
    Row {
        bars: &[PROVEN_AT_ONCE],
        ..Row::usual(
            "syn-live",
            "spoofed SYNs, each sent twice, from 1,000 live addresses that answer",
            "syn-live",
        )
    },
    Row {
        tables: BOTH,
        bars: &[PROVEN_AT_ONCE, Bar::Eventually(Who::UdpOfOthers, 0.95), Bar::Steady(0.01)],
        ..Row::usual("udp-spoofed", "UDP from 2^28 spoofed sources", "udp-spoofed")
    },
    Row {
        tables: BOTH,
        bars: &[Bar::AtOnce(Who::Everybody, 0.99), Bar::Steady(0.01)],
        ..Row::usual("ack", "ACKs from 2^28 spoofed sources, which nobody answers", "ack")
    },
    Row {
        rate: COMPLETED,
        tables: LARGE,
        short: Short { tables: &[49_152], ..Short::SAME },
        legitimate_per_second: Some(100.0),
        bars: &[ALL_AT_ONCE],
        ..Row::usual(
            "completing",
            "1,000 sources that complete 50 connections a second each",
            "sources-completing",
        )
    },
    Row {
        rate: COMPLETED,
        tables: LARGE,
        legitimate_per_second: Some(100.0),
        bars: &[Bar::AtOnce(Who::Regulars, 0.999), Bar::Jain(0.95)],
        ..Row::usual("bots", "10,000 bots that complete 5 connections a second each", "bots")
    },
    Row {
        rate: COMPLETED,
        settings: PREFIX_LIMITS,
        bars: &[ALL_AT_ONCE],
        ..Row::usual("bots-prefix", "bots of one /24, with limits for prefixes", "bots-prefix")
    },
    Row {
        rate: COMPLETED,
        settings: PREFIX_LIMITS,
        bars: &[ALL_AT_ONCE],
        ..Row::usual(
            "bots-prefix-v6",
            "bots of one IPv6 /48, with limits for prefixes",
            "bots-prefix-v6",
        )
    },
    Row {
        lan_guarded: true,
        bars: &[Bar::AtOnce(Who::Inside, 0.999)],
        ..Row::usual("lan-host", "one infected host of the LAN side, guarded too", "lan-host")
    },
    Row {
        allowed: ALLOWED,
        bars: &[ALL_AT_ONCE],
        fill: Fill::Within(ALLOWED_SHARE),
        ..Row::usual(
            "syn-allowed",
            "SYNs that claim to come from an allowed address",
            "syn-allowed",
        )
    },
    Row {
        bars: &[PROVEN_AT_ONCE],
        ..Row::usual(
            "mixed",
            "three floods at once, starting and stopping at random",
            "mixed-random",
        )
    },
    Row {
        plot: Plot::Late,
        bars: &[Bar::ServiceBack(2.0), Bar::FillBack],
        fill: Fill::Anything,
        ..Row::usual("full-table", "a table that is full when ctguard starts", "syn-spoofed")
    },
    Row {
        plot: Plot::Late,
        settings: &["relief.reclaim=off"],
        bars: &[Bar::NoWorseThanUnguarded],
        fill: Fill::Anything,
        ..Row::usual("full-table-kept", "the same without reclaim", "syn-spoofed")
    },
    Row {
        plot: Plot::Outage,
        bars: &[
            Bar::NoneBroken,
            Bar::EventuallyInOutage(Who::Proven, 0.9),
            Bar::BackInControl(1.0),
        ],
        fill: Fill::Within(0.1),
        ..Row::usual("killed", "the daemon killed in the flood, and started again", "syn-spoofed")
    },
    Row {
        port_dropped: true,
        bars: &[ALL_AT_ONCE],
        ..Row::usual("dropped-later", "a grant spent on SYNs that rules drop", "syn-spoofed")
    },
    Row {
        plot: Plot::Late,
        bars: &[Bar::ServiceBack(2.0), Bar::AtOnceSettled(Who::Everybody, 0.98), Bar::NoneBroken],
        fill: Fill::Anything,
        ..Row::plain(
            "full-syn-answered",
            "a table full of SYNs that a server answers when ctguard starts",
            "syn-answered",
        )
    },
    // The first packet of an honest source is like one of the flood, so newcomers ask twice over UDP:
    // a sixth of all flows.
    Row {
        plot: Plot::Late,
        bars: &[
            Bar::AtOnceSettled(Who::There, 0.98),
            Bar::AtOnceSettled(Who::Inside, 0.98),
            Bar::AtOnceSettled(Who::Everybody, 0.8),
            Bar::NoneBroken,
        ],
        fill: Fill::Anything,
        ..Row::plain("full-udp-answered", "the same with UDP", "udp-answered")
    },
    Row {
        rate: Rate::PerSecond(1400),
        short: Short { tables: &[8_192], per_second: Some(5_000) },
        bars: &[THERE_99, NEWCOMERS_95, Bar::NoneBroken],
        ..Row::plain("holders", "500 clients that hold 28 idle connections each", "holders")
    },
    Row {
        plot: Plot::After,
        rate: Rate::PerSecond(14_000),
        short: Short { tables: &[14_336], ..Short::SAME },
        settles: 1,
        bars: &[Bar::AtOnceSettled(Who::Everybody, 0.95), Bar::NoneBroken],
        fill: Fill::Anything,
        ..Row::plain(
            "holders-before",
            "the same in the ten minutes before ctguard starts",
            "holders",
        )
    },
    Row {
        rate: Rate::PerSecond(1200),
        short: Short { tables: &[8_192], per_second: Some(4_000) },
        bars: &[THERE_99, NEWCOMERS_95, Bar::NoneBroken],
        ..Row::plain(
            "completers",
            "500 clients that complete 1,200 connections a second",
            "completers",
        )
    },
    Row {
        rate: Rate::PerSecond(5000),
        tables: &[65_536],
        attack: Some(45),
        bars: &[THERE_99, Bar::Jain(0.95), Bar::NoneBroken],
        ..Row::plain(
            "many-completers",
            "5,000 clients that complete a connection a second each and hold it for 30 s",
            "many-holders",
        )
    },
    Row {
        rate: Rate::PerSecond(400),
        attack: Some(120),
        bars: &[Bar::AtOnce(Who::Everybody, 0.99), Bar::NoneBroken],
        ..Row::plain("slow-spoofed", "400 spoofed SYNs a second, answered", "syn-answered")
    },
    Row {
        bars: &[Bar::AtOnce(Who::Everybody, 0.99), Bar::NoneBroken],
        ..Row::plain("pulses", "spoofed SYNs, answered, two seconds on and three off", "syn-pulses")
    },
    Row { rate: Rate::PerSecond(20_000), ..inside_host("inside-host-slow") },
    inside_host("inside-host"),
    Row {
        plot: Plot::LongOutage,
        bars: &[Bar::EventuallyInOutage(Who::There, 0.95), Bar::NoneBroken],
        ..Row::plain("daemon-killed", "the daemon killed for 15 s of the flood", "syn-answered")
    },
    calm(
        "calm-heavy",
        "a calm day: 8 CDN edges at 150 connections a second, 4 resolvers at 800 queries",
        LARGE,
        Day::Heavy,
    ),
    calm(
        "calm-day",
        "a calm day: web, calls, QUIC, a carrier's NAT, a monitoring host, a backup, a table nearly \
         half full when ctguard starts",
        &[32_768],
        Day::Mixed,
    ),
    full_speed("full-speed-syn-one-source", "syn-one-source"),
    full_speed("full-speed-syn-spoofed", "syn-spoofed"),
    full_speed("full-speed-udp-spoofed", "udp-spoofed"),
    full_speed("full-speed-ack", "ack"),
];

/// An inside host that floods, guarded too, and its neighbour.
const fn inside_host(name: &'static str) -> Row {
    Row {
        lan_guarded: true,
        neighbour: Some(40.0),
        bars: &[Bar::AtOnce(Who::Inside, 0.999), Bar::NoneBroken],
        ..Row::plain(name, "an inside host floods UDP, guarded too; a neighbour", "lan-host-udp")
    }
}

/// Honest traffic only, on a router that is busy when ctguard starts: the flood is of clients that open
/// 14,000 connections before that, and keep them.
const fn calm(name: &'static str, sentence: &'static str, tables: &'static [u64], day: Day) -> Row {
    Row {
        plot: Plot::After,
        rate: Rate::PerSecond(14_000),
        tables,
        legitimate_per_second: Some(50.0),
        day: Some(day),
        bars: &[
            Bar::RefusesNone,
            Bar::AtOnce(Who::Busy, 0.999),
            Bar::AtOnce(Who::Everybody, 0.999),
            Bar::NoneBroken,
        ],
        ..Row::plain(name, sentence, "holders")
    }
}

/// At full speed the lab's only queue loses legitimate packets: only the fill is promised.
const fn full_speed(name: &'static str, flood: &'static str) -> Row {
    Row {
        rate: Rate::Full,
        tables: BOTH,
        fill: Fill::Within(OVER_TARGET),
        ..Row::usual(name, "the same at full speed", flood)
    }
}
