#!/usr/bin/env bash
# usage: curl.sh URL SALE, as in curl.sh http://127.0.0.1:8080/ticket sale-4711.txt
# Sends a ticket until it is accepted (exit code 0) or rejected for good (1). TICKETD_TOKEN is a source's token, if any.
set -euo pipefail
url=$1 sale=$2 key=$2.key pause_ms=500 problem=$(mktemp)
trap 'rm -f "$problem"' EXIT

# Made once, and on disk before the first attempt: whatever is sent again, also by a later run, is the same ticket.
if [[ ! -e $key ]]; then
  od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$key.new"
  sync "$key.new" && mv "$key.new" "$key"
fi
while true; do
  # By a configuration, as other users of this machine can see a command line.
  result=$(printf 'header = "Authorization: Bearer %s"\n' "${TICKETD_TOKEN:-}" | curl --config - --silent --show-error \
    --max-time 15 --header "Idempotency-Key: $(<"$key")" --header 'Content-Type: text/plain' --data-binary "@$sale" \
    --output "$problem" --write-out '%{http_code} %header{retry-after}' "$url") || result=000
  read -r status after <<<"$result"
  case $status in
    202) cat "$problem" && exit 0 ;;
    000 | 408 | 429 | 5??) ;;
    *) echo "rejected: $(<"$problem")" >&2 && exit 1 ;;
  esac
  wait_ms=$pause_ms
  if [[ $after =~ ^[1-9][0-9]{0,2}$ ]]; then wait_ms=$((after * 1000)); fi
  wait_ms=$((wait_ms + wait_ms * (RANDOM % 1000) / 1000)) # else all senders would return at once
  sleep "$((wait_ms / 1000)).$(printf %03d $((wait_ms % 1000)))"
  pause_ms=$((pause_ms < 32000 ? pause_ms * 2 : 60000))
done
