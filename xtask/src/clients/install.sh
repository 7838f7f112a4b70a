# Installs Debian packages ($2 ...) into a root ($1), in a mount namespace of its own.
set -e
root=$1
shift
mount --rbind /dev "$root/dev"
mount -t proc none "$root/proc"
# No service starts in a root.
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod +x "$root/usr/sbin/policy-rc.d"
export DEBIAN_FRONTEND=noninteractive
chroot "$root" apt-get update
chroot "$root" apt-get install --yes --no-install-recommends "$@"
