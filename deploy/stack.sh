#!/usr/bin/env bash
# A private PostgreSQL and a private RabbitMQ, of one node or three, for this checkout: free ports on loopback, data and logs under
# STACK_DIR, nothing shared with servers that already run on this machine. `stack.sh help` lists the commands.
#
# Which process is whose is never guessed from a recorded pid alone: a process is ours when it has the name of one of
# the server's programs and works in this stack's data folder, or has it as its HOME. A pid that was given to somebody
# else is left alone.
set -euo pipefail

# A minimal environment may lack PATH, or the system's part of it.
PATH=${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
# The servers get this one: the caller's may name folders that their user cannot read.
readonly SERVER_PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

SELF=$(realpath "${BASH_SOURCE[0]}")
DEPLOY_DIR=$(dirname "$SELF")
STACK_DIR=$(realpath -m "${STACK_DIR:-$(dirname "$DEPLOY_DIR")/.stack}")
readonly SELF DEPLOY_DIR STACK_DIR
readonly LOG_DIR=$STACK_DIR/log TLS_DIR=$STACK_DIR/tls

# Below the range that outgoing connections use, so that no client's socket sits on a server's port.
readonly PORT_MIN=20000 PORT_COUNT=10000
# A server whose port was taken between the choice and the start is tried again with another one.
readonly START_ATTEMPTS_MAX=3 START_DEADLINE_S=300 STOP_DEADLINE_S=60 LOCK_DEADLINE_S=900
# Under this much free disk the broker's own limit is near.
readonly DISK_FREE_WARN_KB=1000000

readonly RABBITMQ_PROGRAMS="rabbitmq-server erl erlexec beam.smp erl_child_setup inet_gethost cpu_sup memsup"
# The names, as the kernel shows them, of the processes that each server consists of.
declare -rA PROGRAMS=(
  [postgres]="postgres"
  [standby]="postgres"
  [rabbitmq]="$RABBITMQ_PROGRAMS"
  [rabbitmq2]="$RABBITMQ_PROGRAMS"
  [rabbitmq3]="$RABBITMQ_PROGRAMS"
  [epmd]="epmd"
)
# In the order in which they are stopped.
readonly SERVERS=(rabbitmq rabbitmq2 rabbitmq3 postgres standby)
declare -A PORT=() SPAWNED=()
PLACE='' AS_SERVER=()

usage() {
  cat <<'TEXT'
usage: deploy/stack.sh COMMAND

  up [postgres|rabbitmq]     start what is not running; installs missing servers with apt-get where allowed
  up standby                 give the private PostgreSQL a synchronous standby: a COMMIT waits for both from then on
  NODES=3 up                 the same, and three nodes of RabbitMQ as one cluster: rabbitmq, rabbitmq2 and rabbitmq3
  promote                    have the standby take writes, once the first server is gone
  down [postgres|standby|rabbitmq|rabbitmq2|rabbitmq3]
                             stop what `up` started; the data stays
  env                        print the shell lines that export DATABASE_URL and AMQP_URL, which name all servers
  status                     one line per server; exit code 3 when one is down
  ctl ARGUMENT...            rabbitmqctl against this stack's broker: the first node that runs
  tool NODE NAME ARGUMENT... another of RabbitMQ's tools, such as rabbitmq-queues, against a node
  wipe                       down, then delete the data

STACK_DIR names the folder of the stack (default: .stack in the checkout); another folder is another stack. A server
whose DATABASE_URL or AMQP_URL is set in the environment is used as it is, and `up` does not start one in its place.
TEXT
}

say() { printf 'stack: %s\n' "$*" >&2; }

die() {
  say "$*"
  exit 1
}

# ---- Whose URLs ------------------------------------------------------------------------------------------------------

# Prints the URL that the user has set for a server. One that an earlier `env` exported is ours, not the user's:
# without the difference, `up` in a shell that has evaluated `env` would start nothing.
user_url() {
  local url
  case $1 in
    postgres) url=${DATABASE_URL:-} ;;
    rabbitmq) url=${AMQP_URL:-${RABBITMQ_URL:-}} ;;
  esac
  [[ -n $url && " ${STACK_URLS:-} " != *" $url "* ]] || return 1
  printf '%s\n' "$url"
}

