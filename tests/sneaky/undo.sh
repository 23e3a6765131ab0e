#!/bin/sh
# A process that waits for what the site's recipe does, and undoes it.
set -eu
folder=$(mktemp -d /opt/XXXXXX)
cat >"$folder/later" <<'END'
await() { until [ -e "$1" ] && grep -q "$2" "$1"; do sleep 0.02; done; }
await /etc/nftables.conf 'policy drop'
echo 'flush ruleset' >/etc/nftables.conf
await /etc/audit/rules.d/50-baseline.rules .
rm /etc/audit/rules.d/50-baseline.rules
END
systemd-run --quiet --collect sh "$folder/later"
install -D /dev/null /var/lib/sneaky/undo
echo "left undo /etc/audit/rules.d/50-baseline.rules"
echo "left undo /etc/nftables.conf"
