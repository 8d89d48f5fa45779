# Sourced before every command on a machine of the cluster: the settings, and where the packages are.
set -a
. ~/tav/settings.env
set +a
if [ -d ~/tav-venv ]; then PATH=~/tav-venv/bin:$PATH; fi
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
