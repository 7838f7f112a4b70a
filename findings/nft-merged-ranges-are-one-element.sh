#!/bin/bash
# nftables: in a set with auto-merge, addresses that are neighbours become one element, and are one from then
# on. `nft delete element` of an address that was added by itself fails ("element does not exist"), and an
# address that was added for seconds stays as long as the neighbour that came after it. nft has code that splits
# a merged range (src/intervals.c), so the guess that each address can be taken out as it was put in is fair.
# In 1.0.6, which Debian 12 keeps, it is wrong: a program that bans single addresses in such a set cannot unban
# them, and one that reads the set must not expect to see an address go.
#
# Seen with nftables 1.0.6 (Debian 12) on Linux 6.18: of 192.0.2.1, 192.0.2.2 and 192.0.2.3, each added by itself,
# none could be deleted; the whole range could. 192.0.2.2, added for ten seconds, had an hour when 192.0.2.1 was
# added for an hour. Without auto-merge, each was deleted, and each kept its time.
#
# Root, on Debian 12, in network namespaces of its own. Exit 0: as described; 1: it has changed; 2: it
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
set -uo pipefail
nft() { LD_LIBRARY_PATH=$(echo root/usr/lib/*-linux-gnu) root/usr/sbin/nft "$@"; }
add() { nft "add element ip filter bans { $1 }"; }
delete() { nft "delete element ip filter bans { $1 }" 2>>errors && echo "deleted" || echo "not there"; }

nft "add table ip filter; add set ip filter bans { type ipv4_addr; flags interval,timeout; $1 }"
for host in 1 2 3; do add "192.0.2.$host"; done
one_by_one="$(delete 192.0.2.1), $(delete 192.0.2.2), $(delete 192.0.2.3)"
whole=$(delete 192.0.2.1-192.0.2.3)
nft flush set ip filter bans
add "192.0.2.2 timeout 10s"
add "192.0.2.1 timeout 1h"
minutes=$(nft list set ip filter bans | grep -c 'expires 59m' || true)
seconds=$(nft list set ip filter bans | grep -cE 'expires (9s|10s)' || true)
echo "one by one: $one_by_one; all at once: $whole; with an hour: $minutes, with seconds: $seconds"
BASH
trial() { unshare --net bash trial "$1"; }
merged=$(trial "auto-merge;") plain=$(trial "")

echo "nftables 1.0.6, Linux $(uname -r)"
printf '%s\n' "auto-merge: $merged" "without: $plain"
[[ $merged == "one by one: not there, not there, not there; all at once: deleted; with an hour: 1, with seconds: 0" &&
    $plain == "one by one: deleted, deleted, deleted; all at once: not there; with an hour: 1, with seconds: 1" ]] ||
    { echo "this differs from what was seen" >&2; exit 1; }
