#!/usr/bin/env bash
# usage: deploy/debian/test.sh BINARY
#
# Installs, runs, upgrades and purges the package on a bare Debian with a systemd of its own, as root, with the servers
# that DATABASE_URL and AMQP_URL name, in some minutes. Makes a folder and a database, and removes both.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
(($# == 1)) || { sed -n 's/^# \(usage: .*\)/\1/p' "$0" >&2 && exit 2; }
((EUID == 0)) || { echo 'a machine of its own can only be made by root' >&2 && exit 1; }
: "${DATABASE_URL:?}" "${AMQP_URL:?}"

# The release that the package is for: that of this machine, as its C library is the binary's.
RELEASE=${RELEASE:-$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)}
readonly WAIT_MAX_S=60
NAME=ticketd_deb_$$

work=$(mktemp -d)
root=$work/root
nspawn=''

step() { printf 'test_deb: %s\n' "$*"; }

fail() {
  printf 'test_deb: FAILED: %s\n' "$*" >&2
  [[ -z $nspawn ]] || inside journalctl --no-pager --lines 40 --unit 'ticketd*' >&2 || true
  exit 1
}

stop_machine() {
  [[ -n $nspawn ]] || return 0
  kill "$nspawn" 2>/dev/null || true
  wait "$nspawn" 2>/dev/null || true
  nspawn=''
}

clean() {
  stop_machine
  psql --quiet "$DATABASE_URL" -c "drop database if exists $NAME with (force)" >/dev/null || true
  rm -rf "$work"
}
trap clean EXIT

# Runs a command in the folder alone, and one in the machine that runs of it.
bare() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
inside() {
  nsenter --target "$(pgrep --parent "$nspawn")" --all /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    DEBIAN_FRONTEND=noninteractive "$@"
}

eventually() {
  local what=$1 until=$((SECONDS + WAIT_MAX_S))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < until)) || fail "$what"
    sleep 0.2
  done
}

is() { [[ $("${@:2}" 2>/dev/null) == "$1" ]] || fail "${*:2}: not $1, but $("${@:2}" 2>&1)"; }
shows() { [[ $(inside systemctl show --property="$1" --value "$2") == "$3" ]]; }
property() { inside systemctl show --property="$1" --value ticketd; }

install_quietly() { "$1" apt-get install --quiet=2 --yes --no-install-recommends "$2" >"$work/apt" 2>&1 || fail "$(cat "$work/apt")"; }

address() { inside journalctl --unit ticketd --output cat | sed -n 's/.*setting="LISTEN" address=\([0-9.:]*\).*/\1/p' | tail -n 1; }

post() {
  local answer
  answer=$(curl --silent --output /dev/null --write-out '%{http_code}' --data-binary "@$work/ticket" "http://$(address)/ticket")
  [[ $answer == 202 ]] || fail "a ticket is answered $answer"
}

stored() { [[ $(psql --tuples-only --no-align "$database" -c 'select count(*) from tickets') == "$1" ]]; }

step "two versions of the package"
old=$(VERSION=0.1.0~1 "$HERE/build.sh" "$1" "$work/packages")
new=$(VERSION=0.1.0 "$HERE/build.sh" "$1" "$work/packages")
lintian --fail-on error --allow-root "$new" || fail lintian

step "a bare Debian $RELEASE"
mmdebstrap --quiet --variant=minbase --skip=cleanup/apt/lists "$RELEASE" "$root" 2>"$work/apt" || fail "$(cat "$work/apt")"
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp "$old" "$root/old.deb"
cp "$new" "$root/new.deb"

step "the package is installed where no systemd runs"
install_quietly bare /old.deb
bare id ticketd >/dev/null || fail "no user"
is 'root:root 640' bare stat --format '%U:%G %a' /etc/ticketd/ticketd.env
is 'root:root 700' bare stat --format '%U:%G %a' /etc/ticketd/secrets
bare ticketd --version >/dev/null || fail "it does not run"
bare zcat /usr/share/man/man1/ticketd.1.gz | grep -q '^\.B consume' || fail "no man page of its commands"
[[ -z $(find "$root/etc/systemd/system" -name '*ticketd*') ]] || fail "a unit is enabled"

step "systemd starts nothing, and says what is missing"
systemd-nspawn --quiet --register=no --keep-unit --directory="$root" /lib/systemd/systemd >"$work/console" 2>&1 &
nspawn=$!
eventually "systemd is up" inside systemctl show --property=Version
is inactive inside systemctl is-active ticketd
! inside systemctl start ticketd 2>/dev/null || fail "it started without its secrets"
is failed inside systemctl is-active ticketd
is 243 property ExecMainStatus

step "it is up, and ready once it has its servers"
psql --quiet "$DATABASE_URL" -c "create database $NAME"
database=$(sed -E "s#^(postgres(ql)?://[^/]*/)[^?]*#\1$NAME#" <<<"$DATABASE_URL")
echo "$AMQP_URL" >"$root/etc/ticketd/secrets/amqp-url"
echo "$database" >"$root/etc/ticketd/secrets/database-url"
echo "QUEUE=$NAME" >>"$root/etc/ticketd/ticketd.env"
printf 'LISTEN=127.0.0.1:0\nLAME_DUCK=0s\n' >>"$root/etc/ticketd/serve.env"
mkdir -p "$root/etc/systemd/system/ticketd.service.d"
printf '[Service]\nWatchdogSec=2s\n' >"$root/etc/systemd/system/ticketd.service.d/test.conf"
inside systemctl daemon-reload
inside systemctl start ticketd || fail "it does not start"
eventually "its status says ready" shows StatusText ticketd ready
printf '1,A,1,1.00\n' >"$work/ticket"
post

step "a reload returns, and is no restart"
pid=$(property MainPID)
inside systemctl reload ticketd || fail "reload"
is "$pid" property MainPID

step "the watchdog restarts a process that is stuck"
inside sh -c "kill -STOP $pid"
eventually "it is restarted" shows NRestarts ticketd 1
eventually "it is ready again" shows StatusText ticketd ready
post

step "an upgrade restarts it, and keeps what was changed"
pid=$(property MainPID)
install_quietly inside /new.deb
is active inside systemctl is-active ticketd
[[ $(property MainPID) != "$pid" ]] || fail "the old one still runs"
grep -q "^QUEUE=$NAME$" "$root/etc/ticketd/ticketd.env" || fail "its settings are lost"
eventually "it is ready" shows StatusText ticketd ready
post
is inactive inside systemctl is-active ticketd-consume
eventually "each ticket is stored once" stored 3

step "it is removed, and purged without a trace"
inside apt-get remove --quiet=2 --yes ticketd >/dev/null 2>&1 || fail "remove"
! inside sh -c 'grep --quiet --no-messages --line-regexp ticketd /proc/[0-9]*/comm' || fail "it runs on"
[[ -e $root/etc/ticketd/secrets/amqp-url ]] || fail "settings went before a purge"
inside apt-get purge --quiet=2 --yes ticketd >/dev/null 2>&1 || fail "purge"
rm -r "$root/etc/systemd/system/ticketd.service.d"
left=$(find "$root/etc" "$root/usr" "$root/lib" "$root/var/lib" -name '*ticketd*' -not -path '*/dpkg/*' -not -path '*/apt/*')
[[ -z $left ]] || fail "left: $left"
step "passed"
