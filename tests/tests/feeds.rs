//! Lists that are kept elsewhere: files, sets of nftables, `CrowdSec`'s local API.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ctguard_layout::FeedEntry;
use ctguard_tests::{
    daemon::Daemon,
    exec,
    product::{Site, WAN, wait_for},
    require,
    sources::try_one_source,
};
use serde_json::Value;
use tempfile::TempDir;

/// The source of `try_one_source`'s round 5.
const SOURCE: &str = "192.0.2.5";

struct Feeds(TempDir);

impl Feeds {
    /// A configuration with a feed `list` of this kind and these keys.
    fn new(keys: &str) -> Result<Self> {
        let feeds = Self(tempfile::tempdir()?);
        feeds.configure(keys)?;
        Ok(feeds)
    }

    fn of_file() -> Result<Self> {
        let feeds = Self::new("")?;
        feeds.configure(&format!("kind = \"file\"\npath = \"{}\"", feeds.list().display()))?;
        Ok(feeds)
    }

    fn configure(&self, keys: &str) -> Result<()> {
        let table = if keys.is_empty() { String::new() } else { format!("[feeds.list]\n{keys}\n") };
        Ok(fs::write(self.at("ctguard.toml"), format!("interfaces = [\"{WAN}\"]\n{table}"))?)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn list(&self) -> PathBuf {
        self.at("list.txt")
    }

    /// Replaces the list by a rename.
    fn write(&self, text: &str) -> Result<()> {
        fs::write(self.at("list.new"), text)?;
        Ok(fs::rename(self.at("list.new"), self.list())?)
    }

    fn start(&self, site: &Site) -> Result<Daemon> {
        site.start(&["run", "--config", &self.at("ctguard.toml").display().to_string()])
    }
}

fn feed(site: &Site) -> Result<Value> {
    let answer = site.ctguard(&["feeds", "--json"])?;
    let report: Value = serde_json::from_str(&answer.out).with_context(|| format!("{answer:?}"))?;
    Ok(report["feeds"][0].clone())
}

fn wait_for_prefixes(site: &Site, count: u64) -> Result<Value> {
    wait_for(&format!("a feed of {count} prefixes"), || {
        let feed = feed(site)?;
        Ok((feed["prefixes"] == count && feed["fault"].is_null()).then_some(feed))
    })
}

fn wait_for_fault(site: &Site, text: &str) -> Result<()> {
    wait_for(&format!("a fault that says {text}"), || {
        let fault = feed(site)?["fault"].as_str().unwrap_or_default().to_owned();
        Ok(fault.contains(text).then_some(()))
    })
}

fn wait_until_denied(site: &Site, prefix: &str, is_denied: bool) -> Result<()> {
    wait_for(&format!("{prefix} to be listed: {is_denied}"), || {
        let listed = site.ctguard(&["deny", "list", prefix])?.code == Some(0);
        Ok((listed == is_denied).then_some(()))
    })
}

/// Fails when a packet of a listed source passes while the list is replaced by another that has it too.
#[test]
fn a_file_that_is_replaced_under_packets_lets_none_through() -> Result<()> {
    if !require::root("a_file_that_is_replaced_under_packets_lets_none_through") {
        return Ok(());
    }
    let (site, feeds) = (Site::build()?, Feeds::of_file()?);
    feeds.write("192.0.2.0/24 # a remark\n2001:db8::/48\n")?;
    let _daemon = feeds.start(&site)?;
    wait_for_prefixes(&site, 2)?;
    let listed = site.succeed(&["deny", "list", SOURCE])?;
    ensure!(listed == "192.0.2.0/24 (feed list)\n", "{listed}");
    let wire = site.wire()?;
    for (round, text) in
        ["192.0.2.5\n", "192.0.2.4/31\n203.0.113.1\n203.0.113.2\n", "192.0.2.0/24\n"]
            .into_iter()
            .cycle()
            .take(6)
            .enumerate()
    {
        feeds.write(text)?;
        let changed = Instant::now();
        while changed.elapsed() < Duration::from_millis(700) {
            let tried = try_one_source(&site, &wire, 5, 20)?;
            ensure!(tried.deny == 20, "round {round}: {tried:?}");
        }
        wait_for_prefixes(&site, text.lines().count() as u64)?;
    }
    // The operator's own word goes before that of a feed.
    site.succeed(&["allow", "add", SOURCE])?;
    ensure!(try_one_source(&site, &wire, 5, 20)?.admitted == 20, "allowed by the operator");
    site.succeed(&["allow", "del", SOURCE])?;
    let refused = site.ctguard(&["deny", "del", "192.0.2.0/24"])?;
    ensure!(refused.refusal(1)?.contains("listed by feed list"), "{refused:?}");

    feeds.write("")?;
    wait_for_prefixes(&site, 0)?;
    ensure!(try_one_source(&site, &wire, 5, 20)?.admitted == 20, "the list is empty");
    wait_for("an event that says so", || {
        let events = site.succeed(&["events"])?;
        Ok(events.contains("feed list lists nothing any more; it had 1 prefix").then_some(()))
    })
}

/// Fails when a bad line, or a file that is gone, changes the list, or nobody is told.
#[test]
fn a_bad_line_leaves_the_list_as_it_was_and_is_told_once() -> Result<()> {
    if !require::root("a_bad_line_leaves_the_list_as_it_was_and_is_told_once") {
        return Ok(());
    }
    let (site, feeds) = (Site::build()?, Feeds::of_file()?);
    feeds.write("192.0.2.5\n")?;
    let _daemon = feeds.start(&site)?;
    wait_for_prefixes(&site, 1)?;
    feeds.write("203.0.113.1\n192.0.2.256\n")?;
    wait_for_fault(&site, "list.txt, line 2: 192.0.2.256 is not an IPv4 or IPv6 prefix")?;
    ensure!(try_one_source(&site, &site.wire()?, 5, 20)?.deny == 20);
    ensure!(site.ctguard(&["deny", "list", "203.0.113.1"])?.code == Some(1), "all or nothing");
    ensure!(site.ctguard(&["feeds"])?.code == Some(1), "a fault is the answer no");
    let status = site.succeed(&["status"])?;
    ensure!(status.contains("FAULT   feed list: ") && status.contains("line 2"), "{status}");
    let metrics = site.succeed(&["metrics"])?;
    for line in
        ["ctguard_feed_entries{feed=\"list\",list=\"deny\"} 1", "ctguard_feed_failures_total"]
    {
        ensure!(metrics.contains(line), "{line} is not in {metrics}");
    }
    fs::remove_file(feeds.list())?;
    wait_for_fault(&site, "No such file")?;
    wait_until_denied(&site, SOURCE, true)?;
    feeds.write("192.0.2.5\n192.0.2.6\n")?;
    wait_for_prefixes(&site, 2)?;
    let events = || site.succeed(&["events"]);
    wait_for("the end of the fault", || {
        Ok(events()?.contains("feed list can be read again; it lists 2 prefixes").then_some(()))
    })?;
    let told = events()?.matches("what it listed before stays").count();
    ensure!(told == 1, "told {told} times");
    Ok(())
}

/// Fails when a restart of the daemon opens the list, or a feed that is gone from the configuration stays.
#[test]
fn what_a_feed_listed_outlives_the_daemon_and_goes_with_the_feed() -> Result<()> {
    if !require::root("what_a_feed_listed_outlives_the_daemon_and_goes_with_the_feed") {
        return Ok(());
    }
    let (site, feeds) = (Site::build()?, Feeds::of_file()?);
    feeds.write("192.0.2.5\n")?;
    let daemon = feeds.start(&site)?;
    wait_until_denied(&site, SOURCE, true)?;
    daemon.kill()?;
    // The new daemon cannot read it.
    fs::remove_file(feeds.list())?;
    let daemon = feeds.start(&site)?;
    wait_for_fault(&site, "No such file")?;
    ensure!(try_one_source(&site, &site.wire()?, 5, 20)?.deny == 20, "it stays");
    daemon.kill()?;
    feeds.configure("")?;
    let _daemon = feeds.start(&site)?;
    wait_until_denied(&site, SOURCE, false)?;

    fs::create_dir(feeds.at("lists"))?;
    fs::write(feeds.at("lists/a"), "192.0.2.5")?;
    let path = feeds.at("lists");
    feeds.configure(&format!("kind = \"directory\"\npath = \"{}\"", path.display()))?;
    let config = feeds.at("ctguard.toml").display().to_string();
    let diff = site.ctguard(&["config", "diff", &config])?;
    ensure!(diff.out.contains("following feed list: directory"), "{diff:?}");
    let said = site.succeed(&["reload"])?;
    ensure!(said.contains("following feed list: directory"), "{said}");
    wait_until_denied(&site, SOURCE, true)?;
    ensure!(site.ctguard(&["config", "diff", &config])?.code == Some(0));
    Ok(())
}

/// Fails when a long list does not come into force soon, or a longer one than fits takes anything away.
#[test]
fn a_million_prefixes_are_swapped_and_more_are_refused() -> Result<()> {
    const MILLION: u32 = 1_000_000;
    if !require::root("a_million_prefixes_are_swapped_and_more_are_refused") {
        return Ok(());
    }
    let (site, feeds) = (Site::build()?, Feeds::of_file()?);
    feeds.write("192.0.2.5\n")?;
    let daemon = feeds.start(&site)?;
    wait_until_denied(&site, SOURCE, true)?;
    // Written before they come under the name that is watched.
    let lists = [0..MILLION, MILLION / 2..MILLION / 2 + MILLION + 1];
    let mut count = 0;
    for (number, addresses) in lists.into_iter().enumerate() {
        let last = addresses.end - 1;
        count = addresses.len() as u64 + 1;
        fs::write(feeds.at(&number.to_string()), many(addresses))?;
        let began = Instant::now();
        fs::rename(feeds.at(&number.to_string()), feeds.list())?;
        wait_for("the list", || Ok((feed(&site)?["prefixes"] == count).then_some(())))?;
        let took = began.elapsed();
        println!("list {number} of a million prefixes: in force {took:?} after its rename");
        let address = address(last);
        ensure!(site.ctguard(&["deny", "list", &address])?.code == Some(0), "{address}");
        ensure!(try_one_source(&site, &site.wire()?, 5, 20)?.deny == 20, "list {number}");
        // Two seconds, on a machine that has nothing else to do.
        ensure!(took < Duration::from_secs(10), "list {number} took {took:?}");
    }
    let process = fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let memory =
        process.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"));
    println!(
        "maps: {} bytes; daemon: {memory:?}",
        site.number("/maps/bytes")?,
        memory = memory.collect::<Vec<_>>()
    );
    let gone = address(1);
    ensure!(
        site.ctguard(&["deny", "list", &gone])?.code == Some(1),
        "{gone} was in the first list"
    );

    fs::write(feeds.at("long"), many(0..FeedEntry::CAPACITY))?;
    fs::rename(feeds.at("long"), feeds.list())?;
    wait_for_fault(&site, "it takes 1048576")?;
    ensure!(feed(&site)?["prefixes"] == count, "what was there stays");
    feeds.write("192.0.2.5\n")?;
    wait_for_prefixes(&site, 1)?;
    Ok(())
}

/// Addresses that are in no order and share few bits, and the source of the tests.
fn many(numbers: std::ops::Range<u32>) -> String {
    let mut text: String = numbers.map(|number| address(number) + "\n").collect();
    text.push_str("192.0.2.5\n");
    text
}

fn address(number: u32) -> String {
    // An odd factor makes another number of each.
    std::net::Ipv4Addr::from(number.wrapping_mul(2_654_435_761)).to_string()
}

/// Fails when an element of a set is not denied, or for longer than it has left.
#[test]
fn a_set_of_nftables_is_followed_as_long_as_its_elements_last() -> Result<()> {
    const TEST: &str = "a_set_of_nftables_is_followed_as_long_as_its_elements_last";
    if !require::root(TEST) || !require::program(TEST, "nft") {
        return Ok(());
    }
    let site = Site::build()?;
    let feeds = Feeds::new(
        "kind = \"nftables\"\nfamily = \"inet\"\ntable = \"f2b-table\"\nset = \"bans\"\nevery = \"1s\"",
    )?;
    let _daemon = feeds.start(&site)?;
    wait_for("a set that is not there", || {
        Ok((feed(&site)?["note"] == "the set is not there").then_some(()))
    })?;
    let nft = |command: &str| exec::run(site.guarded().command("nft").arg(command));
    nft("add table inet f2b-table")?;
    nft("add set inet f2b-table bans { type ipv4_addr; flags interval, timeout; }")?;
    nft("add element inet f2b-table bans { 192.0.2.5 timeout 4s, 203.0.113.0/25 }")?;
    nft("add element inet f2b-table bans { 203.0.113.130-203.0.113.133 }")?;
    wait_until_denied(&site, SOURCE, true)?;
    let wire = site.wire()?;
    ensure!(try_one_source(&site, &wire, 5, 20)?.deny == 20);
    let feed = wait_for_prefixes(&site, 4)?;
    ensure!(feed["note"].is_null(), "{feed}");
    wait_until_denied(&site, SOURCE, false)?;
    ensure!(try_one_source(&site, &wire, 5, 20)?.admitted == 20);
    wait_until_denied(&site, "203.0.113.132", true)?;
    nft("delete table inet f2b-table")?;
    wait_for_prefixes(&site, 0)?;
    Ok(())
}

/// A local API of `CrowdSec`, as Debian ships it, that ends with its test.
struct Crowdsec {
    files: TempDir,
    server: Option<Child>,
}

impl Crowdsec {
    const URL: &str = "127.0.0.1:8099";

