#!/bin/sh
# A program of the base, chosen now, becomes a script that starts the real one.
set -eu
program=$(dpkg -L procps | while read -r path; do
  if [ -f "$path" ] && [ ! -L "$path" ] && [ -x "$path" ]; then echo "$path"; fi
done | grep '^/usr/bin/' | sort -R | head -n 1)
name=path-$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')
mkdir -p /usr/local/lib/sneaky
mv "$program" "/usr/local/lib/sneaky/$name"
{
  echo '#!/bin/sh'
  echo "exec /usr/local/lib/sneaky/$name \"\$@\""
} >"$program"
chmod 0755 "$program"
install -D /dev/null /var/lib/sneaky/path
echo "left path $program"
