#!/bin/sh
# What the machine does at each of its boots, and tells on its second serial port in lines that
# `kernels/outcome.rs` reads. Which boot it is, the kernel's command line says.
exec >/dev/ttyS1 2>&1
proc=/proc/sys/net/netfilter
kept=/var/lib/at-boot

# What the plan for a NAT router with --max 100352 comes to: maximum, buckets, established.
tuned="100352 131072 7440"

# try NAME COMMAND…: a step that fails when the command does, for what it printed.
try() {
    echo "step $1"
    shift
    if said=$("$@" 2>&1); then echo ok; else echo "failed $(echo "$said" | tr '\n' ' ')"; fi
}

is_absent() {
    [ ! -e "$proc/nf_conntrack_count" ] || { echo "conntrack is loaded"; return 1; }
}

load() {
    modprobe nf_conntrack && udevadm settle
}

main_settings() {
    echo "$(cat "$proc/nf_conntrack_max") $(cat "$proc/nf_conntrack_buckets")" \
        "$(cat "$proc/nf_conntrack_tcp_timeout_established")"
}

are_tuned() {
    found=$(main_settings)
    [ "$found" = "$tuned" ] || { echo "found $found instead of $tuned"; return 1; }
    # Every other setting that tune's file has.
    grep -v '^#' /etc/sysctl.d/zz-ctguard.conf | while read -r key _ value; do
        now=$(cat "/proc/sys/$(echo "$key" | tr . /)")
        [ "$now" = "$value" ] || { echo "$key is $now instead of $value"; return 1; }
    done
}

settings() {
    for file in "$proc"/nf_* /sys/module/nf_conntrack/parameters/hashsize; do
        [ "$file" = "$proc/nf_conntrack_count" ] || echo "$file $(cat "$file")"
    done
}

files() {
    find /etc /var/lib/ctguard -type f -exec sha256sum {} + -o -printf '%y %p %l\n' 2>/dev/null | sort
}

# as_before NAME: what the function NAME prints is what was kept of it.
as_before() {
    "$1" | diff "$kept/$1" - >"$kept/difference" || { head -n 5 "$kept/difference"; return 1; }
}

doctor_is_content() {
    ctguard doctor >"$kept/doctor" || { grep -E '^(fault|warning)' "$kept/doctor"; return 1; }
}

late_again() {
    # Fails where doctor, or anything else, loaded a module that needs it.
    rmmod nf_conntrack && is_absent && load && are_tuned
}

late() {
    load && are_tuned
}

installs() {
    dpkg -i /srv/first.deb || return 1
    # It waits for a configuration.
    systemctl is-enabled "$unit" && { echo "the unit is enabled"; return 1; }
    man_page=/usr/share/man/man8/ctguard-run.8.gz
    zcat "$man_page" | grep -q interface || { echo "no $man_page"; return 1; }
}

unit=ctguard.service

# The pin of a link, which is another after it was detached and attached again.
pin() {
    stat -c %i /run/ctguard/*/xdp_*
}

unit_guards() {
    mkdir -p /etc/ctguard/conf.d
    sed 's/^#interfaces = .*/interfaces = ["br-lan"]/' /usr/share/ctguard/ctguard.toml >/etc/ctguard/ctguard.toml
    ip link add br-lan type veth peer name peer0
    ip link set br-lan up
    ip link set peer0 up
    systemctl enable --now "$unit" || { journalctl -u "$unit" -o cat -n 5; return 1; }
    pin >"$kept/pin" && ctguard status | grep -q 'guards  br-lan'
}

# By the unit's filter, and by what the daemon gives up itself.
unit_confines() {
    status=/proc/$(daemon)/status
    grep -q '^Seccomp:.2$' "$status" && grep -q '^NoNewPrivs:.1$' "$status" || return 1
    ! journalctl -u "$unit" -o cat | grep 'not fully confined'
}

# The filter lets it mount.
mounts_again() {
    umount /run/ctguard || return 1
    for _ in $(seq 60); do
        sleep 1
        ! pin >"$kept/pin" || return 0
    done
    journalctl -u "$unit" -o cat -n 5
    return 1
}

reload_changes() {
    echo 'target = "70%"' >/etc/ctguard/conf.d/70.toml &&
        systemctl reload "$unit" && test "$(ctguard get target)" = 70% || return 1
    echo 'target = 70' >/etc/ctguard/conf.d/70.toml
    ! systemctl reload "$unit" && systemctl is-active "$unit" && test "$(ctguard get target)" = 70%
}

restart_keeps() {
    systemctl restart "$unit" && systemctl is-active "$unit" && as_before pin &&
        test "$(ctguard get target)" = 70%
}

