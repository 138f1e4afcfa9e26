#!/usr/bin/env bash
# Makes what the profile `tls` of docker-compose.yml mounts: a CA of its own, and for each service a folder with a
# certificate, its key and the CA. `compose_tls.sh` without arguments says how.
set -euo pipefail

umask 077

SELF=$(basename "${BASH_SOURCE[0]}")
CERTIFICATES=$(dirname "$(realpath "${BASH_SOURCE[0]}")")/certificates.sh
readonly SELF CERTIFICATES

# Who reads the keys: the users of the three images.
readonly -A USER_IDS=([ticketd]=10001 [postgres]=999 [rabbitmq]=999)

usage() {
  cat <<TEXT
usage: $SELF DIR HOST...

Makes DIR/ca with a CA, unless it is there, and DIR/ticketd, DIR/postgres and DIR/rabbitmq with server.pem, server.key
and ca.pem: ticketd's for these host names and addresses, by which senders reach it; the others' for their names in
docker-compose.yml. Run it as root, so that each key can be given to its service alone, and again to renew what expires
after a year (DAYS=397). Take DIR/ca away from this machine afterwards; it is needed to renew only.
TEXT
}

# install_file MODE FROM TO: replaces a file at once.
install_file() {
  install -m "$1" "$2" "$3.new"
  mv "$3.new" "$3"
}

# give DIR SERVICE HOST...: a service's folder, which nobody else can enter.
give() {
  local dir=$1 service=$2
  "$CERTIFICATES" server "$dir/ca" "$service" "${@:3}"
  mkdir -p "$dir/$service"
  install_file 444 "$dir/ca/ca.pem" "$dir/$service/ca.pem"
  install_file 444 "$dir/ca/$service.pem" "$dir/$service/server.pem"
  install_file 400 "$dir/ca/$service.key" "$dir/$service/server.key"
  rm "$dir/ca/$service.pem" "$dir/ca/$service.key"
  ((EUID)) || chown -R "${USER_IDS[$service]}:${USER_IDS[$service]}" "$dir/$service"
}

main() {
  (($# >= 2)) || { usage >&2 && exit 2; }
  local dir=$1
  mkdir -p "$dir"
  # Each service comes through to its own folder.
  chmod 711 "$dir"
  "$CERTIFICATES" ca "$dir/ca"
  give "$dir" ticketd "${@:2}"
  give "$dir" postgres postgres-tls
  give "$dir" rabbitmq rabbitmq-tls
  ((!EUID)) || printf '%s: not root: the keys are yours, and the containers cannot read them\n' "$SELF" >&2
}

main "$@"
