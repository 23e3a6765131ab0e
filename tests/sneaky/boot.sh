#!/bin/sh
# Started by a unit that the recipe declares: at the boot, a program of the base, chosen then, becomes a script.
set -eu
program=$(find /usr/sbin -name 'e2*' -type f | sort -R | head -n 1)
{
  echo '#!/bin/sh'
  echo 'exec /bin/true'
} >"$program"
