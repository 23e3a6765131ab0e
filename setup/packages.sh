#!/usr/bin/env bash
# Installs from the distribution what building, testing and the demo need, and says what it installs.
# Installs nothing where nothing is missing; without root it names the packages and stops.
set -euo pipefail

# QEMU 9.0 is the oldest with what the machines of this project use; bookworm itself has 7.2.
qemu_wanted=9.0
suite=bookworm-backports

say() { printf 'set-up: %s\n' "$*"; }
fail() { printf 'set-up: %s\n' "$*" >&2; exit 1; }
has() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }
installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q '^install ok installed$'; }

# version_at_least HAVE WANTED
version_at_least() { dpkg --compare-versions "$1" ge "$2"; }

qemu_version() { qemu-system-x86_64 --version 2>/dev/null | sed -n 's/^QEMU emulator version \([0-9.]*\).*/\1/p'; }

has apt-get && has dpkg-query || fail "this needs a Debian system (apt-get and dpkg are missing)"
has cargo || fail "cargo is missing: install Rust 1.95 or newer first, see https://rustup.rs"

plain=()
want() { # want PROGRAM PACKAGE
    has "$1" || plain+=("$2")
}
want cc build-essential
want make make
want pkg-config pkg-config
installed libssl-dev || plain+=(libssl-dev)
want git git
want mmdebstrap mmdebstrap
want mke2fs e2fsprogs
want zstd zstd
want xz xz-utils
want setpriv util-linux
want openssl openssl
want curl curl
[ -e /etc/ssl/certs/ca-certificates.crt ] || plain+=(ca-certificates)
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || plain+=(debian-archive-keyring)

qemu=()
have=$(qemu_version || true)
if [ -z "$have" ] || ! version_at_least "$have" "$qemu_wanted" || ! has qemu-img; then
    # Both from one suite: installing qemu-system-x86 of another suite would remove qemu-utils.
    qemu=(qemu-system-x86 qemu-utils)
fi

if [ ${#plain[@]} -eq 0 ] && [ ${#qemu[@]} -eq 0 ]; then
    say "nothing is missing (QEMU $have)"
    exit 0
fi

if [ "$(id -u)" -ne 0 ]; then
    [ ${#plain[@]} -eq 0 ] || printf 'set-up: missing packages: %s\n' "${plain[*]}" >&2
    [ ${#qemu[@]} -eq 0 ] ||
        printf 'set-up: missing packages: %s, version %s or newer, from %s (found: %s)\n' \
            "${qemu[*]}" "$qemu_wanted" "$suite" "${have:-none}" >&2
    fail "installing packages needs root: install them as root, then run this again"
fi

# The mirror that this machine already uses for Debian itself, never one of ours.
own_mirror() {
    local file
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -f "$file" ] || continue
        sed -nE 's/^deb[[:space:]]+(\[[^]]*\][[:space:]]+)?([a-z]+:[^[:space:]]+)[[:space:]]+bookworm[[:space:]].*/\2/p' "$file"
    done
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -f "$file" ] || continue
        awk 'BEGIN { RS = ""; FS = "\n" }
             { uri = ""; hit = 0
               for (i = 1; i <= NF; i++) {
                   if ($i ~ /^URIs:/) { split($i, a, /[[:space:]]+/); uri = a[2] }
                   if ($i ~ /^Suites:/ && $i ~ /[[:space:]]bookworm([[:space:]]|$)/) hit = 1
               }
               if (hit && uri != "") print uri }' "$file"
    done
}

refreshed=no
refresh() {
    [ "$refreshed" = yes ] && return
    say "refreshing the package lists"
    apt-get -qq update
    refreshed=yes
}
install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" </dev/null
}

if [ ${#qemu[@]} -gt 0 ]; then
    if ! grep -rqsE "[[:space:]]$suite([[:space:]]|$)" /etc/apt/sources.list /etc/apt/sources.list.d/; then
        mirror=$(own_mirror | head -n 1)
        [ -n "$mirror" ] || fail "no apt source for bookworm was found on this machine, so $suite cannot be added"
        say "adding the suite $suite of this machine's own mirror to its apt sources"
        printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
            "$mirror" "$suite" >/etc/apt/sources.list.d/countersign-backports.sources
    fi
    refresh
    say "installing from $suite: ${qemu[*]}"
    install -t "$suite" "${qemu[@]}"
    have=$(qemu_version)
    version_at_least "${have:-0}" "$qemu_wanted" || fail "QEMU is ${have:-missing}, $qemu_wanted or newer is needed"
fi
if [ ${#plain[@]} -gt 0 ]; then
    refresh
    say "installing: ${plain[*]}"
    install "${plain[@]}"
fi
say "done (QEMU $(qemu_version))"
