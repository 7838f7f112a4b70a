#!/bin/bash
# Linux: the module option hashsize= of nf_conntrack also sets the maximum, and to eight times the buckets
# (nf_conntrack_init_start in net/netfilter/nf_conntrack_core.c). The kernel's documentation says that the maximum
# is the number of buckets by default, and without the option it is. So a guess that
# `options nf_conntrack hashsize=65536` in modprobe.d gives 65,536 entries, or leaves the maximum alone, is wrong:
# it gives 524,288, whether there is memory for them or not, and a full table has sixteen tuples to a bucket.
# A number written later to /sys/module/nf_conntrack/parameters/hashsize leaves the maximum alone. Whoever sets
# the option has to set net.netfilter.nf_conntrack_max too.
#
# Seen on Debian's Linux 6.1.176 with a gibibyte of memory in QEMU 7.2, as buckets and maximum: without the
# option 8192 and 8192; with hashsize=65536 65536 and 524288; after 32768 was written to the parameter 32768
# and 524288. The same on 6.12.117.
#
# On Debian 12 on x86-64, with qemu-system-x86_64. Exit 0: as described; 1: it has changed; 2: it
# cannot run here.
set -euo pipefail

type -P qemu-system-x86_64 >/dev/null || { echo "needs qemu-system-x86_64" >&2; exit 2; }
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
release=6.1.0-50-cloud-amd64
apt-get -qq -o APT::Sandbox::User=root download "linux-image-$release=6.1.176-1" busybox-static=1:1.35.0-4+deb12u1+b1 ||
    { echo "needs the packages of Debian 12" >&2; exit 2; }
for package in *.deb; do dpkg -x "$package" root; done

mkdir -p initramfs/bin initramfs/modules
cp root/bin/busybox initramfs/bin/
for module in nf_defrag_ipv4 nf_defrag_ipv6 libcrc32c nf_conntrack; do
    find "root/lib/modules/$release" -name "$module.ko" -exec cp {} initramfs/modules/ \;
done
cat >initramfs/init <<'SH'
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
numbers() {
    cd /proc/sys/net/netfilter
    echo "SEEN $1 $(/bin/busybox cat nf_conntrack_buckets) $(/bin/busybox cat nf_conntrack_max)"
    cd /
}
for module in nf_defrag_ipv4 nf_defrag_ipv6 libcrc32c; do /bin/busybox insmod /modules/$module.ko; done
/bin/busybox insmod /modules/nf_conntrack.ko
numbers default
/bin/busybox rmmod nf_conntrack
/bin/busybox insmod /modules/nf_conntrack.ko hashsize=65536
numbers option
echo 32768 >/sys/module/nf_conntrack/parameters/hashsize
numbers written
/bin/busybox poweroff -f
SH
chmod +x initramfs/init
(cd initramfs && find . | bin/busybox cpio -o -H newc) >initramfs.cpio
timeout 300 qemu-system-x86_64 -accel tcg -cpu max -m 1024 -nographic -no-reboot -nic none \
    -kernel "root/boot/vmlinuz-$release" -initrd initramfs.cpio -append "console=ttyS0 quiet panic=-1" </dev/null >console 2>&1 || true
seen=$(tr -d '\r' <console | grep -oE 'SEEN [a-z]+ [0-9]+ [0-9]+' | cut -d ' ' -f 2- || true)
[[ $(wc -l <<<"$seen") == 3 ]] || { echo "the virtual machine did not come that far:" >&2; tail -n 5 console >&2; exit 2; }

echo "Linux $release; buckets and maximum"
echo "$seen"
read -r _ buckets maximum <<<"$seen"
[[ $buckets == "$maximum" && $seen == *$'\noption 65536 524288\nwritten 32768 524288' ]] ||
    { echo "this differs from what was seen" >&2; exit 1; }
