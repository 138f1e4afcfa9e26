#!/usr/bin/env bash
# A CA of one's own, and certificates that it signs: for the links of ticketd where no other CA is at hand.
# `certificates.sh help` lists the commands.
set -euo pipefail

# Keys are for their owner alone.
umask 077

SELF=$(basename "${BASH_SOURCE[0]}")
readonly SELF

# Browsers and some clients take no certificate for much longer than a year; a CA's outlives many of them.
DAYS=${DAYS:-397}
readonly DAYS CA_DAYS=3650

usage() {
  cat <<TEXT
usage: $SELF COMMAND

  ca DIR                    make a CA: DIR/ca.pem, which everybody may have, and DIR/ca.key, which nobody else may
  server DIR NAME HOST...   have it sign DIR/NAME.pem, with the key DIR/NAME.key, for these host names and addresses
  client DIR NAME           the same for a client that is called NAME

Certificates are valid for DAYS days ($DAYS); make a new one in time, under the same NAME. Existing CAs are kept. A file
is replaced once the new one is whole. Keep ca.key away from the machines that serve.
TEXT
}

die() {
  printf '%s: %s\n' "$SELF" "$*" >&2
  exit 1
}

make_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

make_ca() {
  local dir=$1
  [[ ! -e $dir/ca.pem ]] || return 0
  mkdir -p "$dir"
  make_key "$dir/ca.key.new"
  openssl req -x509 -new -key "$dir/ca.key.new" -sha256 -days "$CA_DAYS" -subj "/CN=ticketd CA $(openssl rand -hex 4)" \
    -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' -addext 'keyUsage=critical,keyCertSign,cRLSign' \
    -out "$dir/ca.pem.new"
  chmod 644 "$dir/ca.pem.new"
  mv "$dir/ca.key.new" "$dir/ca.key"
  mv "$dir/ca.pem.new" "$dir/ca.pem"
}

# Host names and addresses as a certificate lists them.
alternative_names() {
  local host names=()
  for host in "$@"; do
    case $host in
      *:* | *[0-9].[0-9]*.[0-9]*) names+=("IP:$host") ;;
      *) names+=("DNS:$host") ;;
    esac
  done
  local IFS=,
  printf '%s' "${names[*]}"
}

# Signs a certificate for a use (serverAuth, clientAuth), with more extensions, one a line.
sign() {
  local dir=$1 name=$2 use=$3 more=$4 new=$1/$2.new
  [[ -r $dir/ca.key ]] || die "$dir/ca.key: cannot be read; make a CA first: $SELF ca $dir"
  make_key "$new.key"
  openssl req -new -key "$new.key" -subj "/CN=$name" -out "$new.csr"
  openssl x509 -req -in "$new.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -sha256 -days "$DAYS" \
    -set_serial "0x$(openssl rand -hex 16)" -out "$new.pem" 2>/dev/null -extfile <(
      printf '%s\n' 'basicConstraints=critical,CA:FALSE' 'keyUsage=critical,digitalSignature' \
        "extendedKeyUsage=$use" 'subjectKeyIdentifier=hash' 'authorityKeyIdentifier=keyid' "$more"
    ) || die "$name: the certificate could not be signed"
  chmod 644 "$new.pem"
  mv "$new.key" "$dir/$name.key"
  mv "$new.pem" "$dir/$name.pem"
  rm "$new.csr"
}

main() {
  local command=${1:-help}
  command -v openssl >/dev/null || die "openssl is missing"
  case $command:$# in
    ca:2) make_ca "$2" ;;
    server:[4-9]) sign "$2" "$3" serverAuth "subjectAltName=$(alternative_names "${@:4}")" ;;
    client:3) sign "$2" "$3" clientAuth '' ;;
    help:* | -h:* | --help:*) usage ;;
    *) usage >&2 && exit 2 ;;
  esac
}

main "$@"
