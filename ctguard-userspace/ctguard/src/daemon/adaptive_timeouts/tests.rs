use std::{collections::BTreeMap, fs};

use super::*;
use ctguard_kernel::conntrack::testing::TestTable;

const TIMEOUTS: [(&str, u32); 4] = [
    ("tcp_timeout_syn_sent", 120),
    ("tcp_timeout_established", 432_000),
    ("udp_timeout", 30),
    ("icmp_timeout", 30),
];

/// Files as the kernel has them, and a place for the record; removed when dropped.
struct Root(PathBuf);

impl Root {
    fn make(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ctguard-{}-{test}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let root = Self(path);
        for (name, seconds) in TIMEOUTS {
            root.settings().write(name, seconds).unwrap();
        }
        root
    }

    fn settings(&self) -> TimeoutSettings {
        TimeoutSettings::at(&self.0)
    }

    fn record(&self) -> PathBuf {
        self.0.join("run/4026531840.timeouts.json")
    }

    fn start(&self) -> AdaptiveTimeouts {
        AdaptiveTimeouts::start(self.settings(), &self.record()).unwrap()
    }

    fn values(&self) -> BTreeMap<&'static str, u32> {
        TIMEOUTS.map(|(name, _)| (name, self.settings().read(name).unwrap())).into()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn range() -> AdaptiveRange {
    AdaptiveRange::new(0.5, 1.0).unwrap()
}

#[test]
fn timeouts_come_back_when_the_pressure_is_gone() {
    let root = Root::make("gone");
    let mut timeouts = root.start();
    assert!(!root.record().exists());
    timeouts.follow(range(), 0.75).unwrap();
    assert_eq!(root.values()["tcp_timeout_syn_sent"], 60);
    assert!(root.record().exists());
    timeouts.follow(range(), 0.4).unwrap();
    assert_eq!(root.values(), TIMEOUTS.into());
    assert!(!root.record().exists());
}

#[test]
fn timeouts_come_back_at_the_end_and_at_the_next_start() {
    let root = Root::make("end");
    let mut timeouts = root.start();
    timeouts.follow(range(), 0.75).unwrap();
    timeouts.restore().unwrap();
    assert_eq!(root.values(), TIMEOUTS.into());
    timeouts.follow(range(), 0.75).unwrap();
    drop(timeouts);
    assert_ne!(root.values(), TIMEOUTS.into());
    root.start();
    assert_eq!(root.values(), TIMEOUTS.into());
    assert!(!root.record().exists());
}

/// Up, further up, down and back: killed after each step of each, then started again.
#[test]
fn a_kill_between_any_two_steps_loses_no_value() {
    let mut kills = 0;
    for fills in [[0.75, 0.9], [0.9, 0.6], [0.9, 0.4], [0.4, 0.9], [1.0, 0.0]] {
        for killed_after in 0.. {
            let root = Root::make("killed");
            let mut timeouts = root.start();
            timeouts.follow(range(), fills[0]).unwrap();
            let settings = root.settings();
            let read = |name: &str| settings.read(name);
            let adaptation = adapt(Some(range()), fills[1], &timeouts.record, read);
            let steps = steps(&timeouts.record, &adaptation);
            if killed_after > steps.len() {
                break;
            }
            timeouts.record = adaptation.record;
            for step in steps.iter().take(killed_after) {
                timeouts.take(step).unwrap();
            }
            drop(timeouts);
            // The next start is killed too, after each of its own steps.
            for killed_again_after in 0..6 {
                let record = saved_record(&root);
                let restoration = adapt(None, 0.0, &record, read);
                let steps = super::steps(&record, &restoration);
                let mut second =
                    AdaptiveTimeouts { record: restoration.record, ..unstarted(&root) };
                for step in steps.iter().take(killed_again_after) {
                    second.take(step).unwrap();
                }
                kills += 1;
            }
            root.start();
            assert_eq!(root.values(), TIMEOUTS.into(), "{fills:?} after {killed_after} steps");
            assert!(!root.record().exists());
        }
    }
    println!("{kills} kills");
}

fn unstarted(root: &Root) -> AdaptiveTimeouts {
    AdaptiveTimeouts { settings: root.settings(), path: root.record(), record: Record::default() }
}

fn saved_record(root: &Root) -> Record {
    unstarted(root).load().unwrap()
}

#[test]
fn what_the_operator_set_while_no_daemon_lived_stays() {
    let root = Root::make("operator");
    root.start().follow(range(), 0.75).unwrap();
    root.settings().write("udp_timeout", 77).unwrap();
    root.start();
    let mut expected = BTreeMap::from(TIMEOUTS);
    expected.insert("udp_timeout", 77);
    assert_eq!(root.values(), expected);
}

#[test]
fn a_setting_that_fails_leaves_the_others_restored_and_is_tried_again() {
    let root = Root::make("fails");
    let mut timeouts = root.start();
    timeouts.follow(range(), 0.75).unwrap();
    // Two steps of a restoration whose third is refused: a directory cannot be written.
    let file = root.0.join("nf_conntrack_udp_timeout");
    let restoration = adapt(None, 0.0, &timeouts.record, |name| root.settings().read(name));
    let steps = steps(&timeouts.record, &restoration);
    timeouts.record = restoration.record;
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let refused = steps.iter().filter(|step| timeouts.take(step).is_err());
    assert_eq!(refused.count(), 1);
    fs::remove_dir(&file).unwrap();
    fs::write(&file, "15").unwrap();
    assert!(root.record().exists());
    timeouts.restore().unwrap();
    assert_eq!(root.values(), TIMEOUTS.into());
}

#[test]
fn nothing_is_written_that_no_record_tells_of() {
    let root = Root::make("no-record");
    let mut timeouts = root.start();
    // A file where the record's directory belongs.
    fs::write(root.record().parent().unwrap(), "").unwrap();
    assert!(matches!(timeouts.follow(range(), 0.75), Err(TimeoutsError::Record(_))));
    assert_eq!(root.values(), TIMEOUTS.into());
}

#[test]
fn the_kernels_own_timeouts_follow_and_come_back() {
    let test = "the_kernels_own_timeouts_follow_and_come_back";
    let Some(namespace) = TestTable::make(test) else { return };
    let root = Root::make("kernel");
    namespace.run(|| {
        let settings = TimeoutSettings::of_the_kernel();
        let all = || TIMEOUTS.map(|(name, _)| settings.read(name).unwrap());
        let before = all();
        let mut timeouts = AdaptiveTimeouts::start(settings.clone(), &root.record()).unwrap();
        timeouts.follow(range(), 0.75).unwrap();
        let [syn_sent, established, ..] = all();
        assert_eq!((syn_sent, established), (before[0].div_ceil(2), before[1]));
        drop(timeouts);
        AdaptiveTimeouts::start(settings.clone(), &root.record()).unwrap();
        assert_eq!(all(), before);
    });
}

#[test]
fn a_damaged_record_is_moved_aside() {
    let root = Root::make("damaged");
    root.start().follow(range(), 0.75).unwrap();
    fs::write(root.record(), "{\"format\":").unwrap();
    root.start();
    assert!(!root.record().exists());
    assert!(root.record().with_extension("damaged").exists());
}
