#!/usr/bin/env bash
# usage: deploy/compose_check.sh
#
# Tries docker-compose.yml on a Docker engine: builds it from a copy of this checkout that only its owner can read,
# brings it up, and restarts, kills, replaces and rebuilds its parts under a trickle of tickets, each of which must be
# one row at the end. Everything belongs to a project of its own and is gone at the end, however it ends; only the
# engine's build cache and the images from elsewhere stay. Exits 1 at the first thing that is not as it should be, and
# where there is no engine.
set -euo pipefail

ROOT=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
PROJECT=ticketd-check-$$
WORK=$(mktemp -d)
COPY=$WORK/checkout
readonly ROOT PROJECT WORK COPY
readonly SERVICES=(ticketd postgres rabbitmq)
# What the images are made from, and what describes them.
readonly SOURCES=(Dockerfile .dockerignore docker-compose.yml Cargo.toml Cargo.lock schema.sql src benches deploy)
# The servers' first start is the longest wait; a ticket waits for RabbitMQ's restart at most.
readonly HEALTHY_S=180 TICKET_S=120 STORED_S=60

# Not those of the caller, who may have an installation of his own.
export POSTGRES_PASSWORD=first RABBITMQ_PASSWORD=first TICKETD_PORT PROMETHEUS_PORT GRAFANA_PORT

trickle_pid=''

say() { printf 'compose_check: %4d s  %s\n' "$SECONDS" "$*" >&2; }

die() {
  say "$*"
  exit 1
}

compose() {
  docker compose --project-name "$PROJECT" --project-directory "$COPY" --file "$COPY/docker-compose.yml" "$@"
}

# Says the end of what a command wrote only where it failed.
quietly() {
  "$@" >"$WORK/log" 2>&1 </dev/null || {
    tail -n 40 "$WORK/log" >&2
    die "failed: $*"
  }
}

clean_up() {
  local image
  trap - EXIT
  [[ -z $trickle_pid ]] || kill "$trickle_pid" 2>/dev/null || true
  [[ ! -d $COPY ]] || compose --profile observability down --volumes --remove-orphans --rmi local --timeout 5 >/dev/null 2>&1 || true
  # Images that a later build has replaced have no name left by which they could be found.
  while read -r image; do
    [[ $(docker image inspect --format '{{len .RepoTags}}' "$image" 2>/dev/null) != 0 ]] ||
      docker image rm "$image" >/dev/null 2>&1 || true
  done < <(sort -u "$WORK/images" 2>/dev/null)
  rm -rf "$WORK"
}

# ---- What is needed --------------------------------------------------------------------------------------------------

