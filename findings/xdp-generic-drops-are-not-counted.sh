#!/bin/bash
# Linux: what a program drops in generic XDP is in no counter of the device. It counts the packets as
# received; they are not in its `dropped`, although that counts what other code drops at the same place in
# the receive path, such as frames of a protocol that nobody wants. The guess that `ip -s link` shows what
# a guard drops is wrong, and a rate taken from it is the rate before the guard. Native XDP of veth does count
# drops, but only in `ethtool -S`, and under another name in each driver; a program has to count for itself.
# Where veth runs a native program, it also counts bytes without the Ethernet header.
#
# Seen on Linux 6.18 with iproute2 6.1.0 and ethtool 6.1 (Debian 12), 20 frames of 60 bytes to a veth, as received,
# bytes, dropped and "xdp_drops": without a program 20, 1200, 20, 0; with one that drops all in generic mode
# 20, 1200, 0, 0; in native mode 20, 920, 0, 20.
#
# Root, on Debian 12, in network and mount namespaces of its own. Exit 0: as described; 1: it has changed;
# 2: it cannot run here.
set -euo pipefail

[[ $(id -u) == 0 ]] || { echo "needs root" >&2; exit 2; }
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
apt-get -qq -o APT::Sandbox::User=root download iproute2=6.1.0-3 ethtool=1:6.1-1 libbpf1=1:1.1.2-0+deb12u1 \
    libelf1=0.188-2.1 libmnl0=1.0.4-3 ||
    { echo "needs the packages of Debian 12" >&2; exit 2; }
for package in *.deb; do dpkg -x "$package" root; done
mkdir bpf

cat >pin.py <<'PYTHON'
import ctypes, os, platform, struct, sys

NUMBER = {"x86_64": 321, "aarch64": 280}[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)

def bpf(command, attributes):
    result = libc.syscall(NUMBER, command, ctypes.create_string_buffer(attributes, 144), 144)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

# An XDP program: return XDP_DROP.
code = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0), 16)
licence = ctypes.create_string_buffer(b"GPL")
program = bpf(5, struct.pack("=IIQQ", 6, 2, ctypes.addressof(code), ctypes.addressof(licence)))
path = ctypes.create_string_buffer(sys.argv[1].encode())
bpf(6, struct.pack("=QI", ctypes.addressof(path), program))
PYTHON
cat >send.py <<'PYTHON'
import socket, time

with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
    wire.bind(("far0", 0))
    for _ in range(20):
        # To everybody, of the protocol for local experiments (IEEE 802).
        wire.send(bytes(6 * [0xFF]) + bytes(6) + b"\x88\xb5" + bytes(46))
        time.sleep(0.005)
time.sleep(0.2)
PYTHON

cat >trials <<'BASH'
set -euo pipefail
mount -t bpf bpf bpf
python3 pin.py bpf/drop
export LD_LIBRARY_PATH=$(echo root/usr/lib/*-linux-gnu)
ip=root/bin/ip
echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
trial() { # MODE: packets, bytes, drops of near0, and what its driver says XDP dropped
    $ip link add near0 type veth peer name far0
    $ip link set near0 up
    $ip link set far0 up
    [[ $1 == none ]] || $ip link set near0 "$1" pinned bpf/drop
    python3 send.py
    echo "$(awk '$1 == "near0:" { print $3, $2, $5 }' /proc/net/dev)" \
        "$(root/sbin/ethtool -S near0 | awk '/xdp_drops/ { sum += $2 } END { print sum }')"
    $ip link delete near0
}
trial none
trial xdpgeneric
trial xdpdrv
BASH
mapfile -t counted < <(unshare --net --mount bash trials)

echo "Linux $(uname -r); 20 frames as received, bytes, dropped, xdp_drops"
echo "without a program: ${counted[0]}; dropped in generic mode: ${counted[1]}; in native mode: ${counted[2]}"
[[ ${counted[*]} == "20 1200 20 0 20 1200 0 0 20 920 0 20" ]] || { echo "this differs from what was seen" >&2; exit 1; }
