#!/bin/sh
# Runs once in the finished tree (chroot, no network, no service running).
set -eu

# What belongs to one machine, or to the host of this build, is not in the image.
rm -f /etc/ssh/ssh_host_*
: >/etc/machine-id
ln -sf /etc/machine-id /var/lib/dbus/machine-id
rm -f /var/log/*.log /var/log/apt/* /var/lib/systemd/random-seed /var/lib/dpkg/*-old /etc/*- /etc/.pwd.lock

# apt's lists stay, with the index that apt makes of them: fetching and reading them again is the longest part of a
# recipe's first `package` step. They are the archive's state that the base's statement names; the agent refreshes
# them when a package is no longer to be had.
rm -rf /var/cache/apt/archives/*.deb /var/lib/apt/lists/auxfiles
apt-cache gencaches

# Accounts: nobody logs in until a recipe says so.
usermod -p '*' root

systemctl enable systemd-networkd.service ssh-host-key.service ssh.service cron.service auditd.service
systemctl disable systemd-network-generator.service nftables.service remote-fs.target

# Time at boot that buys no trust: periodic upkeep of a long-lived server, consoles nobody sits at,
# waiting for a network that is not needed to be up.
systemctl mask \
  apt-daily.timer apt-daily-upgrade.timer apt-daily.service apt-daily-upgrade.service \
  dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
  systemd-networkd-wait-online.service systemd-pstore.service \
  modprobe@drm.service modprobe@dm_mod.service modprobe@loop.service \
  sys-kernel-debug.mount sys-kernel-tracing.mount \
  getty@tty1.service serial-getty@ttyS0.service
