//! `docs/benchmarks.md` and its picture: nothing but what this run measured.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result, anyhow};
use plotters::{
    backend::SVGBackend,
    drawing::IntoDrawingArea as _,
    element::{Rectangle, Text},
    style::{
        Color as _, IntoFont as _, RGBColor, WHITE,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::{Machine, Report, peers::Peer};

/// Writes both into a directory.
pub(super) fn write(report: &Report, directory: &Path) -> Result<()> {
    for (name, text) in [("benchmarks.md", page(report)), ("benchmarks.svg", picture(report)?)] {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn page(report: &Report) -> String {
    let Machine { date, kernel, processor, cpus, is_virtual } = &report.machine;
    let kind = if *is_virtual { "a virtual machine" } else { "a machine" };
    let mut text = format!(
        "# Benchmarks\n\n\
         `cargo xtask bench --docs docs` wrote this page on {date}, on {kind} with {cpus} CPUs \
         ({processor}) and Linux {kernel}. Times differ between machines, so every bar is a ratio \
         to something that the same run measured. A bar that does not hold says **missed**.\n"
    );
    if let Some(packets) = &report.packets {
        let _ = write!(text, "\n## One packet\n\n{PACKETS}\n\n```text\n{packets}\n```\n");
    }
    if let Some(peers) = &report.peers {
        let _ = write!(
            text,
            "\n## A flooded router\n\n{PEERS} Medians of interleaved rounds: {}.\n\n![Nanoseconds of the router's CPU for each \
             packet of the flood, by guard](benchmarks.svg)\n\n{}\n{}",
            peers.rounds(),
            peers.table(),
            peers.remarks()
        );
    }
    if let Some(calm) = &report.calm {
        let _ = write!(text, "\n## A router that nobody floods\n\n{CALM}\n\n{}", calm.table());
    }
    if let Some(scaling) = &report.scaling {
        let _ = write!(text, "\n## Scaling\n\n{SCALING}\n\n{}", scaling.tables());
    }
    text
}

const PACKETS: &str = "The kernel runs the program on one packet again and again \
(`BPF_PROG_TEST_RUN`). *Over floor* is the time above a program that does nothing, in the same \
rounds. R is what a bare limit for each source costs over its floor on the same packet: one keyed \
hash, one cell of an array, one counter. The references are programs of `tests/lab-program`.";

const PEERS: &str = "A NAT router in network namespaces, one CPU for its packets (native XDP on \
veth, threaded NAPI), under SYNs to a forwarded port. The cost is the CPU time of the router's \
receiving threads, for each packet that they take from the queue at the generator's full speed; × \
is against the program that only drops. *New clients served* is the part of new TCP clients, each \
of its own address, that connect without waiting for a retransmission while 500,000 SYNs arrive \
per second. Limits for each source are one new connection per second, and three at once; a meter, \
hash limit or bucket has 65,536 places. Rules that know the flood's port show what a filter costs \
when somebody has told it what to drop. Each measurement has a router of its own.";

const CALM: &str = "iperf3 over TCP into the router, then eight clients that connect one \
connection after the other, each with a request and an answer's end. On a veth, a native XDP \
program costs throughput by itself, because the kernel copies packets for it; so ctguard is judged \
against one that lets everything pass.";

const SCALING: &str = "The first three tables are by `BPF_PROG_TEST_RUN`, the fourth is the daemon \
beside a table of entries.";

const WIDTH: u32 = 1000;
const ROW: i32 = 46;
const TOP: i32 = 84;
/// Where bars begin, and what the first and last of them stand for, in nanoseconds.
const LEFT: i32 = 310;
const FROM: f64 = 30.0;
const TO: f64 = 10_000.0;
// Okabe and Ito's colours, told apart by colour-blind readers as well.
const FEW: RGBColor = RGBColor(0x56, 0xb4, 0xe9);
const MANY: RGBColor = RGBColor(0x00, 0x72, 0xb2);
const OURS: [RGBColor; 2] = [RGBColor(0xe6, 0x9f, 0x00), RGBColor(0xd5, 0x5e, 0x00)];
const INK: RGBColor = RGBColor(0x26, 0x26, 0x26);

/// Bars on a logarithmic scale, two for each guard.
fn picture(report: &Report) -> Result<String> {
    let costs = report.peers.as_ref().map(super::Peers::costs).unwrap_or_default();
    let mut svg = String::new();
    {
        let rows = i32::try_from(costs.len())?;
        let height = u32::try_from(TOP + ROW * rows + 16)?;
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let say = |words: String, at, size: u32, right: bool| {
            let side = if right { HPos::Right } else { HPos::Left };
            let style = ("sans-serif", size).into_font().color(&INK);
            area.draw(&Text::new(words, at, style.pos(Pos::new(side, VPos::Center))))
                .map_err(failed)
        };
        area.fill(&WHITE).map_err(failed)?;
        say(
            "Router CPU time for each packet of a SYN flood, ns (log scale)".to_owned(),
            (16, 24),
            22,
            false,
        )?;
        for (at, colour, name) in [(16, FEW, "4,096 sources"), (180, MANY, "268 million sources")] {
            let sample = Rectangle::new([(at, 48), (at + 18, 64)], colour.filled());
            area.draw(&sample).map_err(failed)?;
            say(name.to_owned(), (at + 26, 56), 17, false)?;
        }
        for (row, (peer, nanoseconds)) in (0..).zip(costs) {
            let top = TOP + ROW * row;
            say(peer.name().to_owned(), (LEFT - 12, top + 17), 17, true)?;
            let colours = if peer == Peer::Ctguard { OURS } else { [FEW, MANY] };
            for (bar, (time, colour)) in (0..).zip(nanoseconds.into_iter().zip(colours)) {
                let (from, to) = (top + 18 * bar, top + 18 * bar + 16);
                let end = place(time);
                area.draw(&Rectangle::new([(LEFT, from), (end, to)], colour.filled()))
                    .map_err(failed)?;
                say(format!("{time:.0}"), (end + 8, from + 8), 15, false)?;
            }
        }
        area.present().map_err(failed)?;
    }
    Ok(svg)
}

/// Where a bar of so many nanoseconds ends.
fn place(nanoseconds: f64) -> i32 {
    let part = (nanoseconds / FROM).ln() / (TO / FROM).ln();
    #[expect(clippy::cast_possible_truncation, reason = "a place in the picture")]
    let length = (part.clamp(0.0, 1.0) * 620.0) as i32;
    LEFT + length
}

/// plotters' errors borrow the drawing, so they leave as text.
fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw the picture: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_times_the_cost_is_as_much_longer_wherever_it_is() {
        assert_eq!(place(FROM), LEFT);
        assert_eq!(place(1000.0) - place(100.0), place(5000.0) - place(500.0));
        assert_eq!(place(TO), place(10.0 * TO));
    }
}
