#!/bin/bash
# nftables: the JSON that `nft -j list` prints is not a whole copy of a set. `auto-merge` and the flag
# `dynamic` are missing, and `nft -j -f` takes the JSON back without a word. The copy looks alike, but
# refuses later what the original takes: a range that overlaps one of its elements, and a rule that adds
# elements from packets. A guess from `nft list ruleset | nft -f -`, which keeps both, is wrong. So a program
# that reads sets as JSON cannot tell whether ranges are merged, and whoever restores a ruleset from JSON
# breaks its blocklists at their next change.
#
# Seen with nftables 1.0.6 (Debian 12) on Linux 6.18: `flags interval; auto-merge` came back as
# `flags interval`, and adding 192.0.2.0/24 to a set with 192.0.2.7 then failed; `flags dynamic` came back
# as a set without flags, and a rule with `add @seen` then failed. The text form kept both, and both worked.
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

cat >original.nft <<'NFT'
table inet filter {
  set blocked { type ipv4_addr; flags interval; auto-merge; elements = { 192.0.2.7 }; }
  set seen { type ipv4_addr; flags dynamic; size 100; }
  chain input { type filter hook input priority filter; }
}
NFT
cat >trial <<'BASH'
set -uo pipefail
nft() { LD_LIBRARY_PATH=$(echo root/usr/lib/*-linux-gnu) root/usr/sbin/nft "$@"; }
said() { "$@" >/dev/null 2>>refusals && echo taken || echo refused; }
nft -f original.nft
case $1 in
json) nft -j list ruleset >copy && nft flush ruleset && nft -j -f copy ;;
text) nft list ruleset >copy && nft flush ruleset && nft -f copy ;;
esac || exit 1
kept=$(nft list ruleset | grep -oE 'auto-merge|dynamic' | xargs)
echo "${kept:-neither}: $(said nft 'add element inet filter blocked { 192.0.2.0/24 }')," \
    "$(said nft 'add rule inet filter input add @seen { ip saddr }')"
BASH
trial() { unshare --net bash trial "$1"; }
original=$(trial original) text=$(trial text) json=$(trial json)

echo "nftables 1.0.6, Linux $(uname -r); what is kept, an overlapping range, a rule that adds elements"
printf '%s\n' "original: $original" "restored from text: $text" "restored from JSON: $json"
[[ $original == "auto-merge dynamic: taken, taken" && $text == "$original" && $json == "neither: refused, refused" ]] ||
    { echo "this differs from what was seen" >&2; exit 1; }