    /// Its key is in the file `key`.
    fn start(site: &Site) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let at = |name: &str| files.path().join(name).display().to_string();
        for directory in ["data", "hub", "plugins", "notifications"] {
            fs::create_dir(at(directory))?;
        }
        for (name, text) in [
            ("hub/.index.json", "{}"),
            ("credentials.yaml", ""),
            ("simulation.yaml", "simulation: false"),
            ("profiles.yaml", "name: none\nfilters: [\"false\"]\ndecisions: []\non_success: break"),
        ] {
            fs::write(at(name), text)?;
        }
        let config = format!(
            "common: {{daemonize: false, log_media: stdout, log_level: error, working_dir: .}}\n\
             config_paths: {{config_dir: {root}, data_dir: {root}/data, hub_dir: {root}/hub,\n\
             simulation_path: {root}/simulation.yaml, index_path: {root}/hub/.index.json,\n\
             notification_dir: {root}/notifications, plugin_dir: {root}/plugins}}\n\
             cscli: {{output: raw}}\n\
             db_config: {{type: sqlite, db_path: {root}/data/crowdsec.db, log_level: error}}\n\
             api: {{client: {{credentials_path: {root}/credentials.yaml}},\n\
             server: {{listen_uri: {url}, profiles_path: {root}/profiles.yaml, log_level: error}}}}\n\
             prometheus: {{enabled: false}}\n",
            root = files.path().display(),
            url = Self::URL,
        );
        fs::write(at("config.yaml"), config)?;
        let mut crowdsec = Self { files, server: None };
        crowdsec.cscli(site, &["machines", "add", "lab", "--auto", "--force"])?;
        let key = crowdsec.cscli(site, &["bouncers", "add", "ctguard", "-o", "raw"])?;
        fs::write(crowdsec.files.path().join("key"), key)?;
        crowdsec.serve(site)?;
        Ok(crowdsec)
    }

