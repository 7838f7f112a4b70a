#!/bin/bash
# Linux: once the table of a hashlimit match is full, the packets of every source that is not in it are dropped,
# by the match itself: whatever the rule's target, and also where the rule has none or lets packets pass
# (hotdrop in net/netfilter/xt_hashlimit.c). No rule's counter counts them. The guess that the rule just does
# not match, so that newcomers are decided by the rules after it, is wrong. So in a flood from many sources
# a rule that only limits, or only counts, refuses all newcomers until entries expire.
#
# Seen on Linux 6.18 with iptables 1.8.9 (Debian 12, nf_tables), one datagram from each of ten sources, far
# below the limit: a rule without a target and with room for four sources let 4 arrive, one with room for 100
# all 10; so did the same two rules with the target ACCEPT. The counters of the first stood at 0.
#
# Root, on Debian 12, in network namespaces of its own. Exit 0: as described; 1: it has changed; 2: it
# cannot run here.
set -euo pipefail

[[ $(id -u) == 0 ]] || { echo "needs root" >&2; exit 2; }
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
apt-get -qq -o APT::Sandbox::User=root download iptables=1.8.9-2 libxtables12=1.8.9-2 libip4tc2=1.8.9-2 libip6tc2=1.8.9-2 \
    libnftnl11=1.2.4-2 libmnl0=1.0.4-3 || { echo "needs the packages of Debian 12" >&2; exit 2; }
for package in *.deb; do dpkg -x "$package" root; done

cat >arrive.py <<'PYTHON'
import socket

received = 0
with socket.socket(type=socket.SOCK_DGRAM) as server:
    server.bind(("127.0.0.1", 5000))
    server.settimeout(0.5)
    for host in range(1, 11):
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.bind((f"127.0.1.{host}", 0))
            client.sendto(b"x", ("127.0.0.1", 5000))
    try:
        while True:
            server.recv(16)
            received += 1
    except TimeoutError:
        print(received)
PYTHON
cat >trial <<'BASH'
set -euo pipefail
libraries=$(echo root/usr/lib/*-linux-gnu)
export LD_LIBRARY_PATH=$libraries XTABLES_LIBDIR=$libraries/xtables
iptables() { root/usr/sbin/xtables-nft-multi iptables "$@"; }
root/usr/sbin/xtables-nft-multi iptables --version >version
ip link set lo up
iptables -A INPUT -p udp --dport 5000 -m hashlimit "$1" 1000/second --hashlimit-mode srcip --hashlimit-name trial \
    --hashlimit-htable-size 4 --hashlimit-htable-max "$2" "${@:3}"
arrived=$(python3 arrive.py)
echo "$arrived arrived, $(iptables -nvxL INPUT | awk 'NR == 3 { print $1 }') counted"
BASH
trial() { unshare --net bash trial "$@"; }
full=$(trial --hashlimit-above 4) room=$(trial --hashlimit-above 100)
full_accept=$(trial --hashlimit-upto 4 -j ACCEPT) room_accept=$(trial --hashlimit-upto 100 -j ACCEPT)

echo "Linux $(uname -r), $(<version); ten sources, one datagram each"
echo "no target: room for 4: $full; for 100: $room"
echo "ACCEPT: room for 4: $full_accept; for 100: $room_accept"
[[ $full == "4 arrived, 0 counted" && $room == "10 arrived, 0 counted" &&
    $full_accept == "4 arrived, 4 counted" && $room_accept == "10 arrived, 10 counted" ]] ||
    { echo "this differs from what was seen" >&2; exit 1; }
