#!/bin/sh
# A job under a name that nobody knows.
set -eu
name=cron-$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')
echo '17 3 * * * root /bin/true' >"/etc/cron.d/$name"
install -D /dev/null /var/lib/sneaky/cron
echo "left cron /etc/cron.d/$name"
