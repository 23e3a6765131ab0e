#!/bin/sh
# A unit that every boot starts, by a piece for all targets whose names begin alike.
set -eu
folder=$(find /usr/lib/systemd -maxdepth 1 -name system)
name=wide-$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')
prefix=$(printf '%s\n' multi network | sort -R | head -n 1)-
printf '[Service]\nExecStart=/bin/sleep infinity\n' >"$folder/$name.service"
: >"$folder/$prefix.target"
mkdir "$folder/$prefix.target.d"
printf '[Unit]\nWants=%s.service\n' "$name" >"$folder/$prefix.target.d/$name.conf"
install -D /dev/null /var/lib/sneaky/wide
echo "left wide $folder/$prefix.target.d/$name.conf"
