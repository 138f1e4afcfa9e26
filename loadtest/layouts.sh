#!/usr/bin/env bash
# Measures ticketd with one and three nodes of RabbitMQ, and with and without a standby of PostgreSQL, each with all
# cores for everybody, and with the roles on one core each. Each layout is a stack of its own, taken away afterwards.
# Prints nothing but what goes wrong; the figures are files in the folder that is named.
set -euo pipefail

FOLDER=$(realpath -m "${1:?usage: layouts.sh FOLDER TICKETD LOADTEST}")
TICKETD=$(realpath "${2:?}")
LOADTEST=$(realpath "${3:?}")
HERE=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
readonly FOLDER TICKETD LOADTEST HERE STACK=$HERE/deploy/stack.sh ROUNDS=${ROUNDS:-3} SECONDS_EACH=${SECONDS_EACH:-6}
readonly LISTEN=127.0.0.1:18080 ADMIN_ACCEPT=127.0.0.1:18081 ADMIN_CONSUME=127.0.0.1:18082 READY_S=30

ROLES=()

end_roles() {
  [[ ${#ROLES[@]} == 0 ]] || kill -TERM "${ROLES[@]}" 2>/dev/null || true
  [[ ${#ROLES[@]} == 0 ]] || wait "${ROLES[@]}" 2>/dev/null || true
  ROLES=()
}

end_all() {
  end_roles
  "$STACK" wipe >/dev/null 2>&1 || true
}

sql() { psql "$DATABASE_URL" -qAtX -v ON_ERROR_STOP=1 -c "$1"; }

# Whether the role of this admin listener is ready.
is_ready() {
  local status
  {
    printf 'GET /readyz HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$1" >&3
    read -r status <&3
  } 3<>"/dev/tcp/${1/://}" && [[ $status == *' 200 '* ]]
}

# Waits until a role is ready.
ready() {
  local until=$((SECONDS + READY_S))
  until is_ready "$1" 2>/dev/null; do
    ((SECONDS < until)) || { echo "layouts.sh: $1 is not ready" >&2 && return 1; }
    sleep 0.1
  done
}

# Confines a process, and all that it has started, to some cores.
confine() {
  local child
  taskset -acp "$1" "$2" >/dev/null 2>&1 || true
  for child in $(pgrep -P "$2"); do confine "$1" "$child"; done
}

# The servers' processes: NAME=PID each.
servers() { "$STACK" status | sed -nE 's/^(postgres|standby|rabbitmq[0-9]*) pid=([0-9]+) .*/\1=\2/p'; }

# One run: brokers, standbys, hosts or -, and the cores of accept and of everything else.
measure() {
  local brokers=$1 standbys=$2 hosts=$3 front=$4 back=$5 round=$6 name file before wal stored rows part parts=()
  name=layout_${brokers}_${standbys}_${round}_${#hosts}
  file=$name.json
  sql "create schema $name"
  local database="$DATABASE_URL&options=-csearch_path%3D$name"
  DATABASE_URL=$database QUEUE=$name LAME_DUCK=0 ADMIN_LISTEN=$ADMIN_CONSUME \
    taskset -c "$back" "$TICKETD" consume >"$FOLDER/$name.consume.log" 2>&1 &
  ROLES+=($!) && parts+=("--pid=consume=$!")
  ready "$ADMIN_CONSUME"
  env -u DATABASE_URL QUEUE="$name" LAME_DUCK=0 LISTEN=$LISTEN ADMIN_LISTEN=$ADMIN_ACCEPT \
    taskset -c "$front" "$TICKETD" accept >"$FOLDER/$name.accept.log" 2>&1 &
  ROLES+=($!) && parts+=("--pid=accept=$!")
  ready "$ADMIN_ACCEPT"
  for part in $(servers); do
    confine "$back" "${part#*=}"
    parts+=("--pid=$part")
  done
  before=$(sql 'select pg_current_wal_lsn()')
  taskset -c "$front" "$LOADTEST" run --url "http://$LISTEN/ticket" --connections 1000 --duration "${SECONDS_EACH}s" \
    --database "$database" --json "$FOLDER/$file" "${parts[@]}" >"$FOLDER/$name.log"
  rows=$(sql "select count(*) from $name.tickets")
  wal=$(sql "select round((pg_current_wal_lsn() - '$before'::pg_lsn) / $rows.0)")
  stored=$(sql "select round(sum(pg_total_relation_size(oid)) / $rows.0) from pg_class
    where relnamespace = '$name'::regnamespace and relname like 'tickets%' and relkind = 'r'")
  end_roles
  sql "set client_min_messages = warning; drop schema $name cascade"
  "$STACK" ctl --quiet delete_queue "$name" >/dev/null 2>&1 || true
  printf '%s\n' "$brokers $standbys $hosts $file $wal $stored" >>"$FOLDER/runs"
}

# A layout: brokers, standbys.
layout() {
  local round cores
  cores=0-$(($(nproc) - 1))
  export STACK_DIR=$FOLDER/stack_$1_$2 NODES=$1
  unset DATABASE_URL AMQP_URL
  "$STACK" up >/dev/null 2>&1
  (($2 == 0)) || "$STACK" up standby >/dev/null 2>&1
  eval "$("$STACK" env)"
  for ((round = 1; round <= ROUNDS; round++)); do
    measure "$1" "$2" - "$cores" "$cores" "$round"
    measure "$1" "$2" load+accept=1,consume+rabbitmq+postgres+standby=1 0 1 "$round"
  done
  "$STACK" wipe >/dev/null 2>&1
}

trap end_all EXIT
mkdir -p "$FOLDER"
: >"$FOLDER/runs"
layout 1 0
layout 1 1
layout 3 1