need_engine() {
  local version why tool
  for tool in docker curl readelf; do
    command -v "$tool" >/dev/null || die "nothing was checked: $tool is missing"
  done
  version=$(docker compose version --short 2>/dev/null) ||
    die "nothing was checked: docker has no compose command, so Compose v2 is missing"
  version=${version#v}
  ((${version%%.*} >= 2)) || die "nothing was checked: Compose $version is too old, it must be 2 or later"
  why=$(docker version --format '{{.Server.Version}}' 2>&1) ||
    die "nothing was checked: no Docker engine answers: ${why##*$'\n'}"
  say "Docker $why, Compose $version"
}

is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Three in a row.
choose_ports() {
  local first
  for ((;;)); do
    first=$((20000 + RANDOM % 10000))
    is_taken "$first" || is_taken $((first + 1)) || is_taken $((first + 2)) || break
  done
  TICKETD_PORT=$first PROMETHEUS_PORT=$((first + 1)) GRAFANA_PORT=$((first + 2))
}

# As after `umask 077` and `git clone`.
copy_checkout() (
  umask 077
  mkdir "$COPY"
  cd "$ROOT"
  cp -R --no-preserve=mode "${SOURCES[@]}" "$COPY"
)

# ---- Looking ---------------------------------------------------------------------------------------------------------

container() { compose ps --all --quiet "$1"; }

# Prints one thing about a service's container, by Docker's template.
inspect() { docker inspect --format "$2" "$(container "$1")"; }

health() { docker inspect --format '{{.State.Health.Status}}' "$1" 2>/dev/null; }

# is NAME WANTED FOUND
is() { [[ $3 == "$2" ]] || die "$1: $3, not $2"; }

await_container() {
  local name=$1 id=$2 deadline=$((SECONDS + HEALTHY_S))
  until [[ -n $id && $(health "$id") == healthy ]]; do
    if ((SECONDS >= deadline)); then
      docker inspect --format '{{json .State}}' "$id" >&2 || true
      docker logs --tail 30 "$id" >&2 || true
      die "$name does not become healthy"
    fi
    sleep 1
  done
}

await_services() {
  local service
  for service in "${SERVICES[@]}"; do await_container "$service" "$(container "$service")"; done
  for service in "${SERVICES[@]}"; do inspect "$service" '{{.Image}}' >>"$WORK/images"; done
}

up() {
  quietly compose up --detach
  await_services
}

psql_stdin() { compose exec -T postgres psql -XAtq --set=ON_ERROR_STOP=1 --username=ticketd --dbname=ticketd; }

query() { psql_stdin <<<"$1"; }

rabbitmq_says() { compose exec -T rabbitmq rabbitmqctl --quiet eval "$1" </dev/null | tr -d '\r'; }

# ---- Tickets ---------------------------------------------------------------------------------------------------------

# Sends a ticket until it is answered 202, and keeps its id; the key makes it the same ticket each time.
post() {
  local key=$1 answer deadline=$((SECONDS + TICKET_S))
  local ticket='Order: 1\nVAT: 0.10\nTotal: 1.20\n\nproduct,product_id,price\nTea,t-1,1.20\n'
  until answer=$(printf '%b' "$ticket" |
    curl --silent --fail --max-time 10 --header "Idempotency-Key: $PROJECT-$key" --data-binary @- \
      "http://127.0.0.1:$TICKETD_PORT/ticket"); do
    ((SECONDS < deadline)) || die "a ticket is not taken for $TICKET_S s"
    sleep 0.2
  done
  [[ $answer =~ \"id\":\"([0-9a-f-]{36})\" ]] || die "an answer without an id: $answer"
  printf '%s\n' "${BASH_REMATCH[1]}" >>"$WORK/ledger"
}

# One after the other, until told that it is enough.
trickle() {
  local number=0
  until [[ -e $WORK/enough ]]; do
    number=$((number + 1))
    post "$1-$number"
    sleep 0.05
  done
}

start_trickle() {
  rm -f "$WORK/enough"
  trickle "$1" &
  trickle_pid=$!
}

end_trickle() {
  local pid=$trickle_pid
  touch "$WORK/enough"
  trickle_pid=''
  wait "$pid" || die "the trickle of tickets broke off"
}

# Every ticket that was answered 202 is one row, and there are no others.
all_stored() {
  local sent found='' deadline=$((SECONDS + STORED_S))
  sent=$(wc -l <"$WORK/ledger")
  until [[ $found == "$sent $sent $sent" ]]; do
    ((SECONDS < deadline)) || die "$sent tickets accepted; rows, those of them that were sent, different ids: $found"
    [[ -z $found ]] || sleep 1
    found=$({
      printf 'create temp table sent (id uuid);\ncopy sent from stdin;\n'
      cat "$WORK/ledger"
      printf '\\.\n%s\n' "select concat_ws(' ', (select count(*) from tickets), count(*), count(distinct ticket_id))
        from tickets join sent on ticket_id = sent.id;"
    } | psql_stdin) || die "PostgreSQL does not say what it has stored"
  done
  say "$sent tickets accepted, each stored once"
}

# ---- The checks ------------------------------------------------------------------------------------------------------

comes_up() {
  quietly compose config --quiet
  quietly compose build
  say "built, $(($(docker image inspect --format '{{.Size}}' "$PROJECT-ticketd") / 1000000)) MB"
  up
  say "healthy"
  post first
  all_stored
}

has_its_settings() {
  is max_wal_size 4GB "$(query 'show max_wal_size')"
  is synchronous_commit on "$(query 'show synchronous_commit')"
  is 'mode of postgresql.conf' 644 "$(compose exec -T postgres stat --format=%a /etc/postgresql.conf </dev/null)"
  is raft.wal_max_size_bytes '{ok,256000000}' "$(rabbitmq_says 'application:get_env(ra, wal_max_size_bytes).')"
  is wal_write_strategy '{ok,o_sync}' "$(rabbitmq_says 'application:get_env(ra, wal_write_strategy).')"
  is 'table of sockets' 65536 "$(rabbitmq_says 'erlang:system_info(port_limit).')"
  is 'policy of dead letters' 1 "$(compose exec -T rabbitmq rabbitmqctl --quiet list_policies </dev/null | grep -c '"max-length":100000')"
  say "the servers have their settings"
}

binary_is_stripped() {
  quietly docker cp "$(container ticketd):/usr/local/bin/ticketd" "$WORK/ticketd"
  readelf --wide --section-headers "$WORK/ticketd" >"$WORK/sections"
  ! grep -q ' \.debug_info ' "$WORK/sections" || die "the image's binary holds debug information"
  grep -q ' \.symtab ' "$WORK/sections" || die "the image's binary has no function names"
  say "the binary has function names and no debug information"
}

is_labelled() {
  local name found
  found=$(compose exec -T ticketd ticketd --version </dev/null)
  is 'label version and revision' "${found#ticketd }" "$(label version) ($(label revision))"
  for name in title description licenses revision; do [[ -n $(label "$name") ]] || die "no label $name"; done
  say "the image has its labels"
}

label() { inspect ticketd "{{index .Config.Labels \"org.opencontainers.image.$1\"}}"; }

logs_are_bounded() {
  local service option
  for service in "${SERVICES[@]}"; do
    for option in max-size max-file; do
      [[ -n $(inspect "$service" "{{index .HostConfig.LogConfig.Config \"$option\"}}") ]] ||
        die "the log of $service has no $option"
    done
  done
  say "logs are bounded"
}

# The health check knows neither role nor address, and finds each where the image has it listen.
every_role_is_healthy() {
  local role name
  for role in accept consume; do
    name=$PROJECT-$role
    quietly compose run --detach --no-deps --name "$name" ticketd "$role"
    await_container "$role" "$name"
    quietly docker rm --force "$name"
  done
  say "accept and consume are healthy, too"
}

# Restarted by order, killed and started again, and stopped in time: each under tickets.
restarts_lose_nothing() {
  local service
  start_trickle restart
  for service in "${SERVICES[@]}"; do
    quietly compose restart "$service"
    await_services
    quietly compose kill "$service"
    quietly compose start "$service"
    await_services
    say "$service restarted and killed"
  done
  end_trickle
  all_stored
  quietly compose stop ticketd
  is 'exit code of a stopped ticketd' 0 "$(inspect ticketd '{{.State.ExitCode}}')"
  up
}

# What only RabbitMQ holds is still there when all containers have been made anew.
down_and_up_keeps_all() {
  local number
  quietly compose stop postgres
  for number in {1..20}; do post "queued-$number"; done
  quietly compose down
  up
  all_stored
  say "down and up kept rows and queues"
}

# Older than what was built before, as after a checkout of something else: times must not decide.
up_rebuilds_what_changed() {
  local mark='compose_check was here'
  sed -i "s/^fn main() .*{\$/&\n    eprintln!(\"$mark\");/" "$COPY/src/main.rs"
  grep --quiet "$mark" "$COPY/src/main.rs" || die "src/main.rs has no main() that could be changed"
  printf '\nmax_connections = 201\n' >>"$COPY/deploy/conf/postgresql.conf"
  find "$COPY" -exec touch --date=2020-01-01 {} +
  start_trickle rebuild
  up
  end_trickle
  quietly docker cp "$(container ticketd):/usr/local/bin/ticketd" "$WORK/ticketd"
  grep --quiet --text "$mark" "$WORK/ticketd" || die "up went on with an old binary"
  is max_connections 201 "$(query 'show max_connections')"
  all_stored
  say "up rebuilds what changed"
}

# The profile observability: Prometheus reaches ticketd, and Grafana has its dashboard.
it_can_be_observed() {
  local part deadline
  quietly compose --profile observability up --detach
  for part in prometheus grafana; do
    await_container "$part" "$(compose --profile observability ps --all --quiet "$part")"
  done
  deadline=$((SECONDS + STORED_S))
  until curl --silent --fail --max-time 5 --get --data-urlencode 'query=up{job="ticketd"} == 1' \
    "http://127.0.0.1:$PROMETHEUS_PORT/api/v1/query" | grep --quiet '"instance":"ticketd:8080"'; do
    ((SECONDS < deadline)) || die "Prometheus does not reach ticketd"
    sleep 1
  done
  curl --silent --fail --max-time 5 "http://127.0.0.1:$GRAFANA_PORT/api/dashboards/uid/ticketd" >"$WORK/dashboard" ||
    die "Grafana does not have the dashboard"
  quietly compose --profile observability rm --stop --force prometheus grafana
  say "Prometheus and Grafana see it"
}

# As docs/operating.md says.
passwords_can_change() {
  export POSTGRES_PASSWORD=second RABBITMQ_PASSWORD=second
  query "alter role ticketd password '$POSTGRES_PASSWORD'"
  quietly compose exec -T rabbitmq rabbitmqctl change_password ticketd "$RABBITMQ_PASSWORD"
  up
  post changed
  all_stored
  say "passwords can be changed"
}

main() {
  trap clean_up EXIT
  trap 'exit 1' INT TERM
  need_engine
  choose_ports
  copy_checkout
  comes_up
  has_its_settings
  binary_is_stripped
  is_labelled
  logs_are_bounded
  every_role_is_healthy
  restarts_lose_nothing
  down_and_up_keeps_all
  up_rebuilds_what_changed
  passwords_can_change
  it_can_be_observed
  say "all is as it should be"
}

main "$@"
