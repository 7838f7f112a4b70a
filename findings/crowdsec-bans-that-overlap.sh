#!/bin/bash
# CrowdSec: two surprises of its local API for whoever keeps a list by /v1/decisions/stream.
# - Of several bans of one address it tells only the longest. When that one is deleted, nothing is told while
#   a shorter ban is left: neither that the long one ended, nor the short one. A client that goes by changes
#   blocks the address for hours after the operator shortened the ban. A guess that each ban and each end is
#   told is wrong; only a request with startup=true tells what is in force.
# - `cscli decisions delete --ip ADDRESS` also deletes the ban of a range around the address, and so lifts the
#   ban of all others in it. The guess that it deletes what `cscli decisions add --ip ADDRESS` made is wrong.
#
# Seen with CrowdSec 1.4.6 (Debian 12): bans of 192.0.2.7 for 1 h and for 4 h were told as one of 4 h; after
# the latter was deleted, a request for changes got none, and one with startup=true a ban of 1 h. Bans of
# 198.51.100.8 and of 198.51.100.0/24 were both deleted by --ip 198.51.100.8.
#
# Root, on Debian 12, in a network namespace of its own. Exit 0: as described; 1: it has changed; 2: it
# cannot run here.
set -euo pipefail

[[ $(id -u) == 0 ]] || { echo "needs root" >&2; exit 2; }
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
apt-get -qq -o APT::Sandbox::User=root download crowdsec=1.4.6-6~deb12u1+b1 libsqlite3-0=3.40.1-2+deb12u2 ||
    { echo "needs the packages of Debian 12" >&2; exit 2; }
for package in *.deb; do dpkg -x "$package" unpacked; done

mkdir data hub
echo "{}" >hub/index.json
echo "simulation: false" >simulation.yaml
touch acquisition.yaml
cat >config.yaml <<YAML
common: { daemonize: false, log_media: stdout, log_level: warning, working_dir: $directory }
config_paths:
  config_dir: $directory/
  data_dir: $directory/data/
  simulation_path: $directory/simulation.yaml
  hub_dir: $directory/hub/
  index_path: $directory/hub/index.json
  notification_dir: $directory/
  plugin_dir: $directory/
crowdsec_service: { acquisition_path: $directory/acquisition.yaml, parser_routines: 1 }
cscli: { output: raw }
db_config: { log_level: warning, type: sqlite, db_path: $directory/data/crowdsec.db, use_wal: true }
api:
  client: { credentials_path: $directory/credentials.yaml }
  server:
    log_level: warning
    listen_uri: 127.0.0.1:8080
    profiles_path: $directory/unpacked/etc/crowdsec/profiles.yaml
    trusted_ips: [127.0.0.1]
prometheus: { enabled: false }
YAML
cat >told.py <<'PYTHON'
import json, sys, urllib.request

address = f"http://127.0.0.1:8080/v1/decisions/stream?startup={sys.argv[1]}"
request = urllib.request.Request(address, headers={"X-Api-Key": "reader"})
with urllib.request.urlopen(request, timeout=10) as reply:
    told = json.load(reply)

def hours(duration):  # rounded up; Go writes 59m58.1s or 3h59m58.1s
    whole, has_hours, _ = duration.partition("h")
    return int(whole) + 1 if has_hours else 1

new = [f"+{ban['value']} {hours(ban['duration'])}h" for ban in told["new"] or []]
print(" ".join(sorted(new + [f"-{ban['value']}" for ban in told["deleted"] or []])) or "nothing")
PYTHON

cat >trials <<'BASH'
set -euo pipefail
export LD_LIBRARY_PATH=$(echo unpacked/usr/lib/*-linux-gnu)
cscli() { unpacked/usr/bin/cscli -c config.yaml "$@" >>log 2>&1; }
ip link set lo up
cscli machines add trial --password "$RANDOM$RANDOM" -f credentials.yaml --url http://127.0.0.1:8080
cscli bouncers add reader -k reader
unpacked/usr/bin/crowdsec -c config.yaml -no-cs >>log 2>&1 & server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" || true' EXIT
for ((tries = 0; tries < 100; tries++)); do
    if (: <>/dev/tcp/127.0.0.1/8080) 2>/dev/null; then break; fi
    sleep 0.2
done
# Changes that fall into the second of a request may be lost.
changes() { sleep 2; python3 told.py "$1"; }
first=$(python3 told.py true)
cscli decisions add --ip 192.0.2.7 --duration 1h
cscli decisions add --ip 192.0.2.7 --duration 4h
echo "two bans of one address: $(changes false)"
longer=$(unpacked/usr/bin/cscli -c config.yaml decisions list 2>/dev/null | awk -F, 'NR == 2 { print $1 }')
cscli decisions delete --id "$longer"
echo "the longer deleted: $(changes false), at startup $(changes true)"
cscli decisions delete --all
cscli decisions add --ip 198.51.100.8 --duration 1h
cscli decisions add --range 198.51.100.0/24 --duration 1h
before=$(unpacked/usr/bin/cscli -c config.yaml decisions list 2>/dev/null | grep -c 198.51.100)
cscli decisions delete --ip 198.51.100.8
after=$(unpacked/usr/bin/cscli -c config.yaml decisions list 2>/dev/null | grep -c 198.51.100 || true)
echo "bans of an address and of its range: $before, after delete --ip $after"
[[ $first == nothing ]]
BASH
unshare --net bash trials >result || { tail -n 5 log >&2; exit 2; }
cat >expected <<'TEXT'
two bans of one address: +192.0.2.7 4h
the longer deleted: nothing, at startup +192.0.2.7 1h
bans of an address and of its range: 2, after delete --ip 0
TEXT
echo "CrowdSec 1.4.6"
cat result
cmp -s result expected || { echo "this differs from what was seen" >&2; exit 1; }
