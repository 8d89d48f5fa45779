#!/usr/bin/env bash
# What pip cannot bring: venv, a C++ compiler and Python's headers (DeepSpeed compiles its CPU communication).
# Further words bring what tests need: `browser` Chromium, with which one opens the MLflow UI; `servers` PostgreSQL, Redis and
# iproute2, with which one makes a cluster of machines; `prometheus` what its name says.
set -euo pipefail
python=${1:-python3}

missing=()
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
"$python" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || missing+=(python3-dev)
command -v g++ >/dev/null || missing+=(g++)
for word in "${@:2}"; do
    case $word in
    browser) command -v chromium >/dev/null || missing+=(chromium) ;;
    servers)
        [ -d /usr/lib/postgresql ] || missing+=(postgresql)
        command -v redis-server >/dev/null || missing+=(redis-server)
        command -v ip >/dev/null || missing+=(iproute2)
        ;;
    prometheus) command -v prometheus >/dev/null || missing+=(prometheus) ;;
    *) echo "$0: there is no $word" >&2 && exit 1 ;;
    esac
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "Please install: ${missing[*]} (on Debian: sudo apt-get install ${missing[*]}), then run this again." >&2
    exit 1
fi
apt-get update -qq
# As in runlevel 1, so that no server starts that was installed for tests alone.
RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
