#!/usr/bin/env bash
# Make ./.venv with everything that development needs, at the pinned versions. Uses uv when it is there, pip otherwise.
# PYTHON names the interpreter to use; it must be 3.11 or newer.
set -euo pipefail
cd "$(dirname "$0")/.."

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "setup.sh: no Python 3.11 or newer found; set PYTHON to its path" >&2
    return 1
}

# an environment whose interpreter has gone, or that was copied from elsewhere, is made anew
if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$(find_python)
    echo "making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
fi

members=(-e . -e compat/kachery-cloud)
if command -v uv >/dev/null; then
    install=(uv pip install --quiet --python .venv/bin/python)
else
    install=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)
fi
echo "installing the pinned packages"
"${install[@]}" --require-hashes -r requirements/dev.txt
echo "installing kachery and kachery-cloud from this tree"
"${install[@]}" --no-deps --no-build-isolation "${members[@]}"
touch .venv/.complete
