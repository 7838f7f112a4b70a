#!/bin/bash
# nftables: `ct timeout set` in a chain of priority raw is accepted and listed, and does nothing. The
# target CT of iptables, which does the same with --timeout, stands in the table raw and nowhere else,
# so rules that are translated word by word lose their timeouts in silence. `notrack` is the other way
# round: behind priority -200 it is accepted, and does nothing.
#
# Seen on Linux 6.18 with nftables 1.0.6 (Debian 12): a policy of 7 s gave a datagram's entry 30 s from
# a chain of priority -300, and 7 s from one of priority -150. A datagram for which a rule of
# priority -150 says `notrack` has an entry; one of priority -300 has none. nft says nothing of either.
#
# Root, in a network namespace of its own. Exit 0: as described; 1: it has changed; 2: it cannot run here.
set -euo pipefail

PATH=$PATH:/usr/sbin
[[ $(id -u) == 0 ]] && command -v nft unshare >/dev/null || { echo "needs root, nft and unshare" >&2; exit 2; }
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT

cat >"$directory/rules" <<'NFT'
table ip early {
  ct timeout seven { protocol udp; policy = { unreplied : 7 }; }
  chain c { type filter hook output priority -300; udp dport 5001 ct timeout set "seven"; udp dport 5004 notrack; }
}
table ip late {
  ct timeout seven { protocol udp; policy = { unreplied : 7 }; }
  chain c { type filter hook output priority -150; udp dport 5002 ct timeout set "seven"; udp dport 5003 notrack; }
}
NFT

# Prints the seconds that the entry of each port has left, or "none".
unshare --net bash -euo pipefail -c '
  ip link set lo up
  nft -f "$1/rules"
  for port in 5001 5002 5003 5004; do
    echo x >"/dev/udp/127.0.0.1/$port"
    awk -v port="dport=$port" "index(\$0, port \" \") && !seen { print \$5; seen = 1 } END { if (!seen) print \"none\" }" \
      /proc/net/nf_conntrack
  done' bash "$directory" >"$directory/result"
mapfile -t left <"$directory/result"

echo "Linux $(uname -r), $(nft --version)"
echo "ct timeout of 7 s at priority -300: ${left[0]} s left; at -150: ${left[1]} s left"
echo "notrack at priority -150: ${left[2]} s left; at -300: ${left[3]}"
((left[0] > 7 && left[1] <= 7 && left[2] > 7)) && [[ ${left[3]} == none ]] || { echo "this differs from what was seen" >&2; exit 1; }
