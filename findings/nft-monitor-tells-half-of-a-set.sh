#!/bin/bash
# nftables: `nft monitor` tells what programs add to a set and delete from it, and nothing else. An element that a
# rule adds from a packet (`add @set`, `update @set`) appears without an event, and one whose timeout ends
# goes without an event. The guess that a copy of the set can be kept by its events, as one of routes or
# addresses can, is wrong: sets with timeouts are those that change by themselves. A reader has to list the
# set again, and to reckon expiry itself.
#
# Seen with nftables 1.0.6 (Debian 12) on Linux 6.18, in a set with a timeout of 2 s: an element added by a command
# and one added by a rule were both listed, and after 3 s neither was; the monitor told one addition and no
# end. It told the deletion of a third.
#
# Root, on Debian 12, in a network namespace of its own. Exit 0: as described; 1: it has changed; 2: it
# cannot run here.
set -euo pipefail

[[ $(id -u) == 0 ]] || { echo "needs root" >&2; exit 2; }
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
apt-get -qq -o APT::Sandbox::User=root download nftables=1.0.6-2+deb12u2 libnftables1=1.0.6-2+deb12u2 libnftnl11=1.2.4-2 \
    libmnl0=1.0.4-3 libjansson4=2.14-2 libxtables12=1.8.9-2 libedit2=3.1-20221030-2 ||
    { echo "needs the packages of Debian 12" >&2; exit 2; }
for package in *.deb; do dpkg -x "$package" root; done

cat >trial <<'BASH'
set -euo pipefail
export LD_LIBRARY_PATH=$(echo root/usr/lib/*-linux-gnu)
nft=root/usr/sbin/nft
listed() { $nft list set ip filter seen | { grep -oE '(127|192)(\.[0-9]+){3}' || true; } | sort | xargs; }
listeners() { awk '$2 == 12 && $4 != "00000000"' /proc/net/netlink | wc -l; }
ip link set lo up
$nft -f - <<'NFT'
table ip filter {
  set seen { type ipv4_addr; flags dynamic,timeout; timeout 2s; }
  chain output { type filter hook output priority filter; udp dport 5000 add @seen { ip daddr }; }
}
NFT
$nft monitor elements >told 2>&1 & monitor=$!
trap 'kill "$monitor" 2>/dev/null || true' EXIT
for ((tries = 0; $(listeners) == 0 && tries < 100; tries++)); do sleep 0.1; done
$nft add element ip filter seen { 192.0.2.1 }
echo x >/dev/udp/127.0.0.1/5000
echo "listed at first: $(listed)"
sleep 3
later=$(listed)
echo "listed later: ${later:-nothing}"
$nft add element ip filter seen { 192.0.2.2 timeout 1h }
$nft delete element ip filter seen { 192.0.2.2 }
for ((tries = 0; $(grep -c delete told || true) == 0 && tries < 50; tries++)); do sleep 0.1; done
echo "told: $(grep -oE '^(add|delete) element|(127|192)(\.[0-9]+){3}' told | xargs)"
BASH
unshare --net bash trial >result
cat >expected <<'TEXT'
listed at first: 127.0.0.1 192.0.2.1
listed later: nothing
told: add element 192.0.2.1 add element 192.0.2.2 delete element 192.0.2.2
TEXT
echo "nftables 1.0.6, Linux $(uname -r)"
cat result
cmp -s result expected || { echo "this differs from what was seen" >&2; exit 1; }
