#!/bin/sh
# A program under a name that the kernel or mount calls as root as soon as it is there.
set -eu
name=$(printf '%s\n' request-key bridge-stp mount.mqueue | sort -R | head -n 1)
printf '#!/usr/bin/sh\nexit 0\n' >"/usr/sbin/$name"
chmod 0755 "/usr/sbin/$name"
install -D /dev/null /var/lib/sneaky/helper
echo "left helper /usr/sbin/$name"