    fn serve(&mut self, site: &Site) -> Result<()> {
        let config = self.files.path().join("config.yaml");
        let mut server = site.guarded().command("crowdsec");
        server.arg("-no-cs").arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
        self.server = Some(server.spawn().context("cannot run crowdsec")?);
        wait_for("the local API", || {
            Ok(site.guarded().run(|| Ok(TcpStream::connect(Self::URL).is_ok()))?.then_some(()))
        })
    }

    fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    fn cscli(&self, site: &Site, arguments: &[&str]) -> Result<String> {
        let config = self.files.path().join("config.yaml");
        exec::run(site.guarded().command("cscli").arg("-c").arg(config).args(arguments))
    }
}

impl Drop for Crowdsec {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Fails when a ban of the real one is not denied, or after its end still is.
#[test]
fn bans_of_crowdsec_are_denied_until_they_end() -> Result<()> {
    const TEST: &str = "bans_of_crowdsec_are_denied_until_they_end";
    if !require::root(TEST) || !require::program(TEST, "crowdsec") {
        return Ok(());
    }
    let site = Site::build()?;
    site.guarded().ip(&["link set lo up"])?;
    let mut crowdsec = Crowdsec::start(&site)?;
    let decide = |crowdsec: &Crowdsec, words: &[&str]| {
        crowdsec.cscli(&site, &[&["decisions"], words].concat())
    };
    decide(&crowdsec, &["add", "--ip", SOURCE])?;
    let feeds = Feeds::new(&format!(
        "kind = \"crowdsec\"\nurl = \"http://{}\"\nkey-file = \"{}\"\nevery = \"1s\"",
        Crowdsec::URL,
        crowdsec.files.path().join("key").display()
    ))?;
    let _daemon = feeds.start(&site)?;
    wait_until_denied(&site, SOURCE, true)?;
    let wire = site.wire()?;
    ensure!(try_one_source(&site, &wire, 5, 20)?.deny == 20);
    decide(&crowdsec, &["add", "--range", "203.0.113.77/24"])?;
    decide(&crowdsec, &["add", "--ip", "2001:DB8:0:0::1"])?;
    decide(&crowdsec, &["add", "--ip", "192.0.2.9", "--duration", "8s"])?;
    decide(&crowdsec, &["add", "--ip", "192.0.2.10", "--type", "captcha"])?;
    for prefix in ["203.0.113.1", "2001:db8::1", "192.0.2.9"] {
        wait_until_denied(&site, prefix, true)?;
    }
    let feed = feed(&site)?;
    ensure!(feed["prefixes"] == 4 && feed["ignored"] == 1, "{feed}");
    decide(&crowdsec, &["delete", "--ip", SOURCE])?;
    wait_until_denied(&site, SOURCE, false)?;
    wait_until_denied(&site, "192.0.2.9", false)?;
    ensure!(try_one_source(&site, &wire, 5, 20)?.admitted == 20);

    crowdsec.stop();
    wait_for_fault(&site, "cannot reach 127.0.0.1:8099")?;
    wait_until_denied(&site, "203.0.113.1", true)?;
    crowdsec.serve(&site)?;
    decide(&crowdsec, &["add", "--ip", SOURCE])?;
    wait_until_denied(&site, SOURCE, true)
}

/// Fails when an API that stalls, floods or lies changes the list or holds the daemon up.
#[test]
fn an_api_that_lies_leaves_the_guard_as_it_was() -> Result<()> {
    const BAN: &str = r#"{"deleted":null,"new":[{"duration":"1h","id":1,"origin":"cscli","scenario":"x",
        "scope":"Ip","type":"ban","value":"192.0.2.5"}]}"#;
    if !require::root("an_api_that_lies_leaves_the_guard_as_it_was") {
        return Ok(());
    }
    let site = Site::build()?;
    site.guarded().ip(&["link set lo up"])?;
    let listener = site.guarded().run(|| Ok(TcpListener::bind("127.0.0.1:8080")?))?;
    let feeds = Feeds::new("")?;
    fs::write(feeds.at("key"), "secret\n")?;
    feeds.configure(&format!(
        "kind = \"crowdsec\"\nurl = \"http://127.0.0.1:8080\"\nkey-file = \"{}\"\nevery = \"1s\"",
        feeds.at("key").display()
    ))?;
    let (answers, turn) = std::sync::mpsc::channel::<Lie>();
    let serving = thread::spawn(move || serve(&listener, &turn));
    answers.send(Lie::Answer(BAN))?;
    let daemon = feeds.start(&site)?;
    wait_for_prefixes(&site, 1)?;
    ensure!(try_one_source(&site, &site.wire()?, 5, 20)?.deny == 20);
    for (lie, fault) in [
        (Lie::Answer("{\"new\":[{\"value\":7}]}"), "answers something unknown"),
        (Lie::Flood, "length limit exceeded"),
        (Lie::Stall, "has not answered within"),
    ] {
        answers.send(lie)?;
        wait_for_fault_for(&site, fault, Duration::from_secs(90))?;
        ensure!(try_one_source(&site, &site.wire()?, 5, 20)?.deny == 20, "{fault}");
        let age = site.status()?["daemon"]["heartbeat_age_seconds"].as_f64();
        ensure!(age.is_some_and(|age| age < 5.0), "{fault}: the daemon ticks on: {age:?}");
    }
    drop((answers, daemon));
    // It waits for one more client.
    let _ = site.guarded().run(|| Ok(TcpStream::connect("127.0.0.1:8080")?));
    serving.join().map_err(|_| anyhow::anyhow!("the server failed"))
}

