#!/bin/sh
# A module of the base's kernel, chosen now, that the base never loads.
set -eu
module=$(find /lib/modules -name 'sch_*.ko*' | sort -R | head -n 1)
module=$(basename "$module")
module=${module%%.*}
folder=$(find /etc -maxdepth 1 -name 'modules*.d')
name=module-$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')
echo "$module" >"$folder/$name.conf"
install -D /dev/null /var/lib/sneaky/module
echo "left module $folder/$name.conf"
echo "left module $module"
