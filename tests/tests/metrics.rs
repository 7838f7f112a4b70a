//! `metrics`: read by the distribution's Prometheus, and by its promtool.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    daemon::Daemon,
    product::{Site, WAN, wait_for},
    require,
    sources::try_sources,
};
use serde_json::Value;
use tempfile::TempDir;

const SERVED: &str = "127.0.0.1:9751";
const PROMETHEUS: &str = "127.0.0.1:9090";
const DASHBOARD: &str = include_str!("../../packaging/grafana/ctguard.json");
const RULES: &str = include_str!("../../packaging/prometheus/ctguard.rules.yml");

/// A program that ends with its test.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn().with_context(|| format!("cannot run {command:?}"))?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn prometheus_scrapes_every_metric_and_evaluates_every_alert() -> Result<()> {
    const TEST: &str = "prometheus_scrapes_every_metric_and_evaluates_every_alert";
    if !require::root(TEST) || !require::program(TEST, "prometheus") {
        return Ok(());
    }
    let (site, _daemon) = guarded()?;
    let _server = Running::start(site.command(&["metrics", "--listen", SERVED]))?;
    let files = tempfile::tempdir()?;
    let _prometheus = Running::start(prometheus(&site, &files)?)?;

    wait_for("a scrape", || Ok((query(&site, "up").ok().as_deref() == Some("1")).then_some(())))?;
    let printed = site.succeed(&["metrics"])?;
    let names: BTreeSet<_> = printed.lines().filter_map(name).collect();
    ensure!(names.len() >= 20, "{printed}");
    wait_for("all series", || {
        let there = names.iter().filter(|name| query(&site, name).is_ok());
        Ok((there.count() == names.len()).then_some(()))
    })?;
    ensure!(query(&site, "sum(ctguard_new_flows_total{class=\"udp\"})")? == "50");
    ensure!(query(&site, "ctguard_stage{class=\"udp\",stage=\"calm\"}")? == "1");

    let expressions = expressions(&serde_json::from_str(DASHBOARD)?);
    ensure!(expressions.len() >= 10, "{expressions:?}");
    for expression in &expressions {
        wait_for(&format!("a value of {expression}"), || Ok(query(&site, expression).ok()))?;
    }

    let is_firing = |rule: &Value| rule["alerts"].as_array().is_some_and(|all| !all.is_empty());
    let rules =
        wait_for("all alerts to be evaluated, and the one that says that all is well", || {
            let answer = get_json(&site, "/api/v1/rules")?;
            let rules = answer.pointer("/data/groups/0/rules").and_then(Value::as_array).cloned();
            let rules = rules.unwrap_or_default();
            let known = rules.iter().all(|rule| rule["health"] != "unknown");
            Ok((known && rules.iter().any(is_firing)).then_some(rules))
        })?;
    ensure!(rules.len() == RULES.matches("- alert:").count());
    for rule in &rules {
        let is_expected = is_firing(rule) == (rule["name"] == "CtguardHoldsTarget");
        ensure!(rule["health"] == "ok" && is_expected, "{rule}");
    }
    Ok(())
}

#[test]
fn promtool_finds_nothing_to_complain_of() -> Result<()> {
    const TEST: &str = "promtool_finds_nothing_to_complain_of";
    if !require::root(TEST) || !require::program(TEST, "promtool") {
        return Ok(());
    }
    let (site, _daemon) = guarded()?;
    let files = tempfile::tempdir()?;
    let (metrics, rules) = (files.path().join("metrics"), files.path().join("rules.yml"));
    fs::write(&metrics, site.succeed(&["metrics"])?)?;
    fs::write(&rules, RULES)?;
    promtool(Command::new("promtool").args(["check", "metrics"]).stdin(fs::File::open(&metrics)?))?;
    promtool(Command::new("promtool").args(["check", "rules"]).arg(&rules))
}

fn promtool(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "{said}");
    Ok(())
}

