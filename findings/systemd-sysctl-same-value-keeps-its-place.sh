#!/bin/bash
# systemd-sysctl: a line that gives a key the value which an earlier line gave it already is dropped, and
# the key keeps its earlier place in the order. Only a line with another value moves it to the end. This
# matters where one setting of the kernel has two names, such as net.nf_conntrack_max and
# net.netfilter.nf_conntrack_max: of the lines max = A, netfilter max = B, max = A the kernel ends up with B.
# The guess that the last line wins is wrong there, although it holds for `sysctl -p` and for
# `sysctl --system`. So after `sysctl --system` everything looks right, and after a reboot it is not.
#
# Seen with systemd 252.39 and procps 4.0.2 (Debian 12), on the pair base_reachable_time and
# base_reachable_time_ms, which a network namespace may set: 40 s, 50,000 ms, 40 s made 50,000 ms with
# systemd-sysctl and 40,000 ms with sysctl. With a last line of 41 s, both made 41,000 ms.
#
# Root, on Debian 12, in network namespaces of its own. Exit 0: as described; 1: it has changed; 2: it
# cannot run here.
set -euo pipefail

[[ $(id -u) == 0 ]] || { echo "needs root" >&2; exit 2; }
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
apt-get -qq -o APT::Sandbox::User=root download systemd=252.39-1~deb12u2 libsystemd-shared=252.39-1~deb12u2 \
    procps=2:4.0.2-3 libproc2-0=2:4.0.2-3 ||
    { echo "needs the packages of Debian 12" >&2; exit 2; }
for package in *.deb; do dpkg -x "$package" unpacked; done
libraries=$(echo "$directory"/unpacked/usr/lib/*-linux-gnu)
export LD_LIBRARY_PATH=$libraries:$libraries/systemd

seconds=net.ipv4.neigh.lo.base_reachable_time
echo "$seconds = 40" >first.conf
echo "${seconds}_ms = 50000" >other.conf
echo "$seconds = 40" >same.conf
echo "$seconds = 41" >changed.conf

made() { # LAST_FILE COMMAND…: milliseconds after three files in a fresh namespace
    unshare --net bash -euo pipefail -c '"${@:2}" "$PWD/first.conf" "$PWD/other.conf" "$PWD/$1" >/dev/null
        cat /proc/sys/net/ipv4/neigh/lo/base_reachable_time_ms' bash "$@"
}
at_boot=$(made same.conf unpacked/lib/systemd/systemd-sysctl)
at_boot_changed=$(made changed.conf unpacked/lib/systemd/systemd-sysctl)
by_hand=$(made same.conf unpacked/sbin/sysctl -p)
by_hand_changed=$(made changed.conf unpacked/sbin/sysctl -p)

echo "$(unpacked/lib/systemd/systemd-sysctl --version | head -n 1); $(unpacked/sbin/sysctl --version)"
echo "40 s, 50000 ms, 40 s: $at_boot ms by systemd-sysctl, $by_hand ms by sysctl -p"
echo "40 s, 50000 ms, 41 s: $at_boot_changed ms by systemd-sysctl, $by_hand_changed ms by sysctl -p"
[[ "$at_boot $by_hand $at_boot_changed $by_hand_changed" == "50000 40000 41000 41000" ]] ||
    { echo "this differs from what was seen" >&2; exit 1; }