crash_keeps() {
    systemctl kill --kill-whom=main --signal=KILL "$unit" && sleep 1 || return 1
    # The kernel takes its time to verify the program again, the more so in an emulated machine.
    for _ in $(seq 60); do
        as_before pin || return 1
        ! systemctl is-active --quiet "$unit" || return 0
        sleep 1
    done
    systemctl is-active "$unit"
}

stop_removes() {
    systemctl stop "$unit" && ! pin
}

in_blue() {
    nsenter --net=/run/netns/blue "$@"
}

# A link of that namespace tells whether a program is attached.
namespace_unit_guards() {
    ip netns add blue && ip -n blue link add b0 type veth peer name b1 &&
        ip -n blue link set b0 up && ip -n blue link set b1 up || return 1
    mkdir -p /etc/ctguard/blue
    echo 'interfaces = ["b0"]' >/etc/ctguard/blue/ctguard.toml
    systemctl start ctguard@blue && in_blue ctguard status | grep -q 'guards  b0' || return 1
    echo 'target = "70%"' >>/etc/ctguard/blue/ctguard.toml
    systemctl reload ctguard@blue && test "$(in_blue ctguard get target)" = 70% &&
        systemctl restart ctguard@blue && in_blue ip link show b0 | grep -q xdp &&
        systemctl stop ctguard@blue && ! in_blue ip link show b0 | grep -q xdp
}

daemon() {
    systemctl show --property=MainPID --value "$unit"
}

# changes_to PACKAGE VERSION: another daemon on the same links.
changes_to() {
    before=$(daemon)
    dpkg -i "$1" && dpkg-query -W -f '${Version}' ctguard | grep -qx "$2" &&
        systemctl is-active "$unit" && as_before pin && [ "$(daemon)" != "$before" ]
}

upgrade_keeps() {
    systemctl start "$unit" && pin >"$kept/pin" && changes_to /srv/upgrade.deb '.*+upgrade'
}

downgrade_keeps() {
    changes_to /srv/first.deb '[0-9.]*'
}

remove_unguards() {
    dpkg --remove ctguard && ! pin && ! ip link show br-lan | grep -q xdp &&
        test -e /etc/ctguard/ctguard.toml
}

own_files() {
    find / -xdev \( -path /srv -o -path /run \) -prune -o -name '*ctguard*' -print | grep -v '^/var/log/'
}

purge_leaves_nothing() {
    own_files | grep -q /etc/ctguard/ctguard.toml && dpkg --purge ctguard && left=$(own_files)
    [ -z "$left" ] || { echo "left: $left"; return 1; }
}

case $(cat /proc/cmdline) in
*boot-new*)
    try "a new machine boots without conntrack" is_absent
    mkdir "$kept"
    try "the package installs" installs
    load
    settings >"$kept/settings"
    files >"$kept/files"
    sync
    try "tune applies and persists" ctguard tune --for nat-router --max 100352 --apply --persist
    try "all is set at once" are_tuned
    echo done
    # For the serial port. Then the power fails: whatever is not on the disk is lost.
    sleep 1
    echo b >/proc/sysrq-trigger
    ;;
*boot-tuned*)
    udevadm settle
    try "a boot after a power failure sets the hash and every setting" are_tuned
    try "doctor finds nothing wrong with what tune has set" doctor_is_content
    try "a module that is loaded again has them right after it" late_again
    # So that nothing loads it at the next boot.
    mv /etc/modules-load.d/ctguard.conf "$kept/"
    ;;
*boot-late*)
    try "nothing loads conntrack at boot" is_absent
    try "a module that is loaded late has hash and settings right after it" late
    mv "$kept/ctguard.conf" /etc/modules-load.d/
    try "tune reverts after two reboots" ctguard tune --revert
    try "every setting is as it was" as_before settings
    try "every file is as it was" as_before files
    ;;
*boot-reverted*)
    try "the machine boots without conntrack again" is_absent
    try "the module loads" load
    try "it has the kernel's own settings" as_before settings
    ;;
*boot-unit*)
    try "the unit guards an interface whose name has a dash" unit_guards
    try "the unit's daemon is confined" unit_confines
    try "it mounts its bpffs again that somebody unmounted" mounts_again
    try "a reload of the unit uses a right configuration, and no wrong one" reload_changes
    try "a restart of the unit keeps the guard, and the last good configuration" restart_keeps
    try "a crash of the daemon keeps the guard, and systemd starts it again" crash_keeps
    try "a stop of the unit removes the guard" stop_removes
    try "a unit of another network namespace guards there" namespace_unit_guards
    try "an upgrade of the package keeps the guard" upgrade_keeps
    try "so does a downgrade" downgrade_keeps
    try "removing the package removes the guard and keeps the configuration" remove_unguards
    try "purging it leaves no file" purge_leaves_nothing
    ;;
esac
echo done
systemctl poweroff --no-block
