#!/usr/bin/env bash
# Checks the units as systemd reads them, and how exposed they leave the machine: below 2.5 of 10.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# In tenths.
EXPOSURE_MAX=24

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/etc/systemd/system" "$root/usr/bin" "$root/bin"
cp ./*.service "$root/etc/systemd/system"
# What ExecStart and ExecReload name has to be there.
for program in usr/bin/ticketd bin/sh; do
  install -m 755 /dev/null "$root/$program"
done
# Targets and slices that every unit has to do with.
units=/usr/lib/systemd/system
mkdir -p "$root$units"
cp "$units"/*.target "$units"/*.slice "$units"/*.socket "$root$units"

for unit in *.service; do
  # A word that systemd does not know is only a warning.
  if ! said=$(systemd-analyze verify --root="$root" --recursive-errors=no --man=no "$unit" 2>&1) || [ -n "$said" ]; then
    echo "$unit: $said" >&2
    exit 1
  fi
  systemd-analyze security --offline=true --no-pager --threshold="$EXPOSURE_MAX" "$unit" >"$root/report" || {
    cat "$root/report" >&2
    exit 1
  }
  tail -n 1 "$root/report"
done
