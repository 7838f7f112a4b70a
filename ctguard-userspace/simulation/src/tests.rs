//! Whole runs: what is shipped, and what any run has to show.

use std::{fs, path::PathBuf};

use super::{frame::Frame, outcome::Counts, *};

#[test]
fn one_seed_gives_one_report() {
    for path in shipped() {
        let options = Options { duration: Some(Duration::from_millis(300)), ..options(7) };
        let json = || json(&simulate(&path, &options).unwrap());
        assert_eq!(json(), json(), "{}", path.display());
    }
}

#[test]
fn another_seed_is_another_load() {
    let flows = |seed| run_text(FLOOD, &options(seed)).groups[0].flows;
    assert_ne!(flows(1), flows(2));
}

#[test]
fn spoofed_syns_are_challenged_and_cost_clients_nothing() {
    let report = run_text(FLOOD, &options(1));
    assert_eq!(report.groups[0].at_once_ratio, Some(1.0), "{report}");
    assert!(report.groups[1].refused_packets.of("challenge") > 40_000, "{report}");
    assert!(report.is_as_expected());
    let challenged = report.stages.iter().find(|change| change.to == "challenge").unwrap();
    assert!((1.0..1.2).contains(&challenged.seconds), "{report}");
}

#[test]
fn sources_that_complete_fill_the_table_to_its_target_and_no_further() {
    let text = FLOOD.replace("spoofed = true", "sources = 50\nlasts = '60s'\ntries = 1");
    let text = text.replace("rate = '5000/s'", "rate = '10/s'").replace("'10s'", "'100s'");
    let report = run_text(&text, &options(1));
    assert!((0.70..=0.85).contains(&report.table.fill_peak_ratio), "{report}");
}

#[test]
fn a_full_table_is_reclaimed() {
    let text = FLOOD.replace("max = 1000", "max = 1000\nentries = 1000");
    let text = text.replace("fill-at-most = '85%'", "").replace("begins = '1s'", "");
    let text = text.replace("'10s'", "'10s'\nmeasure = { from = '2s', until = '10s' }");
    let report = run_text(&text, &options(1));
    assert!(report.table.fill_peak_ratio < 0.85, "{report}");
    assert!(report.groups[0].at_once_ratio.unwrap() > 0.99, "{report}");
}

/// Against tables of three sizes, at three rates, over three paths; a point of the series is a tenth
/// of a second. Fails when a flood brings the table above its target, or when clients are refused
/// although room can be made, for however short a time after the guard's first three seconds.
#[test]
fn in_no_table_at_no_rate_and_over_no_path_does_a_flood_refuse_clients_for_two_seconds() {
    for max in [16_384, 65_536, 262_144] {
        for rate in [400, 50_000, 500_000] {
            for round_trip in ["1ms", "20ms", "100ms"] {
                let report = run_text(&flooded_when_full(max, rate, round_trip), &options(1));
                assert!(report.is_as_expected(), "{report}");
                for group in 0..2 {
                    for window in report.series[30..115].windows(20) {
                        let sum = |count: fn(&Counts) -> u64| {
                            window.iter().map(|point| count(&point.groups[group])).sum::<u64>()
                        };
                        let [flows, at_once] = [sum(|it| it.flows), sum(|it| it.at_once)];
                        let from = window[0].seconds;
                        assert!(at_once * 100 >= flows * 98, "{at_once} from {from} s: {report}");
                    }
                }
            }
        }
    }
}

/// A table full of unanswered SYNs, and a flood of SYNs that are answered.
fn flooded_when_full(max: u32, rate: u32, round_trip: &str) -> String {
    let clients = |name, known| {
        format!(
            "[[group]]\nname = '{name}'\nknown-before = {known}\nsources = 100\nrate = '1/s'
            lasts = '2s'\nround-trip = '{round_trip}'\nexpect-at-once = '99%'\n"
        )
    };
    format!(
        "duration = '12s'\nmeasure = {{ from = '3s', until = '12s' }}
        [table]\nmax = {max}\nentries = {max}\n[expect]\nfill-at-most = '87%'
        {}{}[[group]]\nname = 'flood'\nspoofed = true\nanswered = true\nrate = '{rate}/s'",
        clients("known", true),
        clients("strangers", false),
    )
}

