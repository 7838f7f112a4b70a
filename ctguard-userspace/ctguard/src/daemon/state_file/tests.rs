use super::*;
use ctguard_control::{regulars::Regular, sources::SourceScope};
use ctguard_kernel::conntrack::testing::TestTable;

fn names(directory: &tempfile::TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn learnt() -> Regulars {
    let regular = Regular { score: 2.5, usual: [40.5, 3.0], is_proven: true };
    let sources = [SourceScope::V4(0xc000_0201), SourceScope::V6(0x2001_0db8_0000_0001)];
    Regulars::restore(sources.map(|source| (source, regular)), Duration::from_secs(1_700_000_120))
}

#[test]
fn what_is_saved_is_loaded_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = StateFile::named(&directory.path().join("not/yet/there"), "host");
    assert_eq!(file.load().unwrap(), Regulars::default());
    file.save(&learnt()).unwrap();
    assert_eq!(file.load().unwrap(), learnt());
    file.save(&Regulars::default()).unwrap();
    assert_eq!(file.load().unwrap(), Regulars::default());
}

#[test]
fn the_format_is_the_documented_one() {
    let text = String::from_utf8(document(&learnt())).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], r#"{"format":2,"as_of":1700000120.0}"#);
    assert_eq!(lines[1], r#"{"source":"192.0.2.1","score":2.5,"usual":[40.5,3.0],"proven":true}"#);
    assert_eq!(
        lines[2],
        r#"{"source":"2001:db8:0:1::/64","score":2.5,"usual":[40.5,3.0],"proven":true}"#
    );
    assert_eq!(lines.len(), 3);
}

/// Scores of format 1 were minutes.
#[test]
fn a_file_of_format_1_is_read() {
    let text = "{\"format\":1,\"as_of\":9}\n{\"source\":\"192.0.2.1\",\"score\":120}\n";
    let (ranked, as_of) = parse(text.as_bytes()).unwrap().ranked();
    let regular = Regular { score: 2.0, usual: [0.0; 2], is_proven: true };
    assert_eq!(ranked, [(SourceScope::V4(0xc000_0201), regular)]);
    assert_eq!(as_of, Duration::from_secs(9));
}

#[test]
fn a_damaged_file_is_moved_aside_and_forgotten() {
    let whole = document(&learnt());
    let mut long = whole.clone();
    for number in (0..).take(Regulars::CAPACITY) {
        let line = format!("{{\"source\":\"{}\",\"score\":2}}\n", SourceScope::V4(number));
        long.extend(line.into_bytes());
    }
    let other = br#"{"format":3,"as_of":1}"#.to_vec();
    let damages: [Vec<u8>; 6] = [
        Vec::new(),
        vec![0; 4096],
        whole[..whole.len() - 5].to_vec(),
        other,
        long,
        b"{\"format\":1,\"as_of\":-1}".to_vec(),
    ];
    for damaged in damages {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::named(directory.path(), "host");
        fs::write(&file.0, &damaged).unwrap();
        assert_eq!(file.load().unwrap(), Regulars::default());
        assert_eq!(names(&directory), ["regulars-host.jsonl.damaged"]);
        file.save(&learnt()).unwrap();
        assert_eq!(file.load().unwrap(), learnt());
    }
}

#[test]
fn no_byte_of_the_file_makes_the_reader_panic() {
    let directory = tempfile::tempdir().unwrap();
    let file = StateFile::named(directory.path(), "host");
    let mut bytes = document(&learnt());
    for position in 0..bytes.len() {
        let intact = bytes[position];
        for value in [0, b'\n', b'"', b'9', 0x80, 0xff] {
            bytes[position] = value;
            fs::write(&file.0, &bytes).unwrap();
            let _ = file.load().unwrap();
        }
        bytes[position] = intact;
    }
}

#[test]
fn a_writer_that_died_midway_leaves_the_old_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = StateFile::named(directory.path(), "host");
    file.save(&learnt()).unwrap();
    fs::write(file.beside("new"), b"{\"form").unwrap();
    assert_eq!(file.load().unwrap(), learnt());
    file.save(&learnt()).unwrap();
    assert_eq!(names(&directory), ["regulars-host.jsonl"]);
}

#[test]
fn a_namespace_is_known_by_what_outlives_a_reboot() {
    let directory = tempfile::tempdir().unwrap();
    let [blue, other] = ["blue", "other"].map(|name| directory.path().join(name));
    fs::write(&blue, "").unwrap();
    fs::write(&other, "").unwrap();
    let name = namespace_name(inode(&blue).unwrap(), directory.path());
    assert_eq!(name.as_deref(), Some("netns-blue"));
    assert_eq!(namespace_name((0, 0), directory.path()), None);
    let [host, own] = ["/proc/1/ns/net", "/proc/thread-self/ns/net"].map(|it| inode(Path::new(it)));
    if host.is_some() {
        assert_eq!(host == own, lasting_name().as_deref() == Some("host"));
    }
}

#[test]
fn a_named_namespace_has_a_file_of_its_own() {
    let Some(namespace) = TestTable::make("a_named_namespace_has_a_file_of_its_own") else {
        return;
    };
    let file = namespace.run(|| StateFile::of_this_namespace(Path::new("/state"))).unwrap();
    let expected = format!("/state/regulars-netns-{}.jsonl", namespace.name());
    assert_eq!(file.0, Path::new(&expected));
}

#[test]
fn a_damaged_file_is_refused_or_read_as_another_one() {
    ctguard_damage::survives!(&[&document(&learnt())], |bytes: &[u8]| {
        if let Ok(regulars) = parse(bytes) {
            assert!(parse(&document(&regulars)).is_ok(), "what is read can be written again");
        }
    });
}
