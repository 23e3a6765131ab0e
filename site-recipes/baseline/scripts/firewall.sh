#!/bin/sh
# Writes /etc/nftables.conf: drop what comes in, but for the ports that the VO's recipe declares in [network] listen.
# The declaration is compact JSON made by the host from the signed manifest; in it only the entries of `listen`
# begin with "port". With --check it writes nothing and says whether all is as it would write it.
set -eu

declared=/run/countersign/declared.json
rules=$(
  tr -d ' \t\n' <"$declared" | tr '{' '\n' |
    sed -n 's/^"port":\([0-9]\{1,5\}\),"protocol":"\(tcp\|udp\)"}.*/    \2 dport \1 accept/p'
)

new=$(mktemp /etc/nftables.conf.XXXXXX)
trap 'rm -f "$new"' EXIT
cat >"$new" <<END
flush ruleset

table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
    iif "lo" accept
    ct state established,related accept
    ct state invalid drop
    icmp type { echo-request, destination-unreachable, time-exceeded, parameter-problem } accept
    icmpv6 type { echo-request, destination-unreachable, packet-too-big, time-exceeded, parameter-problem, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept
    udp sport 67 udp dport 68 accept
$rules
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
  }
  chain output {
    type filter hook output priority filter; policy accept;
  }
}
END
if [ "${1-}" = --check ]; then
  [ "$(stat -c '%F %u %a' /etc/nftables.conf)" = 'regular file 0 644' ] && cmp -s "$new" /etc/nftables.conf
  exit
fi
# A rule that the kernel would not take must fail now, not at the next boot.
nft --check --file "$new"
chmod 0644 "$new"
mv "$new" /etc/nftables.conf
