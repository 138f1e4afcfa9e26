#!/usr/bin/env bash
# Lays siege to a ticketd of its own and compares what was answered 202 with the rows in PostgreSQL.
#
# Run from the checkout's root (`make test_load`) with DATABASE_URL and AMQP_URL set, and target/release/ticketd
# built. TIME is how long to load (30S, 2M), CONNECTIONS how many keep-alive connections, DRAIN how many seconds
# to wait for the rest when no new row comes. Exits 1 unless accepted = stored + dead.
#
# Why siege gets a number of repetitions and not a time: at its time limit siege cancels its users wherever they
# are, so a request that ticketd has already accepted may never be counted, and up to CONNECTIONS lost tickets
# could hide behind such requests. With repetitions every user waits for its last answer, and the counts are
# exact. A short siege before the real one tells how many repetitions fill the time.
set -euo pipefail

: "${DATABASE_URL:?is not set: run this by make test_load}" "${AMQP_URL:?is not set: run this by make test_load}"
TIME=${TIME:-30S}
CONNECTIONS=${CONNECTIONS:-100}
DRAIN=${DRAIN:-60}

TICKETD_BIN=${CARGO_TARGET_DIR:-target}/release/ticketd
WARM_UP_SECONDS=3
READY_SECONDS=60

work=$(mktemp -d)
ticketd_pid=

fail() {
    echo "test_load: $*" >&2
    exit 1
}

stop() {
    if [ -n "$ticketd_pid" ]; then
        kill "$ticketd_pid" 2>/dev/null || true
        wait "$ticketd_pid" || true
    fi
    rm -rf "$work"
}

# need COMMAND PACKAGE: installs the package when the command is missing and that is allowed.
need() {
    local as_root=()
    command -v "$1" >/dev/null && return
    [ "$(id -u)" -eq 0 ] || as_root=(sudo -n)
    if command -v apt-get >/dev/null && "${as_root[@]}" true 2>/dev/null; then
        echo "test_load: installing $2" >&2
        "${as_root[@]}" apt-get install -y -q "$2" >"$work/apt" 2>&1 || {
            "${as_root[@]}" apt-get update -q >"$work/apt" 2>&1
            "${as_root[@]}" apt-get install -y -q "$2" >"$work/apt" 2>&1
        } || cat "$work/apt" >&2
    fi
    command -v "$1" >/dev/null || fail "$1 is missing: install the package $2"
}

seconds() {
    local number=${1%[SMHsmh]}
    [[ $number =~ ^[1-9][0-9]*$ ]] || fail "TIME=$1 is not a time such as 30S, 2M or 1H"
    case $1 in
    *[Mm]) echo $((number * 60)) ;;
    *[Hh]) echo $((number * 3600)) ;;
    *) echo "$number" ;;
    esac
}

is_taken() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

free_port() {
    local port
    for _ in {1..100}; do
        port=$((20000 + RANDOM % 12000))
        is_taken "$port" || { echo "$port"; return; }
    done
    fail "found no free port on 127.0.0.1"
}

# Ready, and no part of it down: it takes tickets without its database, too, but the rows are to be counted.
is_ready() {
    local port=${TICKETD##*:} answer
    exec 3<>"/dev/tcp/127.0.0.1/$port" || return 1
    printf 'GET /readyz HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$TICKETD" >&3
    answer=$(timeout 5 cat <&3) || return 1
    exec 3>&-
    [[ $answer == "HTTP/1.1 200"* && $answer != *'"down"'* ]]
}

start_ticketd() {
    local deadline=$((SECONDS + READY_SECONDS))
    [ -x "$TICKETD_BIN" ] || fail "$TICKETD_BIN is missing: build it with cargo build --release"
    TICKETD=127.0.0.1:$(free_port)
    export TICKETD
    env -u ADMIN_LISTEN LAME_DUCK=0 LISTEN="$TICKETD" "$TICKETD_BIN" serve >"$work/ticketd.log" 2>&1 &
    ticketd_pid=$!
    until (is_ready) 2>/dev/null; do
        if ! kill -0 "$ticketd_pid" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
            tail -20 "$work/ticketd.log" >&2
            fail "ticketd did not become ready"
        fi
        sleep 0.2
    done
}

query() {
    psql -XAtq -F ' ' "$DATABASE_URL" -c "$1"
}

# Rows since the last call of mark: valid, invalid, dead.
rows() {
    query "select count(*) filter (where valid), count(*) filter (where not valid),
               (select count(*) from dead_tickets) - $dead_before
           from tickets where id > $id_before"
}

mark() {
    read -r id_before dead_before < <(query "select coalesce(max(id), 0), (select count(*) from dead_tickets)
                                             from tickets")
}

# Waits until this many tickets have arrived and no more come; sets valid, invalid and dead. Rows of an earlier
# load that was broken off may still be in the queue, hence the wait for no more.
wait_for_rows() {
    local last_growth=$SECONDS arrived=-1 before
    while :; do
        before=$arrived
        read -r valid invalid dead < <(rows)
        arrived=$((valid + invalid + dead))
        if [ "$arrived" -ne "$before" ]; then
            last_growth=$SECONDS
        elif [ "$arrived" -ge "$1" ] || [ $((SECONDS - last_growth)) -ge "$DRAIN" ]; then
            return
        fi
        sleep 1
    done
}

# lay_siege REPETITIONS: sets accepted, valid, invalid, dead, lost and the rate. ticketd answers a POST with no other
# success than 202, so what siege calls successful is what was accepted.
lay_siege() {
    local started=$EPOCHREALTIME
    mark
    siege --rc=loadtest/siegerc --benchmark --concurrent="$CONNECTIONS" --reps="$1" --file=loadtest/urls.txt \
        --content-type=text/plain >"$work/siege" 2>&1 || true
    rate=$(awk -v n="$(($1 * CONNECTIONS))" -v from="$started" -v to="$EPOCHREALTIME" 'BEGIN { print int(n / (to - from)) + 1 }')
    accepted=$(awk '/^Successful transactions:/ { print $3 }' "$work/siege")
    if [ -z "$accepted" ]; then
        tail -20 "$work/siege" >&2
        fail "siege gave no figures"
    fi
    wait_for_rows "$accepted"
    lost=$((accepted - valid - invalid - dead))
}

check_none_lost() {
    kill -0 "$ticketd_pid" 2>/dev/null || {
        tail -20 "$work/ticketd.log" >&2
        fail "ticketd ended during the load; what it had not stored yet is still in the queue"
    }
    [ "$lost" -eq 0 ] || fail "accepted is not stored + dead: $accepted answered 202, $valid + $invalid + $dead arrived"
}

trap stop EXIT
trap 'exit 1' INT TERM
need siege siege
need psql postgresql-client
load_seconds=$(seconds "$TIME")
# siege writes a configuration and cookies into the home folder.
export HOME=$work
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true

start_ticketd
mark
wait_for_rows 0
echo "test_load: warming up" >&2
lay_siege 20
check_none_lost
lay_siege $((rate * WARM_UP_SECONDS / CONNECTIONS + 1))
check_none_lost
echo "test_load: $CONNECTIONS connections for about $load_seconds s" >&2
lay_siege $((rate * load_seconds / CONNECTIONS + 1))

grep -m 5 error "$work/siege" >&2 || true
sed -n '/^Transactions:/,/^Shortest transaction:/p' "$work/siege"
printf '%-24s %12s\n' "accepted (202):" "$accepted" "stored, valid:" "$valid" "stored, invalid:" "$invalid" \
    "dead:" "$dead" "lost:" "$lost"
check_none_lost