#[test]
fn a_client_gets_the_format_that_it_asks_for_and_an_error_while_nothing_is_guarded() -> Result<()> {
    const TEST: &str =
        "a_client_gets_the_format_that_it_asks_for_and_an_error_while_nothing_is_guarded";
    if !require::root(TEST) {
        return Ok(());
    }
    let site = Site::build()?;
    let files = tempfile::tempdir()?;
    let socket = files.path().join("metrics.sock");
    let listen = format!("unix:{}", socket.display());
    let _server = Running::start(site.command(&["metrics", "--listen", &listen]))?;
    let ask = |request: &str| ask_socket(&socket, request);
    let plain = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    let nothing = wait_for("the server", || Ok(ask(plain).ok()))?;
    ensure!(nothing.starts_with("HTTP/1.1 503 ") && nothing.contains("no guard"), "{nothing}");

    let _daemon = site.start(&["run", "-i", WAN])?;
    let text = ask(plain)?;
    ensure!(text.starts_with("HTTP/1.1 200 ") && text.contains("text/plain; version=0.0.4"));
    ensure!(text.contains("# TYPE ctguard_new_flows_total counter\n") && !text.contains("# EOF"));
    let open =
        ask("GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text\r\n\r\n")?;
    ensure!(
        open.contains("# TYPE ctguard_new_flows counter\n") && open.ends_with("# EOF\n"),
        "{open}"
    );
    ensure!(!open.contains("\n\n") && open.contains("# TYPE ctguard_build info\n"), "{open}");
    let head = ask("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")?;
    ensure!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    ensure!(ask("GET /other HTTP/1.1\r\nHost: x\r\n\r\n")?.starts_with("HTTP/1.1 404 "));
    ensure!(ask("POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n")?.starts_with("HTTP/1.1 405 "));
    ensure!(ask("nonsense\r\n\r\n")?.starts_with("HTTP/1.1 400 "));
    Ok(())
}

/// A guard that has seen 50 new flows, and its daemon.
fn guarded() -> Result<(Site, Daemon)> {
    let site = Site::build()?;
    site.guarded().ip(&["link set lo up".to_owned()])?;
    let daemon = site.start(&["run", "-i", WAN])?;
    try_sources(&site, &site.wire()?, 1, 50)?;
    Ok((site, daemon))
}

/// Prometheus in the guarded namespace, with the alerts that are shipped.
fn prometheus(site: &Site, files: &TempDir) -> Result<Command> {
    let path = |name: &str| files.path().join(name);
    fs::write(path("ctguard.rules.yml"), RULES)?;
    fs::write(
        path("prometheus.yml"),
        format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [ctguard.rules.yml]\n\
             scrape_configs: [{{ job_name: ctguard, static_configs: [{{ targets: ['{SERVED}'] }}] }}]\n"
        ),
    )?;
    let mut command = site.guarded().command("prometheus");
    command.arg(format!("--config.file={}", path("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", path("data").display()));
    command.arg(format!("--web.listen-address={PROMETHEUS}"));
    Ok(command)
}

/// What the panels of a dashboard ask, with the variables that Grafana replaces.
fn expressions(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let asked = targets.filter_map(|target| target["expr"].as_str());
    asked.map(|it| it.replace("$instance", ".*").replace("$__rate_interval", "10s")).collect()
}

/// The name of a sample.
fn name(line: &str) -> Option<&str> {
    line.split(['{', ' ']).next().filter(|_| !line.starts_with('#'))
}

/// The first value that an expression has.
fn query(site: &Site, expression: &str) -> Result<String> {
    let escaped = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    let expression: String = expression.bytes().map(escaped).collect();
    let answer = get_json(site, &format!("/api/v1/query?query={expression}"))?;
    let value = answer.pointer("/data/result/0/value/1").and_then(Value::as_str);
    value.map(str::to_owned).with_context(|| format!("no value of {expression}: {answer}"))
}

fn get_json(site: &Site, path: &str) -> Result<Value> {
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    let address: SocketAddr = PROMETHEUS.parse()?;
    let answer = site.guarded().run(|| {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        exchange(stream, &request)
    })?;
    let (_, body) = answer.split_once("\r\n\r\n").context("an answer has a body")?;
    serde_json::from_str(body).with_context(|| answer.clone())
}

fn ask_socket(socket: &Path, request: &str) -> Result<String> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    exchange(stream, request)
}

fn exchange(mut stream: impl Read + Write, request: &str) -> Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
