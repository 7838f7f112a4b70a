use std::collections::HashMap;

use super::*;

type Kernel = HashMap<String, u32>;

const RANGE: AdaptiveRange = AdaptiveRange { start: 0.6, end: 1.2 };

/// Linux' own defaults.
fn kernel() -> Kernel {
    [
        ("tcp_timeout_syn_sent", 120),
        ("tcp_timeout_syn_recv", 60),
        ("tcp_timeout_unacknowledged", 300),
        ("tcp_timeout_time_wait", 120),
        ("tcp_timeout_established", 432_000),
        ("udp_timeout", 30),
        ("udp_timeout_stream", 120),
        ("icmp_timeout", 30),
        ("generic_timeout", 600),
    ]
    .map(|(name, seconds)| (name.to_owned(), seconds))
    .into()
}

fn step(range: Option<AdaptiveRange>, fill: f64, record: &Record, kernel: &mut Kernel) -> Record {
    let mut adaptation = adapt(range, fill, record, |name| kernel.get(name).copied());
    for (name, seconds) in adaptation.writes {
        adaptation.record.settle(&name);
        kernel.insert(name, seconds);
    }
    adaptation.record
}

#[test]
fn nothing_is_touched_below_the_start() {
    for fill in [0.0, 0.3, 0.6] {
        let adaptation =
            adapt(Some(RANGE), fill, &Record::default(), |name| kernel().get(name).copied());
        assert_eq!(adaptation, Adaptation::default(), "{fill}");
    }
}

#[test]
fn timeouts_shrink_with_the_space_that_is_left() {
    let mut kernel = kernel();
    let record = step(Some(RANGE), 0.9, &Record::default(), &mut kernel);
    let seconds = |name: &str| kernel[name];
    assert_eq!(seconds("tcp_timeout_syn_sent"), 60);
    assert_eq!(seconds("tcp_timeout_syn_recv"), 30);
    assert_eq!(seconds("udp_timeout"), 15);
    assert_eq!(seconds("generic_timeout"), 300);
    // Not theirs yet.
    assert_eq!(seconds("tcp_timeout_established"), 432_000);
    assert!(!record.is_empty());
    step(Some(RANGE), 1.05, &record, &mut kernel);
    assert_eq!(kernel["tcp_timeout_established"], 216_000);
}

#[test]
fn a_range_needs_a_start_before_its_end() {
    assert!(AdaptiveRange::new(0.6, 0.9).is_some());
    for (start, end) in [(0.9, 0.6), (0.6, 0.6), (-0.1, 0.5), (f64::NAN, 1.0), (0.5, f64::INFINITY)]
    {
        assert_eq!(AdaptiveRange::new(start, end), None, "{start} {end}");
    }
}

#[test]
fn no_fill_takes_a_timeout_under_its_floor_or_over_its_original() {
    for timeout in TIMEOUTS {
        for original in [0, 1, 30, 120, 241, 7439, 7441, 432_000, u32::MAX] {
            let mut last = original;
            for percent in 0..=200 {
                let left = RANGE.left(f64::from(percent) / 100.0);
                let seconds = timeout.adapted(original, left);
                assert!(seconds >= timeout.floor.min(original), "{timeout:?} of {original}");
                assert!(seconds <= last, "{timeout:?} of {original} grows with the fill");
                last = seconds;
            }
        }
    }
}

#[test]
fn assured_flows_keep_what_the_rfcs_ask() {
    let floor = |name: &str| TIMEOUTS.iter().find(|timeout| timeout.name == name).unwrap().floor;
    assert!(floor("tcp_timeout_established") >= 2 * 3600 + 4 * 60);
    assert!(floor("udp_timeout_stream") >= 120);
    for name in ["unacknowledged", "max_retrans", "fin_wait", "close_wait", "time_wait"] {
        assert!(floor(&format!("tcp_timeout_{name}")) >= 240, "{name}");
    }
}

#[test]
fn the_operators_own_change_wins() {
    let mut kernel = kernel();
    let record = step(Some(RANGE), 0.9, &Record::default(), &mut kernel);
    kernel.insert("udp_timeout".to_owned(), 200);
    let record = step(Some(RANGE), 0.9, &record, &mut kernel);
    assert_eq!(kernel["udp_timeout"], 100, "half of theirs");
    kernel.insert("icmp_timeout".to_owned(), 77);
    let record = step(None, 0.9, &record, &mut kernel);
    assert_eq!(kernel["udp_timeout"], 200);
    assert_eq!(kernel["icmp_timeout"], 77);
    assert!(record.is_empty());
}

/// The model: what the operator set last, whatever the fill did meanwhile.
#[test]
fn whatever_happened_the_operators_values_come_back() {
    let mut random = 1_u32;
    let mut draw = |bound: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) % bound
    };
    for _ in 0..200 {
        let (mut kernel, mut operator) = (kernel(), kernel());
        let mut names: Vec<_> = kernel.keys().cloned().collect();
        names.sort();
        let mut record = Record::default();
        for _ in 0..30 {
            record = step(Some(RANGE), f64::from(draw(150)) / 100.0, &record, &mut kernel);
            if draw(4) == 0 {
                // Odd, and so nothing that we could have written.
                let (at, seconds) = (draw(9) as usize, 1_000_001 + 2 * draw(1000));
                operator.insert(names[at].clone(), seconds);
                kernel.insert(names[at].clone(), seconds);
            }
        }
        record = step(None, 1.0, &record, &mut kernel);
        assert_eq!(kernel, operator);
        assert!(record.is_empty());
    }
}
