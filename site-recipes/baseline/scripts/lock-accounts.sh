#!/bin/sh
# Locks every account that has an empty password.
set -eu
sed -n 's/^\([^:]*\)::.*/\1/p' /etc/shadow | while read -r name; do
  usermod --lock "$name"
done