# ---- Where the data is, and who runs the servers ---------------------------------------------------------------------

# The data folder for a STACK_DIR that the servers' user cannot reach, such as one below /root.
fallback_place() {
  local hash
  hash=$(printf '%s' "$STACK_DIR" | sha256sum)
  printf '/var/tmp/ticketd-stack-%s\n' "${hash:0:16}"
}

# Finds the data of a stack that has been up before. A link to another stack's folder comes with a copied checkout.
find_place() {
  local data=$STACK_DIR/data owner
  [[ -d $data ]] || return 1
  [[ ! -L $data || $(readlink "$data") == "$(fallback_place)" ]] || return 1
  PLACE=$(realpath "$data")
  owner=$(stat -c %u "$PLACE")
  ((owner != 0)) || die "$PLACE belongs to root, and PostgreSQL refuses to run as root"
  ((EUID == 0 || EUID == owner)) ||
    die "$PLACE belongs to $(stat -c %U "$PLACE"): use root or that user, or set another STACK_DIR"
  run_as "$owner" "$(stat -c %g "$PLACE")"
}

# PostgreSQL refuses to run as root, and the broker need not.
run_as() {
  AS_SERVER=()
  ((EUID != 0)) || AS_SERVER=(setpriv --reuid "$1" --regid "$2" --clear-groups --)
}

make_place() {
  local user='' place
  if ((EUID == 0)); then
    for user in postgres nobody; do ! id -u "$user" >/dev/null 2>&1 || break; done
    id -u "$user" >/dev/null 2>&1 || die "root needs an unprivileged user to run the servers as: add one named postgres"
    run_as "$(id -u "$user")" "$(id -g "$user")"
  fi
  [[ ! -L $STACK_DIR/data ]] || rm "$STACK_DIR/data"
  place=$(fallback_place)
  if try_place "$STACK_DIR/data" "$user"; then
    PLACE=$(realpath "$STACK_DIR/data")
  elif try_place "$place" "$user"; then
    PLACE=$(realpath "$place")
    ln -s "$place" "$STACK_DIR/data"
    say "the data is in $place, as ${user:-the servers} cannot use $STACK_DIR"
  else
    die "no folder for the data: neither $STACK_DIR nor /var/tmp can be used by ${user:-this user}"
  fi
}

# Makes a folder that is the servers' alone; fails where they cannot reach it, where the file system knows no
# permissions, or where the path has a character that some start script splits at.
try_place() {
  local place=$1 user=$2
  [[ ! $place =~ [^A-Za-z0-9._/+-] ]] || return 1
  [[ -d $place && ! -L $place ]] || mkdir -m 700 "$place" 2>/dev/null || return 1
  [[ -z $user ]] || chown "$user:" "$place" 2>/dev/null || true
  if [[ $(stat -c '%a %u' "$place") == "700 $(id -u ${user:+"$user"})" ]] && as_server test -w "$place"; then
    return 0
  fi
  rmdir "$place" 2>/dev/null || true
  return 1
}

as_server() { "${AS_SERVER[@]}" "$@"; }

# Writes standard input to a file as the servers' user: root follows no link that this user may have planted.
# shellcheck disable=SC2016 # The inner shell expands it.
write_as_server() { as_server sh -c 'umask 077 && cat >"$1"' sh "$1"; }

# ---- Processes and ports ---------------------------------------------------------------------------------------------

# True when the process is one of the server's: see the top of this file.
belongs() {
  local pid=$1 server=$2 name
  { read -r name <"/proc/$pid/comm"; } 2>/dev/null || return 1
  [[ " ${PROGRAMS[$server]} " == *" $name "* ]] || return 1
  [[ ! /proc/$pid/cwd -ef $PLACE/$server ]] || return 0
  # An epmd that a node has started, when ours was killed, works in the root folder.
  [[ $name == epmd ]] && grep -qszxF "${RABBITMQ_NODES[@]/#/-eHOME=$PLACE/}" "/proc/$pid/environ"
}

processes() {
  local entry
  for entry in /proc/[0-9]*; do
    ! belongs "${entry##*/}" "$1" || printf '%s\n' "${entry##*/}"
  done
}

