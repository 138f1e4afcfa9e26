#!/usr/bin/env bash
# usage: deploy/stack/install.sh PACKAGE...
#
# Installs Debian packages, as root or with sudo, without starting their services: neither now nor at the next boot,
# when they would take the ports 5432 and 5672. What is put in place for this goes away again, and services that were
# installed before stay as they are.
set -euo pipefail

PATH=${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

# The mark tells our file from one of the machine's owner.
readonly POLICY_FILE=/usr/sbin/policy-rc.d POLICY_MARK='placed by ticketd deploy/stack/install.sh while it runs'
readonly NO_CLUSTER_FILE=/etc/postgresql-common/createcluster.d/ticketd.conf
# The services of the packages that are asked for; PostgreSQL's starts nothing as long as there is no cluster.
readonly UNITS=(rabbitmq-server.service epmd.service epmd.socket prometheus.service)
readonly LOCK_DEADLINE_S=900

say() { printf 'install: %s\n' "$*" >&2; }

die() {
  say "$*"
  exit 1
}

unit_exists() { [[ -e /lib/systemd/system/$1 || -e /usr/lib/systemd/system/$1 ]]; }

# With this in place, no package's script starts a service, and PostgreSQL's makes no cluster on port 5432.
forbid_services() {
  trap allow_services EXIT
  if [[ ! -e $POLICY_FILE ]] || grep -q "$POLICY_MARK" "$POLICY_FILE"; then
    printf '#!/bin/sh\n# %s\nexit 101\n' "$POLICY_MARK" >"$POLICY_FILE"
    chmod 755 "$POLICY_FILE"
  fi
  mkdir -p "${NO_CLUSTER_FILE%/*}"
  printf '# %s\ncreate_main_cluster = false\n' "$POLICY_MARK" >"$NO_CLUSTER_FILE"
}

allow_services() {
  trap - EXIT
  ! grep -qs "$POLICY_MARK" "$POLICY_FILE" || rm -f "$POLICY_FILE"
  rm -f "$NO_CLUSTER_FILE"
  rmdir --ignore-fail-on-non-empty "${NO_CLUSTER_FILE%/*}" 2>/dev/null || true
}

# apt-get waits for dpkg's lock, but not for that of the package lists, which a timer of the system may hold.
apt_get() {
  local output deadline=$((SECONDS + LOCK_DEADLINE_S))
  export DEBIAN_FRONTEND=noninteractive
  until output=$(apt-get -q -o "DPkg::Lock::Timeout=$LOCK_DEADLINE_S" "$@" 2>&1 </dev/null); do
    if [[ $output != *"Could not get lock"* ]] || ((SECONDS >= deadline)); then
      tail -n 20 <<<"$output" >&2
      return 1
    fi
    sleep 1
  done
}

# One installation at a time, as each takes away what it has put in place: the lock is on a folder that is there
# on every such system, and ends with us.
install_as_root() {
  local lock unit fresh=()
  exec {lock}</etc/apt
  flock -w "$LOCK_DEADLINE_S" "$lock" || die "another installation does not end"
  for unit in "${UNITS[@]}"; do unit_exists "$unit" || fresh+=("$unit"); done
  say "installing $*"
  forbid_services
  apt_get update || say "apt-get update failed; trying with the lists there are"
  apt_get install --yes --no-install-recommends "$@" || die "apt-get could not install $*"
  allow_services
  for unit in "${fresh[@]}"; do
    ! unit_exists "$unit" || systemctl disable "$unit" >/dev/null 2>&1 || true
  done
}

main() {
  (($#)) || die "which packages?"
  if ! command -v apt-get >/dev/null; then
    die "this system has no apt-get; please install what these Debian packages hold: $*"
  elif ((EUID == 0)); then
    install_as_root "$@"
  elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; then
    sudo bash "$(realpath "${BASH_SOURCE[0]}")" "$@"
  else
    die "missing, and neither root nor sudo is at hand; please have this run as root:
  apt-get install --no-install-recommends $*"
  fi
}

main "$@"
