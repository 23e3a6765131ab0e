#!/usr/bin/env bash
# Builds the base image that the tests share, unless the cache holds it already: test-base.sh COUNTERSIGN CACHE
set -euo pipefail
countersign=$(realpath "$1")
cache=$2
project=$(cd "$(dirname "$0")/.." && pwd)
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
"$countersign" init "$site/site" --id test-base --site-recipes "$project/site-recipes" --no-passphrase
"$countersign" --site "$site/site" base build debian-12 --cache "$cache"