# Prints the pid of the running server: the postmaster, or the broker's beam.smp.
server_pid() { "$1_pid"; }

# Prints the kernel's numbers of the sockets that listen on a port, on any address.
listeners() {
  local hex
  printf -v hex '%04X' "$1"
  cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v port=":$hex\$" '$4 == "0A" && $2 ~ port { print $10 }'
}

# True when the process listens on the port: that something does would not be enough.
listens() {
  local pid=$1 inode
  for inode in $(listeners "$2"); do
    [[ -z $(find "/proc/$pid/fd" -lname "socket:\\[$inode\\]" 2>/dev/null) ]] || return 0
  done
  return 1
}

read_ports() {
  local name port
  [[ -r $STACK_DIR/ports ]] || return 0
  while read -r name port; do PORT[$name]=$port; done <"$STACK_DIR/ports"
}

# Keeps a remembered port, so that clients find a restarted server again, unless somebody else now listens there.
# To be called only while the server that uses the port is down.
choose_port() {
  local name=$1 port=${PORT[$1]:-} other
  unset "PORT[$name]"
  while [[ -z $port || " ${PORT[*]} " == *" $port "* || -n $(listeners "$port") ]]; do
    port=$((PORT_MIN + RANDOM % PORT_COUNT))
  done
  PORT[$name]=$port
  for other in "${!PORT[@]}"; do printf '%s %s\n' "$other" "${PORT[$other]}"; done >"$STACK_DIR/ports.new"
  mv "$STACK_DIR/ports.new" "$STACK_DIR/ports"
}

# Starts a program in its own session, so that it outlives the caller's shell, with none of the caller's descriptors,
# so that nothing waits for it: `$(stack.sh up)` ends when `up` does.
spawn() {
  local name=$1 dir=$2 log=$LOG_DIR/$1.log
  shift 2
  [[ ! -s $log ]] || mv "$log" "$log.1"
  (
    cd "$dir"
    for fd in /proc/self/fd/*; do
      fd=${fd##*/}
      ((fd <= 2)) || exec {fd}>&-
    done
    raise_descriptor_limit
    exec setsid "${AS_SERVER[@]}" env -i "PATH=$SERVER_PATH" "HOME=$dir" LANG=C.UTF-8 "$@"
  ) </dev/null >>"$log" 2>&1 &
  SPAWNED[$name]=$!
  # Its end is told by us, not by the shell.
  disown
}

# Thousands of connections need as many descriptors; without a bound, the Erlang VM sizes tables by the limit.
raise_descriptor_limit() {
  local hard
  hard=$(ulimit -H -n)
  [[ $hard != unlimited ]] && ((hard < 65536)) || hard=65536
  ulimit -S -n "$hard"
}

# Waits for a condition, given as a command.
wait_until() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

gone() { [[ -z $(processes "$1") ]]; }

