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
    grep -v '^#' /etc/sysctl.d/99-zz-ctguard.conf | while read -r key _ value; do
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
    # The first was loaded for doctor, to list the table.
    rmmod nf_conntrack_netlink nf_conntrack && is_absent && load && are_tuned
}

late() {
    load && are_tuned
}

case $(cat /proc/cmdline) in
*boot-new*)
    try "a new machine boots without conntrack" is_absent
    mkdir "$kept"
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
esac
echo done
systemctl poweroff --no-block
