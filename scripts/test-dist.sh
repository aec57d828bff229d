#!/usr/bin/env bash
# Build the distributions and use them, installed as a user would, in an environment that knows nothing of this tree.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

rm -rf dist
make --no-print-directory dist
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
.venv/bin/python -m venv "$scratch/env"
pip=("$scratch/env/bin/python" -m pip --quiet --disable-pip-version-check)
"${pip[@]}" install --require-hashes -r requirements/server.txt
"${pip[@]}" install --no-deps dist/*.whl
"${pip[@]}" check
cd "$scratch"
"$scratch/env/bin/kachery-cloud" --help >/dev/null
"$scratch/env/bin/python" -c 'import kachery_cloud; assert "site-packages" in kachery_cloud.__file__'
port=$("$scratch/env/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$scratch/env/bin/python" "$root/scripts/up.py" --once --directory "$scratch/zone" --port "$port"
