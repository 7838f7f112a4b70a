#!/bin/bash
# Linux: a setting that is one number takes the first word of what is written to it, in C's notation, and
# ignores the rest (proc_get_long in kernel/sysctl.c). No tool looks at it before. So `key = 7 # comment` in a
# sysctl file, where a comment behind a value is not allowed, is no mistake that anybody reports: the kernel
# has 7. `010` is eight, and `0x20` is 32. The guess that such a line is refused, or that it means ten, is
# wrong; whoever compares files with the kernel has to read values as the kernel does. What is refused is a
# character right behind the digits, as in `60s` or `7, 8`.
#
# Seen on Linux 6.18 with conntrack's timeouts and, each with the same result: systemd 252.39, procps 4.0.2
# and busybox 1.35.0 (Debian 12). sysctl of procps even prints the line as it stands, comment included, for
# what it has set.
#
# Root, on Debian 12, in network namespaces of its own. Exit 0: as described; 1: it has changed; 2: it
# cannot run here.
set -euo pipefail

[[ $(id -u) == 0 && -e /proc/sys/net/netfilter/nf_conntrack_udp_timeout ]] ||
    { echo "needs root, and conntrack loaded" >&2; exit 2; }
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
apt-get -qq -o APT::Sandbox::User=root download systemd=252.39-1~deb12u2 libsystemd-shared=252.39-1~deb12u2 \
    procps=2:4.0.2-3 libproc2-0=2:4.0.2-3 busybox-static=1:1.35.0-4+deb12u1+b1 ||
    { echo "needs the packages of Debian 12" >&2; exit 2; }
for package in *.deb; do dpkg -x "$package" unpacked; done
libraries=$(echo "$directory"/unpacked/usr/lib/*-linux-gnu)
export LD_LIBRARY_PATH=$libraries:$libraries/systemd

cat >timeouts.conf <<'CONF'
net.netfilter.nf_conntrack_udp_timeout = 7 # seconds
net.netfilter.nf_conntrack_icmp_timeout = 010
net.netfilter.nf_conntrack_generic_timeout = 0x20
net.netfilter.nf_conntrack_udp_timeout_stream = 60s
net.netfilter.nf_conntrack_gre_timeout = 7, 8
CONF
status=0
for tool in unpacked/lib/systemd/systemd-sysctl "unpacked/sbin/sysctl -p" "unpacked/bin/busybox sysctl -p"; do
    # shellcheck disable=SC2016,SC2086 # a command and its option
    made=$(unshare --net bash -uo pipefail -c '"$@" "$PWD/timeouts.conf" >said 2>complaints
        cd /proc/sys/net/netfilter
        echo $(cat nf_conntrack_{udp_timeout,icmp_timeout,generic_timeout,udp_timeout_stream,gre_timeout})' bash $tool)
    echo "$tool: timeouts of UDP, ICMP, others, UDP streams, GRE: $made"
    [[ $made == "7 8 32 120 30" ]] || status=1
    ! grep -E 'conntrack_(udp|icmp|generic)_timeout\b' complaints || status=1
    [[ $tool != unpacked/sbin/* ]] || grep -qx 'net.netfilter.nf_conntrack_udp_timeout = 7 # seconds' said || status=1
done
((status == 0)) || echo "this differs from what was seen" >&2
exit $status
