#!/bin/bash
# Linux: a request to delete without a tuple (IPCTNL_MSG_CT_DELETE) empties the whole connection table,
# whatever address family stands in its header. The kernel heeds the family only if the header's
# version is not 0, and NFNETLINK_V0 is what everybody writes there (ctnetlink_flush_conntrack in
# net/netfilter/nf_conntrack_netlink.c). A guess from dumps, which heed the family at version 0, is wrong. So
# `conntrack -F -f ipv6`, which conntrack-tools take without a word, ends the tracking of IPv4 too:
# on a router, that of every connection behind NAT. `conntrack -D -f ipv6` lists and deletes, and
# leaves IPv4 alone.
#
# Seen on Linux 6.18 with conntrack-tools 1.4.7 (Debian 12), three entries of each family before:
# `conntrack -L -f ipv6` showed 3; `conntrack -F -f ipv6` left 0 of 6, `conntrack -D -f ipv6` the 3 of
# IPv4; a message for AF_INET6 left 0 with version 0, and the 3 of IPv4 with version 1.
#
# Root, on Debian 12, in a network namespace of its own. Exit 0: as described; 1: it has changed; 2: it
# cannot run here.
set -euo pipefail

[[ $(id -u) == 0 ]] || { echo "needs root" >&2; exit 2; }
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
apt-get -qq -o APT::Sandbox::User=root download conntrack=1:1.4.7-1+b2 libnetfilter-conntrack3=1.0.9-3 \
    libnfnetlink0=1.0.2-2 libmnl0=1.0.4-3 ||
    { echo "needs the packages of Debian 12" >&2; exit 2; }
for package in *.deb; do dpkg -x "$package" root; done

cat >flush.py <<'PYTHON'
import socket, struct, sys

with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as table:  # NETLINK_NETFILTER
    # IPCTNL_MSG_CT_DELETE, NLM_F_REQUEST | NLM_F_ACK; struct nfgenmsg: family, version, resource
    table.send(struct.pack("=IHHII BBH", 20, 1 << 8 | 2, 5, 1, 0, socket.AF_INET6, int(sys.argv[1]), 0))
    sys.exit(struct.unpack_from("=i", table.recv(4096), 16)[0] != 0)
PYTHON

cat >trials <<'BASH'
set -euo pipefail
conntrack() { LD_LIBRARY_PATH=$(echo root/usr/lib/*-linux-gnu) root/usr/sbin/conntrack "$@"; }
left() { # COMMAND…: what it leaves of three entries of each family, as "IPv4 IPv6"
    for host in 1 2 3; do
        conntrack -I -p udp -s "192.0.2.$host" -d 198.51.100.1 --sport 1000 --dport 53 -t 300
        conntrack -I -p udp -s "2001:db8::$host" -d 2001:db8:1::1 --sport 1000 --dport 53 -t 300
    done 2>/dev/null
    "$@" >/dev/null 2>&1
    echo "$(grep -c ^ipv4 /proc/net/nf_conntrack || true) $(grep -c ^ipv6 /proc/net/nf_conntrack || true)"
    conntrack -F 2>/dev/null
}
left true
left conntrack -F -f ipv6
left conntrack -D -f ipv6
left python3 flush.py 0
left python3 flush.py 1
BASH
mapfile -t left < <(unshare --net bash trials)

echo "Linux $(uname -r), conntrack-tools 1.4.7; entries left of IPv4 and IPv6"
echo "before: ${left[0]}; conntrack -F -f ipv6: ${left[1]}; conntrack -D -f ipv6: ${left[2]}"
echo "a message for AF_INET6 with version 0: ${left[3]}; with version 1: ${left[4]}"
[[ ${left[*]} == "3 3 0 0 3 0 0 0 3 0" ]] || { echo "this differs from what was seen" >&2; exit 1; }
