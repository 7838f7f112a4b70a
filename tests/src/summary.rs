//! What a lab found, as people read it: not an interface, `report.json` is.

mod groups;

use std::{collections::BTreeMap, fmt::Write as _};

use crate::{
    legit::FlowKind,
    process::DaemonCost,
    report::{ConnectTimes, FloodOutcome, Report, Run, ratio},
};

pub use groups::groups;

/// What was asked for, in a line.
#[must_use]
pub fn title(report: &Report) -> String {
    let options = &report.options;
    let rate = match options.flood_packets_per_second {
        Some(rate) => format!("{} packets/s", grouped(rate.into())),
        None => "full speed".to_owned(),
    };
    let port = if options.port_dropped { ", at a port that the router's rules drop" } else { "" };
    format!(
        "{} at {rate} for {} s{port}; {}, table of {} entries, {:.0} legitimate new flows/s from outside",
        options.flood,
        options.seconds,
        options.family,
        grouped(options.table_max),
        options.legitimate_per_second
    )
}

/// Whether the legitimate load alone leaves the table the room that it should.
#[must_use]
pub fn load_fits(report: &Report) -> Option<String> {
    let baseline = report.baseline.as_ref()?;
    let (fill, third) =
        (ratio(baseline.fill.at_end, baseline.table_max), baseline.target_ratio / 3.0);
    let fits = if fill <= third { "at most" } else { "MORE THAN" };
    Some(format!(
        "without a flood the legitimate load fills {} of the table, {fits} a third of the target ({})",
        percent(fill),
        percent(third)
    ))
}

/// How the lab shared out its CPUs.
#[must_use]
pub fn cpus(report: &Report) -> String {
    match report.machine.cpus {
        1 => "one CPU does everything: a slow router slows its flood down".to_owned(),
        2 => "of two CPUs, one works for the router's packets alone; flood, clients, servers and \
              ctguard's daemon share the other"
            .to_owned(),
        more => format!(
            "of {more} CPUs, one works for the router's packets alone and one makes the flood"
        ),
    }
}

