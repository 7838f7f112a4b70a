#!/bin/bash
# Prometheus: `promtool check metrics` reads the older text format only, whatever its input is, and the format
# allows what OpenMetrics does not: a comment of one's own, a blank line, a blank after the comma between
# labels, and no "# EOF" at the end. If an exporter serves such a text as application/openmetrics-text, which
# Prometheus asks for first, the scrape fails as a whole, and `up` is 0. promtool also refuses what a scrape
# takes, such as the type info. So the guess that metrics which promtool has checked can be scraped is wrong
# both ways, and an exporter of OpenMetrics has to be tested by a scrape.
#
# Seen with Prometheus 2.42.0 (Debian 12), as promtool, scrape of text/plain, scrape of
# application/openmetrics-text: for the four texts above accepted, accepted, refused; for one with an info
# metric refused, refused, accepted; for plain OpenMetrics accepted by all.
#
# Root, on Debian 12, in network namespaces of its own. Exit 0: as described; 1: it has changed; 2: it
# cannot run here.
set -euo pipefail

[[ $(id -u) == 0 ]] || { echo "needs root" >&2; exit 2; }
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
apt-get -qq -o APT::Sandbox::User=root download prometheus=2.42.0+ds-5+deb12u1 || { echo "needs the packages of \
    Debian 12" >&2; exit 2; }
dpkg -x prometheus_*.deb root

mkdir texts data
gauge='# TYPE flows gauge
# HELP flows Entries.'
printf '%s\n' "$gauge" 'flows{class="tcp",state="new"} 1' '# EOF' >texts/plain
printf '%s\n' "$gauge" '# as of today' 'flows 1' '# EOF' >texts/comment
printf '%s\n' "$gauge" '' 'flows 1' '# EOF' >texts/blank-line
printf '%s\n' "$gauge" 'flows{class="tcp", state="new"} 1' '# EOF' >texts/blank
printf '%s\n' "$gauge" 'flows 1' >texts/no-end
printf '%s\n' '# TYPE build info' '# HELP build Version.' 'build_info{version="1"} 1' '# EOF' >texts/info

cat >trial.py <<'PYTHON'
import http.server, json, pathlib, subprocess, threading, time, urllib.request

TYPES = {"text": "text/plain; version=0.0.4", "openmetrics": "application/openmetrics-text; version=1.0.0; charset=utf-8"}
texts = sorted(path.name for path in pathlib.Path("texts").iterdir())
asked = {}

class Exporter(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        _, kind, name = self.path.split("/")
        asked[self.path] = asked.get(self.path, 0) + 1
        self.send_response(200)
        self.send_header("Content-Type", TYPES[kind])
        self.end_headers()
        self.wfile.write(pathlib.Path("texts", name).read_bytes())

    def log_message(self, *_):
        pass

exporter = http.server.ThreadingHTTPServer(("127.0.0.1", 9100), Exporter)
threading.Thread(target=exporter.serve_forever, daemon=True).start()
jobs = "".join(
    f"  - job_name: {kind}/{name}\n    metrics_path: /{kind}/{name}\n    static_configs: [targets: ['127.0.0.1:9100']]\n"
    for kind in TYPES for name in texts
)
pathlib.Path("prometheus.yml").write_text(f"global: {{scrape_interval: 1s}}\nscrape_configs:\n{jobs}")
server = subprocess.Popen(
    ["root/usr/bin/prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
     "--web.listen-address=127.0.0.1:9090"],
    stdout=open("log", "w"), stderr=subprocess.STDOUT,
)
try:
    began = time.monotonic()
    # The result of the first two scrapes is there when the third begins.
    while len([path for path in asked if asked[path] > 2]) < 2 * len(texts) and time.monotonic() - began < 60:
        time.sleep(0.5)
    with urllib.request.urlopen("http://127.0.0.1:9090/api/v1/query?query=up", timeout=10) as reply:
        up = {one["metric"]["job"]: one["value"][1] == "1" for one in json.load(reply)["data"]["result"]}
finally:
    server.terminate()
    server.wait(30)
for name in texts:
    check = ["root/usr/bin/promtool", "check", "metrics"]
    checked = subprocess.run(check, stdin=open(f"texts/{name}"), capture_output=True)
    # 3: it can be read, and a lint of its style complains.
    good = [checked.returncode in (0, 3), up[f"text/{name}"], up[f"openmetrics/{name}"]]
    words = ["accepted" if one else "refused" for one in good]
    print(f"{name}: {' '.join(words)}")
PYTHON
unshare --net bash -euc 'ip link set lo up; python3 trial.py' >result || { tail -n 5 log >&2; exit 2; }
cat >expected <<'TEXT'
blank: accepted accepted refused
blank-line: accepted accepted refused
comment: accepted accepted refused
info: refused refused accepted
no-end: accepted accepted refused
plain: accepted accepted accepted
TEXT
echo "Prometheus 2.42.0; promtool, scrape of text/plain, scrape of OpenMetrics"
cat result
cmp -s result expected || { echo "this differs from what was seen" >&2; exit 1; }
