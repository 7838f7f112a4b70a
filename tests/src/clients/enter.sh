# Runs a shell script ($2) in a throw-away copy of the root ($1): whatever it writes is gone with it.
# Its mounts and processes are its own, see root.rs.
set -e
mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work /mnt/debian
mount -t overlay none -o "lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/debian
mount --rbind /dev /mnt/debian/dev
mount -t proc none /mnt/debian/proc
exec chroot /mnt/debian /bin/sh -ec "$2"