/// The runs side by side, a number a line.
#[must_use]
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    let runs: Vec<_> = report.runs().collect();
    let mut row = |title: &str, cell: &dyn Fn(&Run) -> String| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{title:<40}");
        for (_, run) in &runs {
            let _ = write!(text, "{:>16}", cell(run));
        }
        text.push('\n');
    };
    row("table: peak", &|run| format!("{} ({})", run.fill.peak, percent(run.fill.peak_ratio)));
    row("table: at the end", &|run| {
        format!("{} ({})", run.fill.at_end, percent(ratio(run.fill.at_end, run.table_max)))
    });
    row("  in the second half of the flood", &|run| match run.fill.second_half {
        Some(spread) => {
            let [mean, deviation] = [spread.mean_ratio, spread.deviation_ratio].map(in_hundred);
            format!("{mean:.1} ± {deviation:.1} %")
        }
        None => "–".to_owned(),
    });
    row("legitimate new flows", &|run| run.legitimate.during_flood.attempted.to_string());
    row("  succeeded at once", &|run| percent(run.legitimate.during_flood.at_once_ratio()));
    row("  succeeded within 4 s", &|run| percent(run.legitimate.during_flood.eventually_ratio()));
    for (kind, title) in KINDS {
        row(title, &|run| {
            let success = run.legitimate.by_kind.get(&kind).copied().unwrap_or_default();
            percent(success.at_once_ratio())
        });
    }
    let connect = |of: fn(ConnectTimes) -> f64| {
        move |run: &Run| match run.legitimate.connect_milliseconds {
            Some(times) => format!("{:.1} ms", of(times)),
            None => "–".to_owned(),
        }
    };
    row("time to connect, median", &connect(|times| times.median));
    row("time to connect, 99th percentile", &connect(|times| times.p99));
    row("established exchanges broken", &|run| {
        let broken = run.established.tcp_broken + run.established.udp_broken;
        format!("{broken} of {}", run.established.opened)
    });
    row("answers to the inside lost", &|run| {
        format!("{} of {}", grouped(run.answers.lost()), grouped(run.answers.sent))
    });
    row("  requests unanswered", &|run| {
        grouped(run.answers.requested.saturating_sub(run.answers.sent))
    });
    row("packets of others lost in the queue", &|run| grouped(run.others_lost_in_queue));
    row("  on their way out", &|run| grouped(run.leaving_lost_in_queue));
    let flood = |of: fn(FloodOutcome) -> u64| {
        move |run: &Run| run.flood.map_or_else(|| "–".to_owned(), |flood| grouped(of(flood)))
    };
    row("router's packets: share of a CPU", &|run| {
        run.router_cpu_ratio.map_or_else(|| "–".to_owned(), of_a_core)
    });
    row("flood packets offered", &flood(|flood| flood.offered));
    row("  lost in the router's queue", &flood(|flood| flood.lost_in_queue));
    row("  dropped in XDP", &flood(|flood| flood.dropped_in_xdp));
    row("  answered in XDP", &flood(|flood| flood.answered_in_xdp));
    row("  reached conntrack", &flood(|flood| flood.reached_conntrack));
    row("kernel: drop (table full)", &|run| grouped(run.kernel.drop));
    row("kernel: lost a clash", &|run| grouped(run.kernel.clash_lost));
    row("kernel: early_drop", &|run| grouped(run.kernel.early_drop));
    row("kernel: insert_failed", &|run| grouped(run.kernel.insert_failed));
    let daemon = |shown: fn(DaemonCost) -> Option<String>| {
        move |run: &Run| run.daemon.and_then(shown).unwrap_or_else(|| "–".to_owned())
    };
    row("daemon: CPU, idle", &daemon(|cost| Some(of_a_core(cost.idle_cpu_ratio?))));
    row("daemon: CPU, in the flood", &daemon(|cost| Some(of_a_core(cost.flood_cpu_ratio?))));
    row("daemon: memory, without its maps", &daemon(|cost| Some(mebibytes(cost.resident_bytes?))));

    let mut head = format!("{:<40}", "");
    for (name, _) in &runs {
        let _ = write!(head, "{name:>16}");
    }
    format!("{head}\n{text}")
}

const KINDS: [(FlowKind, &str); 4] = [
    (FlowKind::TcpInward, "    TCP from outside, at once"),
    (FlowKind::TcpOutward, "    TCP from inside, at once"),
    (FlowKind::UdpInward, "    UDP from outside, at once"),
    (FlowKind::UdpOutward, "    UDP from inside, at once"),
];

/// The stages of a run with ctguard, by class.
#[must_use]
pub fn stages(report: &Report) -> Option<String> {
    let classes = &report.guarded.as_ref()?.stage_seconds;
    let class = |(class, stages): (&String, &BTreeMap<String, f64>)| {
        let stages: Vec<_> =
            stages.iter().map(|(stage, seconds)| format!("{stage} {seconds:.1} s")).collect();
        format!("{class} {}", stages.join(", "))
    };
    let classes: Vec<_> = classes.iter().map(class).collect();
    (!classes.is_empty()).then(|| format!("stages in the flood: {}", classes.join("; ")))
}

pub(crate) fn of_a_core(ratio: f64) -> String {
    format!("{:.2} %", in_hundred(ratio))
}

pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", ratio(bytes, 1 << 20))
}

fn in_hundred(ratio: f64) -> f64 {
    ratio * 100.0
}

/// A ratio for people: never rounded up to 100 %.
pub(crate) fn percent(ratio: f64) -> String {
    format!("{:.1} %", (ratio * 1000.0).floor() / 10.0)
}

/// Digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_never_rounded_up_to_all() {
        assert_eq!(percent(0.9999), "99.9 %");
        assert_eq!(percent(1.0), "100.0 %");
    }

    #[test]
    fn digits_come_in_groups() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
