#!/usr/bin/env bash
# Slurm and munge from Debian's packages, where they are missing and we are root. Nothing is started.
set -euo pipefail

missing=()
for tool in slurmctld slurmd sbatch munged; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
((${#missing[@]})) || exit 0
if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]}; install slurm-wlm and munge (root, Debian or Ubuntu: done by itself)" >&2
    exit 1
fi
# Packages start daemons where there is an init system; these are the tests' own business.
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
apt-get update -q
apt-get install -y -q --no-install-recommends slurm-wlm munge