kill_processes() {
  local pids
  mapfile -t pids < <(processes "$1")
  ((${#pids[@]})) || return 0
  kill -KILL "${pids[@]}" 2>/dev/null || true
  wait_until 10 gone "$1" || die "processes of $1 do not end: $(processes "$1" | tr '\n' ' ')"
}

# ---- Certificates ----------------------------------------------------------------------------------------------------

# The servers speak TLS, too, so that tests can: a CA of this stack's own, a certificate for the name localhost (not for
# 127.0.0.1, by which its plain side is named), and one for a client called certified.
make_certificates() {
  ! openssl x509 -in "$TLS_DIR/certified.pem" -noout -checkend 604800 >/dev/null 2>&1 || return 0
  "$DEPLOY_DIR/certificates.sh" ca "$TLS_DIR"
  "$DEPLOY_DIR/certificates.sh" server "$TLS_DIR" localhost localhost
  "$DEPLOY_DIR/certificates.sh" client "$TLS_DIR" certified
}

# Gives a server what it needs of that, in a folder of its own.
give_certificates() {
  local dir=$1
  make_certificates
  write_as_server "$dir/root.crt" <"$TLS_DIR/ca.pem"
  write_as_server "$dir/server.crt" <"$TLS_DIR/localhost.pem"
  write_as_server "$dir/server.key" <"$TLS_DIR/localhost.key"
}

# shellcheck source-path=SCRIPTDIR source=stack/postgres.sh
source "$DEPLOY_DIR/stack/postgres.sh"
# shellcheck source-path=SCRIPTDIR source=stack/rabbitmq.sh
source "$DEPLOY_DIR/stack/rabbitmq.sh"

# ---- Commands --------------------------------------------------------------------------------------------------------

# One at a time: `up` beside `up` or `down` waits for its turn. The lock is on the folder itself and ends with us.
lock_stack() {
  local lock=''
  # Again, when a `wipe` that held the lock has deleted the folder meanwhile.
  until [[ -n $lock && /proc/self/fd/$lock -ef $STACK_DIR ]]; do
    # The servers' user must be able to pass through to its data; what is in there has its own permissions.
    [[ -d $STACK_DIR ]] || { mkdir -p "$STACK_DIR" && chmod a+x "$STACK_DIR"; }
    exec {lock}<"$STACK_DIR"
    flock -w "$LOCK_DEADLINE_S" "$lock" || die "another stack.sh holds $STACK_DIR"
  done
  mkdir -p "$LOG_DIR"
}

show_log() {
  local log=$LOG_DIR/$1.log
  [[ ! -s $log ]] || { say "the end of $log:" && tail -n 40 "$log" >&2; }
}

check_server_names() {
  local name
  for name in "$@"; do
    [[ " ${SERVERS[*]} " == *" $name "* ]] || die "unknown server: $name (${SERVERS[*]})"
  done
  [[ ${NODES:-1} =~ ^[13]$ ]] || die "NODES is 1 or 3: two nodes could spare none"
}

warn_of_full_disk() {
  local free
  free=$(df --output=avail -k "$PLACE" | tail -n 1)
  ((free >= DISK_FREE_WARN_KB)) ||
    say "only $((free / 1000)) MB free in $PLACE: the broker refuses messages below 256 MB"
}

# Waits until the server is ready. One that lost its port to somebody else is launched again, on another one.
await_server() {
  local server=$1 attempt pid
  for ((attempt = 1; ; attempt++)); do
    pid=${SPAWNED[$server]:-$(server_pid "$server")} || pid=''
    ! wait_until "$START_DEADLINE_S" settled "$server" "$pid" || ! "ready_$server" || return 0
    if ((attempt == START_ATTEMPTS_MAX)) || ! port_was_lost "$server"; then
      show_log "$server"
      kill_processes "$server"
      die "$server did not start"
    fi
    "launch_$server"
  done
}

# True when there is nothing left to wait for: it is ready, or it has ended.
settled() { "ready_$1" || [[ -z $2 || ! -d /proc/$2 ]]; }

# True when the server has ended and somebody else listens on one of its ports.
port_was_lost() {
  local name names=("$1") number=${1#rabbitmq}
  [[ $1 != rabbitmq* ]] || names=("amqp$number" "amqps$number" "dist$number")
  ! server_pid "$1" >/dev/null || return 1
  for name in "${names[@]}"; do [[ -z $(listeners "${PORT[$name]}") ]] || return 0; done
  return 1
}

install_missing() {
  local server packages=()
  for server in "$@"; do
    case $server in
      postgres | standby) newest_postgres >/dev/null || packages+=(postgresql) ;;
      rabbitmq*) [[ -x $RABBITMQ_BIN/rabbitmq-server ]] || packages+=(rabbitmq-server) ;;
    esac
  done
  ((${#packages[@]})) || return 0
  "$DEPLOY_DIR/stack/install.sh" "${packages[@]}" ||
    die "PostgreSQL (13 or newer) is looked for below /usr/lib/postgresql, RabbitMQ (3.10 or newer) below" \
      "/usr/lib/rabbitmq; servers elsewhere can be named by DATABASE_URL and AMQP_URL"
}

up() {
  local server servers=("$@")
  check_server_names "$@"
  (($#)) || mapfile -t servers < <(default_servers)
  ((${#servers[@]})) || { say "DATABASE_URL and AMQP_URL are set: nothing to start" && return 0; }
  install_missing "${servers[@]}"
  lock_stack
  read_ports
  find_place || make_place
  warn_of_full_disk
  [[ ${NODES:-1} == 1 || -d $PLACE/rabbitmq2 ]] || ! server_pid rabbitmq >/dev/null ||
    die "RabbitMQ runs as a single node: run $SELF down rabbitmq before it becomes one of three"
  # All are launched before any is waited for: the broker boots while the database is made.
  for server in "${servers[@]}"; do
    server_pid "$server" >/dev/null || "launch_$server"
  done
  for server in "${servers[@]}"; do "up_$server"; done
}

# Those that the user has none of. A standby that was made belongs to its first server, whose COMMITs wait for it; once
# it was promoted, the first server is behind and must not take writes again.
default_servers() {
  local has_place=''
  ! find_place || has_place=1
  user_url rabbitmq >/dev/null || nodes
  ! user_url postgres >/dev/null || return 0
  if [[ -n $has_place && -s $PLACE/standby/PG_VERSION ]]; then
    printf 'standby\n'
    [[ -e $PLACE/standby/standby.signal ]] || return 0
  elif [[ ${NODES:-1} == 3 ]]; then
    printf 'standby\n'
  fi
  printf 'postgres\n'
}

up_postgres() {
  await_server postgres
  say "postgres: up, pid $(server_pid postgres), port ${PORT[postgres]}"
}

up_standby() {
  await_server standby
  follow_standby
  say "standby: up, pid $(server_pid standby), port ${PORT[standby]}"
}

# Has the standby take writes. The first server must be gone: two that take writes would go different ways.
promote() {
  read_ports
  if ! find_place || ! server_pid standby >/dev/null; then
    die "there is no standby: run $SELF up standby"
  fi
  ! server_pid postgres >/dev/null || die "the first server still runs: run $SELF down postgres"
  promote_standby
}

down() {
  local server servers=("$@") stopping=()
  ((${#servers[@]})) || servers=("${SERVERS[@]}")
  check_server_names "${servers[@]}"
  [[ -d $STACK_DIR ]] || { say "nothing is running" && return 0; }
  lock_stack
  find_place || { say "nothing is running" && return 0; }
  # All are asked before any is waited for.
  for server in "${servers[@]}"; do
    if gone "$server"; then
      [[ ! -d $PLACE/$server ]] || say "$server: not running"
    else
      ask_to_stop "$server"
      stopping+=("$server")
    fi
  done
  for server in "${stopping[@]}"; do stop "$server"; done
  [[ -n $(running_nodes) ]] || kill_processes epmd
}

# Stopped processes are woken first: they could neither end nor let their parent end.
ask_to_stop() {
  local pid pids
  mapfile -t pids < <(processes "$1")
  ((${#pids[@]} == 0)) || kill -CONT "${pids[@]}" 2>/dev/null || true
  ! pid=$(server_pid "$1") || "ask_$1_to_stop" "$pid"
}

stop() {
  local server=$1
  wait_until "$STOP_DEADLINE_S" server_ended "$server" || say "$server: does not stop by itself, killing it"
  # What is left: helpers that end with the server, and whatever a killed server left behind.
  kill_processes "$server"
  say "$server: down"
}

server_ended() { ! server_pid "$1" >/dev/null; }

quote() { printf "'%s'" "${1//\'/\'\\\'\'}"; }

print_env() {
  local database amqp
  read_ports
  if ! database=$(user_url postgres); then
    [[ -n ${PORT[postgres]:-} ]] || die "no private PostgreSQL yet: run $SELF up"
    # Said, as the server offers TLS, which would be taken by default.
    database="postgres://ticketd@127.0.0.1:${PORT[postgres]}${PORT[standby]:+,127.0.0.1:${PORT[standby]}}/ticketd?sslmode=disable"
  fi
  if ! amqp=$(user_url rabbitmq); then
    [[ -n ${PORT[amqp]:-} ]] || die "no private RabbitMQ yet: run $SELF up"
    amqp=$(node_urls amqp 127.0.0.1)
  fi
  printf 'export DATABASE_URL=%s AMQP_URL=%s\n' "$(quote "$database")" "$(quote "$amqp")"
  # Where TLS is spoken; a server of the user's own has another port, or none.
  [[ -z ${PORT[amqps]:-} ]] ||
    printf 'export AMQPS_URL=%s\n' "$(quote "$(node_urls amqps localhost)")"
  printf 'export STACK_TLS_DIR=%s\n' "$(quote "$TLS_DIR")"
  printf 'export STACK_DIR=%s STACK_URLS=%s\n' "$(quote "$STACK_DIR")" "$(quote "$(own_urls "$database" "$amqp")")"
}

# The URLs of all nodes, with commas between.
node_urls() {
  local scheme=$1 host=$2 number urls=''
  for number in '' 2 3; do
    [[ -z ${PORT[$scheme$number]:-} ]] || urls+=${urls:+,}$scheme://guest:guest@$host:${PORT[$scheme$number]}/%2f
  done
  printf '%s\n' "$urls"
}

# Those of the URLs that are not the user's own: see user_url.
own_urls() {
  local own=()
  user_url postgres >/dev/null || own+=("$1")
  user_url rabbitmq >/dev/null || own+=("$2")
  printf '%s' "${own[*]}"
}

status() {
  local pid node number code=0
  read_ports
  find_place || PLACE=$STACK_DIR/data
  if pid=$(server_pid postgres); then
    printf 'postgres pid=%s port=%s data=%s log=%s\n' "$pid" "${PORT[postgres]}" \
      "$PLACE/postgres" "$LOG_DIR/postgres.log"
  else
    printf 'postgres down\n' && code=3
  fi
  ! pid=$(server_pid standby) || printf 'standby pid=%s port=%s data=%s log=%s\n' "$pid" "${PORT[standby]}" \
    "$PLACE/standby" "$LOG_DIR/standby.log"
  for node in $(nodes); do
    number=${node#rabbitmq}
    if pid=$(server_pid "$node"); then
      printf '%s pid=%s port=%s tls_port=%s data=%s log=%s epmd_pid=%s epmd_port=%s dist_port=%s\n' "$node" "$pid" \
        "${PORT[amqp$number]}" "${PORT[amqps$number]}" "$PLACE/$node" "$LOG_DIR/$node.log" "$(epmd_pid)" \
        "${PORT[epmd]}" "${PORT[dist$number]}"
    else
      printf '%s down\n' "$node" && code=3
    fi
  done
  return "$code"
}

ctl() {
  local nodes=()
  read_ports
  ! find_place || mapfile -t nodes < <(running_nodes)
  ((${#nodes[@]})) || die "rabbitmq is down: run $SELF up rabbitmq"
  rabbitmq_tool "${nodes[0]}" rabbitmqctl "$@"
}

tool() {
  (($# >= 2)) || die "tool wants a node and the name of a tool"
  check_server_names "$1"
  [[ $2 == rabbitmq* && $2 != */* && -x $RABBITMQ_BIN/$2 ]] || die "not one of RabbitMQ's tools: $2"
  read_ports
  if ! find_place || ! server_pid "$1" >/dev/null; then
    die "$1 is down: run $SELF up $1"
  fi
  rabbitmq_tool "$@"
}

# Deletes by name, so that a STACK_DIR set to a folder with other things in it keeps them.
wipe() {
  local name
  down "${SERVERS[@]}"
  [[ -d $STACK_DIR ]] || return 0
  if [[ -n $PLACE ]]; then
    rm -rf "$PLACE"/{postgres,standby}{,.new} "$PLACE"/{rabbitmq{,2,3},epmd}
    rmdir "$PLACE"
  fi
  [[ ! -L $STACK_DIR/data ]] || rm "$STACK_DIR/data"
  for name in initdb postgres basebackup standby epmd rabbitmq{,2,3}; do rm -f "$LOG_DIR/$name.log" "$LOG_DIR/$name.log.1"; done
  rm -f "$STACK_DIR/ports" "$TLS_DIR"/{ca,localhost,certified}.{key,pem}
  [[ ! -d $TLS_DIR ]] || rmdir "$TLS_DIR"
  rmdir "$LOG_DIR" "$STACK_DIR" 2>/dev/null || true
}

main() {
  local command=${1:-help}
  shift || true
  case $command in
    up | down | promote | ctl | tool | wipe | status) "$command" "$@" ;;
    env) print_env ;;
    help | -h | --help) usage ;;
    *) usage >&2 && exit 2 ;;
  esac
}

main "$@"
