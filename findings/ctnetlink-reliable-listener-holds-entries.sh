#!/bin/bash
# Linux: a program that listens for the end of connections with NETLINK_BROADCAST_ERROR, which conntrackd sets
# for "NetlinkEventsReliable On", and that stops reading keeps ended connections in the table's count. The
# kernel holds each of them until it can deliver its event (nf_ct_delete in
# net/netfilter/nf_conntrack_core.c). They count towards nf_conntrack_max, but no dump shows them, and no
# flush frees them. A guess that a listener which is too slow only loses events (ENOBUFS) is wrong for this kind:
# one stopped process can fill a table that looks empty. So a count far above what a dump returns is a
# reason to look for such a listener.
#
# Seen on Linux 6.18, 2,000 entries that were flushed while a listener with a buffer of 4 KiB read nothing:
# after 3 s the count was 1,994, and a dump returned none; it was 0 some 5 s after the listener began to read.
# With a listener without that option it was 0 at once.
#
# Root, in a network namespace of its own. Exit 0: as described; 1: it has changed; 2: it cannot run here.
set -euo pipefail

[[ $(id -u) == 0 && -e /proc/sys/net/netfilter/nf_conntrack_count ]] ||
    { echo "needs root, and conntrack loaded" >&2; exit 2; }

exec unshare --net python3 - <<'PYTHON'
import os, socket, struct, sys, time

ENTRIES = 2000
NEW, GET, DELETE = 0x100, 0x101, 0x102
REQUEST, ACK, DUMP, CREATE = 1, 4, 0x300, 0x400
ERROR, DONE = 2, 3
SOL_NETLINK, ADD_MEMBERSHIP, BROADCAST_ERROR, GROUP_DESTROY = 270, 1, 4, 3

def netlink():
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)  # NETLINK_NETFILTER
    opened.bind((0, 0))
    return opened

def message(kind, flags, attributes=b""):
    return struct.pack("=IHHIIBBH", 20 + len(attributes), kind, REQUEST | flags, 0, 0, socket.AF_INET, 0, 0) + attributes

def attribute(kind, value, nested=0):
    return struct.pack("=HH", 4 + len(value), nested | kind) + value + bytes(-len(value) % 4)

def nest(kind, *values):
    return attribute(kind, b"".join(values), 0x8000)

def flow(kind, source, target, ports):
    addresses = nest(1, attribute(1, source), attribute(2, target))
    protocol = nest(2, attribute(1, b"\x11"), attribute(2, ports[:2]), attribute(3, ports[2:]))
    return nest(kind, addresses, protocol)

def make(table):
    client, server = bytes([192, 0, 2, 1]), bytes([198, 51, 100, 1])
    for port in range(1024, 1024 + ENTRIES):
        forth, back = struct.pack(">HH", port, 53), struct.pack(">HH", 53, port)
        state = attribute(3, struct.pack(">I", 8)) + attribute(7, struct.pack(">I", 300))  # confirmed, 300 s
        table.send(message(NEW, CREATE, flow(1, client, server, forth) + flow(2, server, client, back) + state))
    assert count() == ENTRIES

def flush(table):
    table.send(message(DELETE, ACK))
    assert struct.unpack_from("=i", table.recv(4096), 16)[0] == 0

def dumped(table):
    table.send(message(GET, DUMP))
    entries = 0
    while True:
        answer = table.recv(1 << 16)
        while answer:
            length, kind = struct.unpack_from("=IH", answer)
            if kind in (DONE, ERROR):
                return entries
            entries += 1
            answer = answer[(length + 3) & ~3:]

def count():
    with open("/proc/sys/net/netfilter/nf_conntrack_count") as file:
        return int(file.read())

def listener(reliable):
    opened = netlink()
    opened.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, GROUP_DESTROY)
    opened.setsockopt(SOL_NETLINK, BROADCAST_ERROR, reliable)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    opened.settimeout(0.1)
    return opened

table = netlink()
with listener(0):
    make(table)
    flush(table)
    plain = count()
with listener(1) as stopped:
    make(table)
    flush(table)
    time.sleep(3)
    held, shown = count(), dumped(table)
    flush(table)
    flushed = count()
    began = time.monotonic()
    while count() and time.monotonic() - began < 60:
        try:
            stopped.recv(1 << 16)
        except OSError:
            pass
    after, left = time.monotonic() - began, count()
print(f"Linux {os.uname().release}, {ENTRIES} entries that were flushed while a listener read nothing")
print(f"ordinary listener: {plain} are counted; reliable: {held} are counted, {shown} in a dump, {flushed} after a flush")
print(f"{left} are counted {after:.1f} s after it began to read")
sys.exit(not (plain == 0 and held > ENTRIES * 0.9 and shown == 0 and flushed == held and left == 0))
PYTHON
