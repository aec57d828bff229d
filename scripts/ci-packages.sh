#!/usr/bin/env bash
# Install what the tests and benchmarks call on a Debian or Ubuntu machine; what is there already is left alone.
set -euo pipefail

missing=()
need() {
    local program=$1 package=$2
    PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || missing+=("$package")
}

need curl curl
need git git
need ip iproute2
need make make
need mariadb mariadb-client-core
need mariadbd mariadb-server-core
need nginx nginx-light
need python3.11 python3.11
# some tests run programs as other users, who may not enter the home of whoever installed another interpreter
[[ -x /usr/bin/python3.11 ]] || missing+=(python3.11)
# Debian keeps the module that makes environments in a package of its own
python3.11 -c 'import ensurepip' 2>/dev/null || missing+=(python3.11-venv)

((${#missing[@]})) || exit 0
echo "installing ${missing[*]}"
sudo=()
if ((EUID != 0)); then sudo=(sudo); fi
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
