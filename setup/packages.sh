#!/usr/bin/env bash
# Installs from the distribution what building, testing and the demo need, and says what it installs.
# Installs nothing where nothing is missing; without root it names what is missing and stops.
#
#   packages.sh              for whoever calls it
#   packages.sh --for USER   as root: also what USER needs for working without root
set -euo pipefail

# QEMU 9.0 is the oldest with what the machines of this project use; bookworm itself has 7.2.
qemu_wanted=9.0
release=bookworm
suite=$release-backports
# How long another apt or dpkg is waited for.
lock_seconds=${SETUP_LOCK_SECONDS:-300}
# A tree of files uses the user ids 0 to 65534.
ids_wanted=65536

say() { printf 'set-up: %s\n' "$*"; }
complain() { printf 'set-up: %s\n' "$*" >&2; }
fail() { complain "$@"; exit 1; }
has() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }
installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q '^install ok installed$'; }

# version_at_least HAVE WANTED
version_at_least() { dpkg --compare-versions "$1" ge "$2"; }
# version_of PROGRAM: of one of QEMU's programs, empty if there is none
version_of() { { "$1" --version 2>/dev/null || true; } | sed -n '1s/^[A-Za-z -]* version \([0-9][0-9.]*\).*/\1/p'; }
qemu_is_new_enough() {
    local program version
    for program in qemu-system-x86_64 qemu-img; do
        version=$(version_of "$program")
        [ -n "$version" ] && version_at_least "$version" "$qemu_wanted" || return 1
    done
}
qemu_found() {
    local version
    version=$(version_of qemu-system-x86_64)
    printf '%s' "${version:-none}"
    version=$(version_of qemu-img)
    printf ', qemu-img %s' "${version:-none}"
}

# Who is to work without root, if anybody is.
user=
uid=$(id -u)
case "${1-}" in
    '') [ "$uid" -eq 0 ] || user=$(id -un 2>/dev/null) || user=$uid ;;
    --for)
        [ $# -eq 2 ] || fail "usage: packages.sh [--for USER]"
        [ "$uid" -eq 0 ] || fail "--for is for root"
        user=$2
        uid=$(id -u -- "$user" 2>/dev/null) || fail "there is no user $user"
        ;;
    *) fail "usage: packages.sh [--for USER]" ;;
esac

has apt-get && has dpkg-query || fail "this needs a Debian system (apt-get and dpkg are missing)"
# Where root acts for somebody, cargo is that user's own.
has cargo || [ "${1-}" = --for ] || fail "cargo is missing: install Rust 1.95 or newer first, see https://rustup.rs"

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
# Its programs are setuid root, so only who needs them gets them: who builds base images without root.
[ -z "$user" ] || want newuidmap uidmap

qemu=()
# Both from one suite: installing qemu-system-x86 of another suite would remove qemu-utils.
qemu_is_new_enough || qemu=(qemu-system-x86 qemu-utils)

# ids_of FILE: how many ids the user's first range in it has, which is the one that counts; empty if there is none
ids_of() {
    awk -F : -v name="$user" -v number="$uid" '$1 == name || $1 == number { print $3 + 0; exit }' "$1" 2>/dev/null || true
}
ids=()
few=()
if [ -n "$user" ] && [ "$uid" -ne 0 ]; then
    for kind in uid gid; do
        found=$(ids_of "/etc/sub$kind")
        if [ -z "$found" ]; then
            ids+=("$kind")
        elif [ "$found" -lt "$ids_wanted" ]; then
            few+=("/etc/sub$kind")
        fi
    done
