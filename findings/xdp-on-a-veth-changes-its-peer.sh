#!/bin/bash
# Linux: a native XDP program on one end of a veth pair takes an offload and large frames from the other end,
# where no program is: TCP segmentation offload goes off there, and the largest MTU that it may have shrinks to
# what fits into a page (veth_xdp_set and veth_fix_features in drivers/net/veth.c). The guess that attaching
# changes the device that it names, and only that, is wrong. A guard on the host's end makes the container
# send in small pieces, and `ip link set eth0 mtu 9000` in the container fails as long as the guard is
# there. A program that takes fragments (BPF_F_XDP_HAS_FRAGS) leaves the MTU, but not the offload. Generic mode
# leaves both.
#
# Seen on Linux 6.18 with iproute2 6.1.0 and ethtool 6.1 (Debian 12), of the other end, segmentation offload and
# largest MTU: without a program on, 65535; native off, 3506; native with fragments off, 73138; generic on, 65535;
# and after native mode on, 65535 again. The end with the program kept its own.
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
import ctypes, os, platform, struct

NUMBER = {"x86_64": 321, "aarch64": 280}[platform.machine()]
HAS_FRAGS = 1 << 5
libc = ctypes.CDLL(None, use_errno=True)

def bpf(command, attributes):
    result = libc.syscall(NUMBER, command, ctypes.create_string_buffer(attributes, 144), 144)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

# An XDP program: return XDP_PASS.
code = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0), 16)
licence = ctypes.create_string_buffer(b"GPL")
for name, flags in ("linear", 0), ("fragments", HAS_FRAGS):
    attributes = struct.pack("=IIQQ20xI", 6, 2, ctypes.addressof(code), ctypes.addressof(licence), flags)
    path = ctypes.create_string_buffer(f"bpf/{name}".encode())
    bpf(6, struct.pack("=QI", ctypes.addressof(path), bpf(5, attributes)))
PYTHON

cat >trials <<'BASH'
set -euo pipefail
mount -t bpf bpf bpf
python3 pin.py
export LD_LIBRARY_PATH=$(echo root/usr/lib/*-linux-gnu)
ip=root/bin/ip
$ip link add near0 type veth peer name far0
ends() {
    for device in near0 far0; do
        echo "$(root/sbin/ethtool -k $device | awk '$1 == "tcp-segmentation-offload:" { print $2 }')" \
            "$($ip -d link show $device | grep -oP 'maxmtu \K[0-9]+')"
    done | paste -sd ' '
}
echo "no program: $(ends)"
for mode in xdpgeneric xdpdrv; do
    for program in linear fragments; do
        $ip link set near0 $mode pinned "bpf/$program"
        echo "$mode $program: $(ends)"
        $ip link set near0 $mode off
    done
done
echo "no program: $(ends)"
BASH
unshare --net --mount bash trials >result
cat >expected <<'TEXT'
no program: on 65535 on 65535
xdpgeneric linear: on 65535 on 65535
xdpgeneric fragments: on 65535 on 65535
xdpdrv linear: on 65535 off 3506
xdpdrv fragments: on 65535 off 73138
no program: on 65535 on 65535
TEXT
echo "Linux $(uname -r); segmentation offload and largest MTU of the end with the program, and of the other end"
cat result
cmp -s result expected || { echo "this differs from what was seen" >&2; exit 1; }
