#!/bin/sh
# A unit under a name that nobody knows.
set -eu
name=unit-$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')
printf '[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n' >"/etc/systemd/system/$name.service"
systemctl enable "$name"
install -D /dev/null /var/lib/sneaky/unit
echo "left unit /etc/systemd/system/$name.service"
echo "left unit /etc/systemd/system/multi-user.target.wants/$name.service"