fi
# Somebody gave this range for a reason; it is not ours to change.
[ ${#few[@]} -eq 0 ] ||
    fail "the first range of $user in ${few[*]} has fewer than $ids_wanted ids, too few for building base images: have root change it, then run this again"

if [ ${#plain[@]} -eq 0 ] && [ ${#qemu[@]} -eq 0 ] && [ ${#ids[@]} -eq 0 ]; then
    say "nothing is missing (QEMU $(qemu_found))"
    exit 0
fi

if [ "$(id -u)" -ne 0 ]; then
    [ ${#plain[@]} -eq 0 ] || complain "missing packages: ${plain[*]}"
    [ ${#qemu[@]} -eq 0 ] ||
        complain "missing packages: ${qemu[*]}, version $qemu_wanted or newer, from $suite (found: $(qemu_found))"
    [ ${#ids[@]} -eq 0 ] ||
        complain "missing: a range of $ids_wanted ids for $user in /etc/subuid and /etc/subgid, for building base images"
    fail "installing needs root: have root run \`setup/packages.sh --for $user\`, then run this again"
fi

words=$(mktemp)
added=
trap 'rm -f "$words" ${added:+"$added"}' EXIT

# Runs apt-get, waiting for another one to end. What it said is shown if it fails, and stays in $words.
apt() {
    local deadline=$((SECONDS + lock_seconds)) told=no
    until LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" </dev/null >"$words" 2>&1; do
        if ! grep -qE 'Could not get lock|Unable to (acquire|lock)' "$words"; then
            tail -n 20 "$words" >&2
            return 1
        fi
        if [ "$SECONDS" -ge "$deadline" ]; then
            grep -E '^[EN]:' "$words" >&2
            fail "another apt or dpkg is still at work after $lock_seconds s: wait for it to end, then run this again"
        fi
        [ $told = yes ] || say "another apt or dpkg is at work; waiting up to $lock_seconds s for it"
        told=yes
        sleep 1
    done
}
install() {
    say "installing: $*"
    apt install -y --no-install-recommends "$@" ||
        fail "apt-get could not install this: its words are above"
}

# apt itself reads its sources, in whatever form they are written: one line an archive, by what its Release file says.
archives() { apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(CODENAME)|$(COMPONENT)|$(REPO_URI)' 'Created-By: Packages'; }
configured() { apt-get indextargets --no-release-info --format '$(RELEASE)|$(COMPONENT)' 'Created-By: Packages'; }
offered() { archives | awk -F '|' -v suite="$suite" '$3 == suite && $4 == "main" { found = 1 } END { exit !found }'; }
# The mirror that this machine already uses for Debian itself, never one of ours, nor that of another publisher.
own_mirror() {
    archives | awk -F '|' -v release="$release" \
        '$1 == "Debian" && $2 == "Debian" && $3 == release && $4 == "main" && !found { found = 1; print $5 }'
}

if [ ${#plain[@]} -gt 0 ] || [ ${#qemu[@]} -gt 0 ]; then
    say "refreshing the package lists"
    apt update || fail "apt-get could not refresh the package lists: its words are above"
    # A list that could not be fetched is no error to apt-get.
    grep -E '^W:' "$words" >&2 || true
fi
[ ${#plain[@]} -eq 0 ] || install "${plain[@]}"
if [ ${#qemu[@]} -gt 0 ]; then
    if ! offered; then
        ! configured | grep -qx "$suite|main" ||
            fail "this machine's apt source for $suite gave no package list: see to that source, then run this again"
        mirror=$(own_mirror)
        [ -n "$mirror" ] ||
            fail "no apt source of this machine gave Debian's package list for $release, so $suite cannot be added"
        say "adding the suite $suite of this machine's own mirror to its apt sources"
        added=/etc/apt/sources.list.d/countersign-backports.sources
        printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
            "$mirror" "$suite" >"$added"
        apt update -o "Dir::Etc::SourceList=$added" -o Dir::Etc::SourceParts=/dev/null -o APT::Get::List-Cleanup=false &&
            offered ||
            fail "the mirror $mirror gave no package list for $suite, so it was not added: add an apt source for $suite, or install QEMU $qemu_wanted or newer otherwise"
        added=
    fi
    install -t "$suite" "${qemu[@]}"
    qemu_is_new_enough ||
        fail "QEMU is still $(qemu_found) ($(command -v qemu-system-x86_64 || true)): $qemu_wanted or newer is needed, is another one first in PATH?"
fi
if [ ${#ids[@]} -gt 0 ]; then
    # Behind every range that is given already.
    touch /etc/subuid /etc/subgid
    first=$(awk -F : 'BEGIN { first = 100000 } { end = $2 + $3; if (end > first) first = end } END { print first }' \
        /etc/subuid /etc/subgid)
    last=$((first + ids_wanted - 1))
    say "setting the ids $first to $last aside for $user in /etc/subuid and /etc/subgid"
    for kind in "${ids[@]}"; do
        usermod "--add-sub${kind}s" "$first-$last" "$user"
    done
fi
say "done (QEMU $(qemu_found))"
