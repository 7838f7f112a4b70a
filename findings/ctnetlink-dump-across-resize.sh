#!/bin/bash
# Linux: a dump of the connection table during which the hash is made narrower misses entries, and no
# message of it carries NLM_F_DUMP_INTR, the flag that tells readers of other netlink dumps to start
# again. A guess from rtnetlink, which flags every dump under which its tables change, is wrong: a
# reader of ctnetlink has to look at the number of buckets before and after a dump by itself.
#
# Seen on Linux 6.18 with pyroute2 0.9.5: 4,000 entries, a dump of which one message had been read
# when 262,144 buckets were made 32,768. It returned 2,637 and 2,805 entries in two runs. No message was
# flagged, and the dump ended with NLMSG_DONE. Without the change it returned all 4,000.
#
# Root. Entries are made in a network namespace of its own; the hash, which all namespaces share, is
# set back. Exit 0: as described; 1: it has changed; 2: it cannot run here.
set -euo pipefail

buckets=/proc/sys/net/netfilter/nf_conntrack_buckets
[[ $(id -u) == 0 && -w $buckets ]] || { echo "needs root in the first network namespace, and conntrack loaded" >&2; exit 2; }
directory=$(mktemp -d)
before=$(<"$buckets")
trap 'echo "$before" >"$buckets"; rm -rf "$directory"' EXIT
python3 -m venv "$directory/venv"
"$directory/venv/bin/pip" -q install pyroute2==0.9.5
mkfifo "$directory/go" "$directory/wait"

cat >"$directory/dump.py" <<'PYTHON'
import os, socket, struct, sys
from pyroute2 import NFCTSocket
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

ENTRIES, INTERRUPTED, DONE, ERROR = 4000, 0x10, 3, 2
directory, resized = sys.argv[1], sys.argv[2] == "resized"

with NFCTSocket() as table:
    for number in range(ENTRIES):
        source, port = f"192.0.2.{1 + number // 1000}", 1024 + number % 1000
        forth = NFCTAttrTuple(saddr=source, daddr="198.51.100.1", proto=17, sport=port, dport=53)
        back = forth.reverse()
        table.entry("add", timeout=300, tuple_orig=forth, tuple_reply=back, status=8)

reader = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)  # NETLINK_NETFILTER
reader.bind((0, 0))
# IPCTNL_MSG_CT_GET, NLM_F_REQUEST | NLM_F_DUMP, AF_INET
reader.send(struct.pack("=IHHII BBH", 20, 1 << 8 | 1, 0x301, 1, 0, 2, 0, 0))
seen, flagged, done, first = set(), 0, False, True
while not done:
    message = reader.recv(1 << 16)
    while message:
        length, kind, flags, _, _ = struct.unpack_from("=IHHII", message)
        flagged += bool(flags & INTERRUPTED)
        if kind == ERROR:
            sys.exit("the dump failed")
        done |= kind == DONE
        if kind not in (DONE, ERROR):
            # Attributes begin behind the headers; the first is the original tuple.
            (size,) = struct.unpack_from("=H", message, 20)
            seen.add(message[20:20 + size])
        message = message[(length + 3) & ~3:]
    if first and resized:
        first = False
        open(f"{directory}/go", "w").close()
        open(f"{directory}/wait").read()
print(len(seen), flagged)
PYTHON

run() { unshare --net "$directory/venv/bin/python" "$directory/dump.py" "$directory" "$1"; }
whole=$(run whole)
run resized >"$directory/result" & reader=$!
: <"$directory/go"
echo $((before / 8)) >"$buckets"
: >"$directory/wait"
wait "$reader"
resized=$(<"$directory/result")

echo "Linux $(uname -r), pyroute2 0.9.5, 4000 entries, $before buckets made $((before / 8)) during the dump"
echo "entries returned and messages flagged: $whole without a resize, $resized with one"
read -r all _ <<<"$whole"
read -r some flagged <<<"$resized"
((all == 4000 && some < 4000 && flagged == 0)) || { echo "this differs from what was seen" >&2; exit 1; }
