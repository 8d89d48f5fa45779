#!/usr/bin/env bash
# What pip cannot bring: venv, a C++ compiler and Python's headers (DeepSpeed compiles its CPU communication).
# With `browser` as a second word also Chromium, with which one test opens the MLflow UI.
set -euo pipefail
python=${1:-python3}

missing=()
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
"$python" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || missing+=(python3-dev)
command -v g++ >/dev/null || missing+=(g++)
if [ "${2:-}" = browser ]; then command -v chromium >/dev/null || missing+=(chromium); fi
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "Please install: ${missing[*]} (on Debian: sudo apt-get install ${missing[*]}), then run this again." >&2
    exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