/// Fails when a default ceiling holds in calm, or when calm ends although the table has room.
#[test]
fn few_sources_far_above_the_default_ceilings_are_served_whole_while_the_table_has_room() {
    let heavy = "duration = '40s'
        [table]\nmax = 262144\nconnections = 28800\n[expect]\nrefused-at-most = '0%'
        [[group]]\nname = 'CDN edges'\nsources = 8\nrate = '150/s'\nexpect-at-once = '100%'
        [[group]]\nname = 'resolvers'\nsources = 4\nrate = '800/s'\nexpect-at-once = '100%'
        class = 'udp'\nport = 53";
    let report = run_text(heavy, &options(1));
    assert!(report.is_as_expected() && report.stages.is_empty(), "{report}");
    let assignments = vec!["source.udp.rate=200".parse().unwrap()];
    let limited = run_text(heavy, &Options { assignments, ..options(1) });
    assert!(limited.groups[1].refused_packets.of("source") > 10_000, "{limited}");
}

/// Each in the midst of visitors, on a table that is half full at the start. Fails when the guard
/// takes a crowd, a sweep or many connections of one source for an attack.
#[test]
fn nothing_of_a_calm_day_is_refused() {
    let unusual = [
        "rate = '300/s'\nbegins = '20s'\nends = '26s'\nlasts = '5min'",
        "sources = 2000\nrate = '0.05/s'\nbegins = '20s'\nlasts = '5s'",
        "rate = '254/s'\nclass = 'other'\npulse = { on = '1s', off = '9s' }",
        "rate = '100/s'\nanswered = false\ntries = 2\nbegins = '20s'\nends = '30s'",
    ];
    for (max, usual) in [(32_768, 100), (1_048_576, 1000)] {
        for unusual in unusual {
            let report = run_text(
                &format!(
                    "duration = '40s'\n[table]\nmax = {max}\nconnections = {}
                    [expect]\nrefused-at-most = '0%'
                    [[group]]\nname = 'usual'\nsources = {usual}\nrate = '0.2/s'\nlasts = '5s'
                    [[group]]\nname = 'unusual'\n{unusual}",
                    max / 2
                ),
                &options(1),
            );
            assert!(report.is_as_expected(), "{unusual}: {report}");
        }
    }
}

#[test]
fn who_was_known_before_is_asked_nothing() {
    let text = FLOOD.replace("name = 'clients'", "name = 'clients'\nknown-before = true");
    let report = run_text(&text, &options(1));
    assert_eq!(report.groups[0].refused_packets.of("challenge"), 0, "{report}");
}

#[test]
fn without_a_guard_the_same_flood_fills_it_all() {
    let assignments = vec!["dry-run=on".parse().unwrap()];
    let report = run_text(FLOOD, &Options { assignments, ..options(1) });
    assert_eq!(report.table.peak_entries, 1000);
    assert!(!report.is_as_expected());
}

#[test]
fn a_source_above_its_ceiling_gets_its_ceiling() {
    let text = "duration = '20s'\n[[group]]\nname = 'one'\nrate = '1000/s'\ntries = 1";
    // A default ceiling holds only outside calm.
    let assignments = vec!["source.tcp.rate=50".parse().unwrap()];
    let report = run_text(text, &Options { assignments, ..options(1) });
    // A burst of 200 and 50 a second; flows that answered a challenge have a burst of their own.
    let admitted = report.groups[0].at_once;
    assert!((1190..=1410).contains(&admitted), "{admitted}");
}

