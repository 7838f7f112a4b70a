#!/bin/bash
# Linux: a native XDP program on a veth that sends packets back (XDP_TX) reaches the other end only while
# that end has a native XDP program too: frames are queued there, but nobody is told to fetch them
# (veth_xdp_flush in drivers/net/veth.c). It is a fair guess that XDP_TX works on a veth as on a network
# card, or wherever the other end polls, which GRO makes it do. Neither is so. In generic mode the
# frames arrive.
#
# Seen on Linux 6.18 with pyroute2 0.9.5, frames that came back of 20: native 0, native with GRO at the
# other end 0, native with a program at the other end that passes all 20, generic 20.
#
# Root. Frames go through a veth pair between two network namespaces of their own. Exit 0: as described;
# 1: it has changed; 2: it cannot run here.
set -euo pipefail

[[ $(id -u) == 0 ]] || { echo "needs root" >&2; exit 2; }
command -v ethtool >/dev/null || { echo "needs ethtool" >&2; exit 2; }
directory=$(mktemp -d)
near=veth-near-$$ far=veth-far-$$
trap 'ip netns delete "$near" 2>/dev/null || true; ip netns delete "$far" 2>/dev/null || true
    rm -rf "$directory"' EXIT
python3 -m venv "$directory/venv"
"$directory/venv/bin/pip" -q install pyroute2==0.9.5
ip netns add "$near"
ip netns add "$far"
ip -n "$near" link add near0 type veth peer name far0 netns "$far"

cat >"$directory/attach.py" <<'PYTHON'
import ctypes, os, struct, sys
from pyroute2 import IPRoute

SYSCALL = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
PROG_LOAD, XDP = 5, 6
VERDICTS = {"pass": 2, "tx": 3}
MODES = {"generic": 1 << 1, "native": 1 << 2}
libc = ctypes.CDLL(None, use_errno=True)

def program(verdict):
    code = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, verdict, 0x95, 0, 0, 0), 16)
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack("=IIQQ", XDP, 2, ctypes.addressof(code), ctypes.addressof(licence))
    buffer = ctypes.create_string_buffer(attributes, 144)
    result = libc.syscall(SYSCALL, PROG_LOAD, buffer, len(buffer))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

device, mode, verdict = sys.argv[1:]
fd = program(VERDICTS[verdict]) if verdict in VERDICTS else -1
with IPRoute() as ip:
    index = ip.link_lookup(ifname=device)[0]
    xdp = {"attrs": [("IFLA_XDP_FD", fd), ("IFLA_XDP_FLAGS", MODES[mode])]}
    ip.link("set", index=index, IFLA_XDP=xdp, state="up")
PYTHON

cat >"$directory/send.py" <<'PYTHON'
import socket, time

ETHERTYPE, FRAMES = 0x88B5, 20  # for local experiments, IEEE 802
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE)) as wire:
    wire.bind(("far0", ETHERTYPE))
    wire.settimeout(1)
    for number in range(FRAMES):
        wire.send(bytes(6 * [0xFF]) + bytes(6) + ETHERTYPE.to_bytes(2, "big") + bytes([number]) * 46)
        time.sleep(0.01)
    back = 0
    try:
        while True:
            _, (_, _, kind, _, _) = wire.recvfrom(256)
            back += kind != socket.PACKET_OUTGOING
    except TimeoutError:
        print(back)
PYTHON

python() { # NAMESPACE SCRIPT ARGUMENT…
    ip netns exec "$1" "$directory/venv/bin/python" "$directory/$2.py" "${@:3}"
}
ip -n "$far" link set far0 up

python "$near" attach near0 native tx
alone=$(python "$far" send)
ip netns exec "$far" ethtool -K far0 gro on
polled=$(python "$far" send)
ip netns exec "$far" ethtool -K far0 gro off
python "$far" attach far0 native pass
# Takes what is still queued.
python "$far" send >"$directory/queued"
paired=$(python "$far" send)
python "$far" attach far0 native none
python "$near" attach near0 native none
python "$near" attach near0 generic tx
generic=$(python "$far" send)

echo "came back of 20: native $alone, with GRO at the other end $polled, with a program there $paired; generic $generic"
[[ $alone == 0 && $polled == 0 && $paired == 20 && $generic == 20 ]]
