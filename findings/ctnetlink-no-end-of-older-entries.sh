#!/bin/bash
# Linux: with nf_conntrack_events=2, the default since 5.19, a program that begins to listen for events never
# hears the end of an entry that was made while nobody listened, not even if `conntrack -D` deletes it right
# then: such an entry has no room for events. A guess from nf_conntrack_events=1, the old default, where every
# entry's end is told, is wrong. So a program cannot keep a copy of the table by a dump and the events after
# it: what was there before it started stays in the copy for ever. It has to dump again, or to set
# nf_conntrack_events to 1 long before it starts.
#
# Seen on Linux 6.18 with conntrack-tools 1.4.7 (Debian 12), ten entries made before and ten after `conntrack -E`
# started, then all deleted: it printed the end of 10 with 2, and of 20 with 1.
#
# Root, on Debian 12, in network namespaces of its own. Exit 0: as described; 1: it has changed; 2: it
# cannot run here.
set -euo pipefail

events=/proc/sys/net/netfilter/nf_conntrack_events
[[ $(id -u) == 0 && -e $events ]] || { echo "needs root, and conntrack with events loaded" >&2; exit 2; }
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
apt-get -qq -o APT::Sandbox::User=root download conntrack=1:1.4.7-1+b2 libnetfilter-conntrack3=1.0.9-3 \
    libnfnetlink0=1.0.2-2 libmnl0=1.0.4-3 ||
    { echo "needs the packages of Debian 12" >&2; exit 2; }
for package in *.deb; do dpkg -x "$package" root; done

cat >trial <<'BASH'
set -euo pipefail
export LD_LIBRARY_PATH=$(echo root/usr/lib/*-linux-gnu)
conntrack=root/usr/sbin/conntrack
make() { # FROM TO
    for ((host = $1; host <= $2; host++)); do
        $conntrack -I -p udp -s "192.0.2.$host" -d 198.51.100.1 --sport 1000 --dport 53 -t 300 2>/dev/null
    done
}
listeners() { awk '$2 == 12 && $4 != "00000000"' /proc/net/netlink | wc -l; }
echo "$1" >/proc/sys/net/netfilter/nf_conntrack_events
make 1 10
timeout 30 $conntrack -E -e DESTROY >heard 2>/dev/null & listener=$!
trap 'kill "$listener" 2>/dev/null || true' EXIT
for ((tries = 0; $(listeners) == 0 && tries < 100; tries++)); do sleep 0.1; done
make 11 20
deleted=$($conntrack -D 2>/dev/null | wc -l)
sleep 1
kill "$listener"
wait "$listener" || true
echo "$deleted deleted, $(grep -c DESTROY heard || true) heard of"
BASH
trial() { unshare --net bash trial "$1"; }
on_demand=$(trial 2) always=$(trial 1)

echo "Linux $(uname -r), conntrack-tools 1.4.7; ten entries from before the listener, ten from after"
echo "nf_conntrack_events=2: $on_demand; =1: $always"
[[ $on_demand == "20 deleted, 10 heard of" && $always == "20 deleted, 20 heard of" ]] ||
    { echo "this differs from what was seen" >&2; exit 1; }
