#!/usr/bin/env bash
# Resolve the pins anew and export them, with hashes and without addresses, to requirements/*.txt.
# UPGRADE=1 takes the newest releases; otherwise only what pyproject.toml no longer allows moves.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v uv >/dev/null || { echo "requirements.sh: uv is not installed; 'pip install uv' gives it" >&2; exit 1; }

# The pins of some requirements, as `uv pip compile` takes them; what OUTPUT pins already stays unless it has to move.
compile_pins() {
    local output=$1 pins
    shift
    pins=$(mktemp --suffix .txt)
    if [[ -z ${UPGRADE:-} && -f $output ]]; then cp "$output" "$pins"; fi
    uv pip compile --quiet --no-header --no-annotate --no-emit-index-url --generate-hashes --python-version 3.11 \
        ${UPGRADE:+--upgrade} --output-file "$pins" "$@" >/dev/null
    cat "$pins"
    rm "$pins"
}

# The environment of this repository, and that of a gateway.
for environment in dev server; do
    output=requirements/$environment.txt
    case $environment in
        dev) sources=(--group pyproject.toml:dev) ;;
        server) sources=(--extra npy --extra server pyproject.toml) ;;
    esac
    pins=$(compile_pins "$output" --universal --no-emit-package kachery --no-emit-package kachery-cloud "${sources[@]}")
    printf "# Made by 'make requirements' from pyproject.toml; do not edit.\n%s\n" "$pins" >"$output"
done

# Released programs that ours must get along with. Those installed with --no-deps declare packages that they do not use.
export_release() {
    local output=requirements/$1.txt pins
    shift
    pins=$(compile_pins "$output" "$@")
    printf "# Made by 'make requirements'; do not edit.\n%s\n" "$pins" >"$output"
}

# A release of one of ours without what it declares, then what it imports.
export_itself() {
    local itself
    itself=$(echo "${1%-*}==${1##*-}" | compile_pins /dev/null --no-deps -)
    export_release "$@"
    sed -i "1r /dev/stdin" "requirements/$1.txt" <<<"$itself"
}

for version in 0.4.2 0.4.10; do
    export_itself kachery-cloud-$version requirements/kachery-cloud-$version.in
done
for version in 2.0.1 2.0.2 2.0.3; do
    export_itself kachery-$version requirements/kachery-2.in -c requirements/kachery-cloud-0.4.10.txt
done
# what opens kachery:// through fsspec; the tests put ours beside it
export_release fsspec requirements/fsspec.in
# what takes snapshots of directories in other ways, for the benchmarks
export_release snapshots requirements/snapshots.in
# DataJoint; likewise
export_release datajoint requirements/datajoint.in
# Spyglass without the kachery clients, and those clients alone: the tests put theirs or ours beside it
export_release spyglass-0.6.0 --no-emit-package kachery requirements/spyglass-0.6.0.in
export_release kachery-released --no-deps requirements/kachery-released.in
# figurl and sortingview without a kachery; likewise
export_release sortingview-0.14.2 --no-emit-package kachery requirements/sortingview-0.14.2.in

scripts/check-names.sh requirements/*.txt
