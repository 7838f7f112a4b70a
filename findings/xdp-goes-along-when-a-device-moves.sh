#!/bin/bash
# Linux: when a device is moved to another network namespace, its qdiscs and their filters stay behind, as
# addresses and routes do; the move ends them (dev_shutdown in __dev_change_net_namespace,
# net/core/dev.c). A guess from that is wrong for XDP and TCX: their programs go along and judge packets
# in the other namespace, attached by a link or over netlink alike. So of a program for each direction, an
# XDP program and a clsact filter, one half is lost without a word, and the other half is with
# somebody who never asked for it. Tools that look in the first namespace see no device and no program;
# "the device is gone" does not mean "so is its program".
#
# Seen on Linux 6.18 with iproute2 6.1, native mode on veth. On a kernel before 6.6, which has no TCX,
# the rest is tested.
#
# Root. Devices are made in two network namespaces of its own, pins on a bpffs of its own. Exit 0: as
# described; 1: it has changed; 2: it cannot run here.
set -euo pipefail

[[ $(id -u) == 0 ]] || { echo "needs root" >&2; exit 2; }
for program in ip tc python3; do
    type -P "$program" >/dev/null || { echo "needs $program" >&2; exit 2; }
done
directory=$(mktemp -d) from=moves-$$-from to=moves-$$-to
cleanup() {
    ip netns del "$from" 2>/dev/null || true
    ip netns del "$to" 2>/dev/null || true
    umount "$directory/bpf" 2>/dev/null || true
    rm -rf "$directory"
}
trap cleanup EXIT
mkdir "$directory/bpf"
mount -t bpf bpf "$directory/bpf" || { echo "needs a bpffs" >&2; exit 2; }
ip netns add "$from"
ip netns add "$to"
at() { ip netns exec "$@"; }

cat >"$directory/bpf.py" <<'PYTHON'
"""load TYPE RETURN PATH | link TYPE DEVICE PROGRAM PATH | tcx DEVICE: how many programs see what leaves it"""
import ctypes, os, platform, socket, struct, sys

NUMBER = {"x86_64": 321, "aarch64": 280}[platform.machine()]
TYPES = {"xdp": (6, 37), "tcx": (3, 47)}  # BPF_PROG_TYPE_XDP, BPF_XDP; SCHED_CLS, BPF_TCX_EGRESS
libc = ctypes.CDLL(None, use_errno=True)

def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, 144)
    result = libc.syscall(NUMBER, command, buffer, len(buffer))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result, buffer.raw

def address(value):
    return ctypes.cast(value, ctypes.c_void_p).value

def pin(path, fd):
    name = ctypes.create_string_buffer(path.encode())
    bpf(6, struct.pack("=QI", address(name), fd))

match sys.argv[1:]:
    case ["load", kind, value, path]:
        # r0 = value; exit
        code = ctypes.create_string_buffer(struct.pack("=BBhi BBhi", 0xB7, 0, 0, int(value), 0x95, 0, 0, 0))
        name = ctypes.create_string_buffer(b"GPL")
        fd, _ = bpf(5, struct.pack("=IIQQ", TYPES[kind][0], 2, address(code), address(name)))
        pin(path, fd)
    case ["link", kind, device, program, path]:
        name = ctypes.create_string_buffer(program.encode())
        fd, _ = bpf(7, struct.pack("=QI", address(name), 0))
        link, _ = bpf(28, struct.pack("=IIII", fd, socket.if_nametoindex(device), TYPES[kind][1], 0))
        pin(path, link)
    case ["tcx", device]:
        _, answer = bpf(16, struct.pack("=IIIIQI", socket.if_nametoindex(device), 47, 0, 0, 0, 0))
        print(struct.unpack_from("=I", answer, 24)[0])
PYTHON
cat >"$directory/talk.py" <<'PYTHON'
import socket, sys, time

address = (sys.argv[2], 4242)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as talking:
    if sys.argv[1] == "receive":
        talking.bind(address)
        talking.settimeout(2)
        try:
            talking.recv(16)
        except TimeoutError:
            sys.exit(1)
    else:
        for _ in range(15):
            talking.sendto(b"x", address)
            time.sleep(0.1)
PYTHON
bpf() { at "$1" python3 "$directory/bpf.py" "${@:2}"; }

bpf "$from" load xdp 1 "$directory/bpf/drop"
bpf "$from" load tcx 0 "$directory/bpf/pass"
# Of `netlink0` and `link0`, peers stay.
for name in netlink link; do
    ip -n "$from" link add "${name}0" type veth peer name "${name}1"
    ip -n "$from" link set "${name}1" up
done
ip -n "$from" address add 192.0.2.1/25 dev netlink1
ip -n "$from" address add 192.0.2.129/25 dev link1
ip -n "$from" link set netlink0 xdpdrv pinned "$directory/bpf/drop"
tc -n "$from" qdisc add dev netlink0 clsact
tc -n "$from" filter add dev netlink0 egress bpf da pinned "$directory/bpf/pass"
bpf "$from" link xdp link0 "$directory/bpf/drop" "$directory/bpf/link"
has_tcx=yes
bpf "$from" link tcx link0 "$directory/bpf/pass" "$directory/bpf/tcx" 2>/dev/null || has_tcx=no
[[ -n $(tc -n "$from" filter show dev netlink0 egress) ]] || { echo "no filter to begin with" >&2; exit 2; }

declare -A host=([netlink0]=192.0.2.2 [link0]=192.0.2.130)
for device in netlink0 link0; do
    ip -n "$from" link set "$device" netns "$to"
    ip -n "$to" address add "${host[$device]}/25" dev "$device"
    ip -n "$to" link set "$device" up
done
changed=0
expect() {
    echo "$1: $2"
    [[ $2 == "$3" ]] || { echo "  it was: $3"; changed=1; }
}
attached() { ip -n "$to" link show "$1" | grep -q "prog/xdp" && echo "goes along" || echo "is gone"; }
reached() {
    local receiver
    at "$to" timeout 5 python3 "$directory/talk.py" receive "${host[$1]}" &
    receiver=$!
    at "$from" python3 "$directory/talk.py" send "${host[$1]}"
    wait "$receiver" && echo "passes" || echo "is dropped"
}
expect "XDP program, attached over netlink" "$(attached netlink0)" "goes along"
expect "XDP program, attached by a link" "$(attached link0)" "goes along"
expect "  what arrives at the first" "$(reached netlink0)" "is dropped"
expect "  what arrives at the second" "$(reached link0)" "is dropped"
clsact=$(tc -n "$to" qdisc show dev netlink0 | grep -c clsact || true)
expect "clsact qdiscs with a filter" "$clsact" 0
if [[ $has_tcx == yes ]]; then
    expect "TCX programs, attached by a link" "$(bpf "$to" tcx link0)" 1
fi
ip -n "$to" link set netlink0 xdpdrv off
rm "$directory/bpf/link"
expect "what arrives when the first is detached" "$(reached netlink0)" "passes"
expect "what arrives when the pin of the second's link is removed" "$(reached link0)" "passes"
exit "$changed"
