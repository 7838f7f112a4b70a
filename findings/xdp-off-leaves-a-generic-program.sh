#!/bin/bash
# Linux: `ip link set DEVICE xdp off` and `bpftool net detach xdp dev DEVICE` succeed on a device with a generic
# XDP program, and leave it there. A request without a mode means native mode wherever the driver has it
# (dev_xdp_mode in net/core/dev.c), and to take away a native program that is not there is no error. So where
# a guard fell back from native to generic mode, the command that everybody knows against a guard that drops
# too much says that it worked, and packets are dropped as before. It takes the mode, as in
# `xdpgeneric off`; the line of `ip link show` tells which. A guess from a device without native XDP,
# such as lo, where `xdp off` ends the program, is wrong for most network cards.
#
# Seen on Linux 6.18 with iproute2 6.1.0 and bpftool 7.1.0 (Debian 12) on a veth: exit status 0 of both, and
# the program was still there; gone after `xdpgeneric off`. A native program stayed when `xdpgeneric off`
# succeeded. On lo, `xdp off` was enough.
#
# Root, on Debian 12, in network and mount namespaces of its own. Exit 0: as described; 1: it has changed;
# 2: it cannot run here.
set -euo pipefail

[[ $(id -u) == 0 ]] || { echo "needs root" >&2; exit 2; }
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
apt-get -qq -o APT::Sandbox::User=root download iproute2=6.1.0-3 bpftool=7.1.0+6.1.176-1 \
    libbpf1=1:1.1.2-0+deb12u1 libelf1=0.188-2.1 libmnl0=1.0.4-3 ||
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

# An XDP program: return XDP_PASS.
code = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0), 16)
licence = ctypes.create_string_buffer(b"GPL")
program = bpf(5, struct.pack("=IIQQ", 6, 2, ctypes.addressof(code), ctypes.addressof(licence)))
path = ctypes.create_string_buffer(sys.argv[1].encode())
bpf(6, struct.pack("=QI", ctypes.addressof(path), program))
PYTHON

cat >trials <<'BASH'
set -euo pipefail
mount -t bpf bpf bpf
python3 pin.py bpf/pass
export LD_LIBRARY_PATH=$(echo root/usr/lib/*-linux-gnu)
ip=root/bin/ip
$ip link add near0 type veth peer name far0
trial() { # DEVICE MODE COMMAND…: the program's mode after the command
    $ip link set "$1" "$2" pinned bpf/pass
    local status=0 mode
    "${@:3}" 2>/dev/null || status=$?
    mode=$($ip link show "$1" | grep -oE 'xdp[a-z]*' | head -n 1 || true)
    echo "${@:3}: status $status, ${mode:-gone}"
    $ip link set "$1" "$2" off
}
trial near0 xdpgeneric $ip link set near0 xdp off
trial near0 xdpgeneric root/usr/sbin/bpftool net detach xdp dev near0
trial near0 xdpgeneric $ip link set near0 xdpgeneric off
trial near0 xdpdrv $ip link set near0 xdpgeneric off
trial near0 xdpdrv $ip link set near0 xdp off
trial lo xdpgeneric $ip link set lo xdp off
BASH
unshare --net --mount bash trials >result
cat >expected <<'TEXT'
root/bin/ip link set near0 xdp off: status 0, xdpgeneric
root/usr/sbin/bpftool net detach xdp dev near0: status 0, xdpgeneric
root/bin/ip link set near0 xdpgeneric off: status 0, gone
root/bin/ip link set near0 xdpgeneric off: status 0, xdp
root/bin/ip link set near0 xdp off: status 0, gone
root/bin/ip link set lo xdp off: status 0, gone
TEXT
echo "Linux $(uname -r), iproute2 6.1.0, bpftool 7.1.0"
cat result
cmp -s result expected || { echo "this differs from what was seen" >&2; exit 1; }
