#!/usr/bin/env bash
# Resolve the pins anew and export them, with hashes and without addresses, to requirements/*.txt.
# UPGRADE=1 takes the newest releases; otherwise only what pyproject.toml no longer allows moves.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v uv >/dev/null || { echo "requirements.sh: uv is not installed; 'pip install uv' gives it" >&2; exit 1; }

uv lock --quiet ${UPGRADE:+--upgrade}

export_pins() {
    local output=$1
    shift
    {
        echo "# Made by 'make requirements' from pyproject.toml; do not edit."
        uv export --quiet --format requirements-txt --no-emit-workspace --no-header --no-annotate "$@"
    } >"$output"
}

export_pins requirements/dev.txt --only-group dev
export_pins requirements/server.txt --no-dev --extra npy --extra server

# The released programs that ours must get along with, each with what it imports. Installed with --no-deps, because
# they declare packages that they do not use.
compile_pins() {
    uv pip compile --quiet --no-header --no-annotate --no-emit-index-url --generate-hashes --python-version 3.11 "$@"
}
for version in 0.4.2 0.4.10; do
    name=kachery-cloud-$version
    {
        echo "# Made by 'make requirements' from $name.in; do not edit. Install with --no-deps."
        echo "kachery-cloud==$version" | compile_pins --no-deps -
        compile_pins "requirements/$name.in"
    } >"requirements/$name.txt"
done

for version in 2.0.1 2.0.2 2.0.3; do
    {
        echo "# Made by 'make requirements' from kachery-2.in; do not edit. Install with --no-deps."
        echo "kachery==$version" | compile_pins --no-deps -
        compile_pins requirements/kachery-2.in -c requirements/kachery-cloud-0.4.10.txt
    } >"requirements/kachery-$version.txt"
done

# What opens kachery:// through fsspec; the tests put ours beside it.
{
    echo "# Made by 'make requirements' from fsspec.in; do not edit."
    compile_pins requirements/fsspec.in
} >requirements/fsspec.txt

# Spyglass without the kachery clients, and those clients alone: the tests put theirs or ours beside it.
{
    echo "# Made by 'make requirements' from spyglass-0.6.0.in; do not edit. Install with --no-deps."
    compile_pins --no-emit-package kachery requirements/spyglass-0.6.0.in
} >requirements/spyglass-0.6.0.txt
{
    echo "# Made by 'make requirements' from kachery-released.in; do not edit. Install with --no-deps."
    compile_pins --no-deps requirements/kachery-released.in
} >requirements/kachery-released.txt

scripts/check-names.sh requirements/*.txt