#[test]
fn lists_decide_before_rates_do() {
    let text = "duration = '5s'
        [[group]]\nname = 'friend'\nrate = '1000/s'\ntries = 1\nlist = 'allow'
        [[group]]\nname = 'foe'\nnetwork = '2001:db8::/48'\nrate = '9/s'\ntries = 1\nlist = 'deny'";
    let report = run_text(text, &options(1));
    assert_eq!(report.groups[0].at_once, report.groups[0].flows);
    assert_eq!(report.groups[1].refused_packets.of("deny"), report.groups[1].flows);
}

#[test]
fn without_a_daemon_the_fallback_rate_takes_over() {
    let outage = "outages = [{ begins = '3s', ends = '20s' }]";
    let text = FLOOD.replace("[guard]", &format!("[guard]\n{outage}")).replace("'1/s'", "'20/s'");
    let report = run_text(&text, &options(1));
    assert!(report.groups[0].refused_packets.of("fallback") > 0, "{report}");
}

#[test]
fn a_recording_is_replayed_packet_by_packet() {
    let path = std::env::temp_dir().join(format!("ctguard-{}.pcap", std::process::id()));
    fs::write(&path, recording(300)).unwrap();
    let assignments = vec!["source.tcp.rate=50".parse().unwrap()];
    let report = simulate(&path, &Options { assignments, ..options(1) });
    let faster = simulate(&path, &Options { speed: Some(10.0), ..options(1) });
    fs::remove_file(&path).unwrap();
    // Of one source, at once: its burst passes.
    let report = report.unwrap();
    assert_eq!((report.groups[0].flows, report.groups[0].at_once), (300, 200));
    assert!(faster.unwrap().duration_seconds < report.duration_seconds);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = simulate(Path::new("/nowhere.toml"), &options(1)).unwrap_err();
    assert_eq!(error.to_string(), "cannot read /nowhere.toml");
}

#[cfg(feature = "plot")]
#[test]
fn a_picture_names_its_groups() {
    let path = std::env::temp_dir().join(format!("ctguard-{}.svg", std::process::id()));
    draw(&run_text(FLOOD, &options(1)), &path).unwrap();
    let svg = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(svg.contains("clients") && svg.contains("flood"), "{svg}");
}

const FLOOD: &str = "
    duration = '10s'
    [table]
    max = 1000
    [guard]
    [expect]
    fill-at-most = '85%'
    [[group]]
    name = 'clients'
    sources = 10
    rate = '1/s'
    [[group]]
    name = 'flood'
    spoofed = true
    rate = '5000/s'
    begins = '1s'";

/// A pcap file of SYNs of one source, all within a millisecond.
fn recording(packets: u16) -> Vec<u8> {
    let mut file =
        vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0];
    file.extend([0, 0]);
    for packet in 0..packets {
        let mut frame = Frame::empty();
        let tuple = frame::Tuple {
            source: "192.0.2.1".parse().unwrap(),
            destination: "198.51.100.1".parse().unwrap(),
            source_port: 1024 + packet,
            destination_port: 443,
        };
        frame.write(frame::Kind::Syn, &tuple);
        file.extend(1_700_000_000_u32.to_le_bytes());
        file.extend(u32::from(packet).to_le_bytes());
        let length = u32::try_from(frame.bytes().len()).unwrap().to_le_bytes();
        file.extend(length.iter().chain(&length).chain(frame.bytes()));
    }
    file
}

fn shipped() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/scenarios");
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().unwrap() == "toml").collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn run_text(text: &str, options: &Options) -> SimulationReport {
    let scenario = Scenario::parse(text, Path::new("s.toml")).unwrap();
    run("s".to_owned(), &scenario, None, options).unwrap()
}

fn options(seed: u64) -> Options {
    Options { seed, assignments: Vec::new(), duration: None, table_max: None, speed: None }
}

fn json(report: &SimulationReport) -> String {
    let mut json = Vec::new();
    serde_json::to_writer_pretty(&mut json, &report).unwrap();
    String::from_utf8(json).unwrap()
}
