#!/usr/bin/env bash
# Installs the packages that lie beside this script into ~/tav-venv, once for each DIGEST of them: setup.sh DIGEST
set -euo pipefail
cd "$(dirname "$0")"
if [ -n "${TAV_IMAGE:-}" ]; then exit 0; fi # the container image has everything
venv=~/tav-venv
done=$venv/.installed-$1
if [ -e "$done" ]; then exit 0; fi

if [ "$(id -u)" -eq 0 ]; then ./system-packages.sh python3; else sudo ./system-packages.sh python3; fi
python3 -m venv "$venv"
pip="$venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt"
$pip "$(grep '^torch==' constraints.txt)"
client=$(echo "$PWD"/tav_client-*.whl) server=$(echo "$PWD"/tav-*.whl)
$pip --force-reinstall --no-deps "$client" "$server"
$pip "$client" "$server[service,cluster]"
touch "$done"
