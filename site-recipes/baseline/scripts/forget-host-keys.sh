#!/bin/sh
# An instance makes its own host key at its first boot: two machines never share one.
set -eu
rm -f /etc/ssh/ssh_host_*
