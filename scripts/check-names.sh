#!/usr/bin/env bash
# Refuse host names of package registries: where packages come from is a setting of the machine, not of the project.
# Usage: check-names.sh [FILE…]; without files, everything that git tracks.
set -euo pipefail
cd "$(dirname "$0")/.."

hosts='pypi[.]org|pythonhosted[.]org|registry[.]npmjs[.]org|proxy[.]golang[.]org|index[.]crates[.]io|static[.]crates[.]io|conda[.]anaconda[.]org|deb[.]debian[.]org'
if (($#)); then
    found=$(grep -nIE "$hosts" -- "$@" || true)
else
    found=$(git grep -nIE "$hosts" || true)
fi
if [[ -n $found ]]; then
    echo "host names of package registries:" >&2
    echo "$found" >&2
    exit 1
fi