#[derive(Clone, Copy)]
enum Lie {
    Answer(&'static str),
    Flood,
    Stall,
}

fn wait_for_fault_for(site: &Site, text: &str, most: Duration) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < most {
        if feed(site)?["fault"].as_str().is_some_and(|fault| fault.contains(text)) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("no fault that says {text}: {}", feed(site)?)
}

/// Answers each client as the newest message says, until there is nobody who could send another.
fn serve(listener: &TcpListener, turn: &std::sync::mpsc::Receiver<Lie>) {
    let Ok(mut lie) = turn.recv() else { return };
    loop {
        let Ok((mut client, _)) = listener.accept() else { return };
        loop {
            match turn.try_recv() {
                Ok(next) => lie = next,
                Err(std::sync::mpsc::TryRecvError::Empty) => break,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
            }
        }
        // Whoever is cut off ends the connection.
        let _ = answer(&mut client, lie);
    }
}

fn answer(client: &mut TcpStream, lie: Lie) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_mins(1)))?;
    let _ = client.read(&mut [0; 4096])?;
    match lie {
        Lie::Answer(text) => {
            let length = text.len();
            write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}")
        }
        Lie::Flood => {
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            loop {
                client.write_all(&[b' '; 4096])?;
            }
        }
        Lie::Stall => {
            client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{")?;
            client.read(&mut [0; 16]).map(|_| ())
        }
    }
}
