# shellcheck shell=bash
# The private RabbitMQ, one node or three, with an Erlang port mapper (epmd) of its own: sourced by stack.sh, which says
# where its data is and whose it is. A node is called like its server here, `rabbitmq`, `rabbitmq2` or `rabbitmq3`; its
# number, which the first has none of, is in the names of its ports.

readonly RABBITMQ_BIN=/usr/lib/rabbitmq/bin RABBITMQ_NODES=(rabbitmq rabbitmq2 rabbitmq3)

# How much RabbitMQ may give up delivering, in queues of any name that ends so: see docs/reference/rabbitmq.md.
readonly DEAD_LETTERS_QUEUES='\.dead$'
readonly DEAD_LETTERS='{"max-length": 100000, "max-length-bytes": 1000000000, "overflow": "reject-publish"}'

# As Erlang knows a node.
erlang_name() { printf 'ticketd%s@localhost\n' "${1#rabbitmq}"; }

# Once there were three nodes, there are.
is_cluster() { [[ ${NODES:-1} == 3 || -d $PLACE/rabbitmq2 ]]; }

nodes() {
  if is_cluster; then printf '%s\n' "${RABBITMQ_NODES[@]}"; else printf 'rabbitmq\n'; fi
}

# Prints the nodes that run.
running_nodes() {
  local node
  for node in "${RABBITMQ_NODES[@]}"; do ! server_pid "$node" >/dev/null || printf '%s\n' "$node"; done
}

rabbitmq_pid() { node_pid rabbitmq; }

rabbitmq2_pid() { node_pid rabbitmq2; }

rabbitmq3_pid() { node_pid rabbitmq3; }

# Not read from the broker's pid file: that is written late in the start, and removed early in the stop. Short-lived
# helpers of the broker have the same name, but another task.
node_pid() {
  local pid name
  for pid in $(processes "$1"); do
    { read -r name <"/proc/$pid/comm"; } 2>/dev/null || continue
    [[ $name == beam.smp ]] || continue
    ! grep -qszx boot "/proc/$pid/cmdline" || { printf '%s\n' "$pid" && return 0; }
  done
  return 1
}

epmd_pid() {
  local pids
  mapfile -t pids < <(processes epmd)
  ((${#pids[@]})) && printf '%s\n' "${pids[0]}"
}

# Everything the broker and its tools would else share with other brokers on the machine; and schedulers that are not
# bound to cores, as several Erlang VMs would all be bound to the same ones, and do not spin on a core that others need.
rabbitmq_env() {
  local node=$1 number=${1#rabbitmq} dir=$PLACE/$1 schedulers=''
  local here='-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false'
  ! is_cluster || schedulers='+S 1:1 '
  printf '%s\n' \
    "HOME=$dir" "PATH=$SERVER_PATH" LANG=C.UTF-8 \
    "RABBITMQ_NODENAME=$(erlang_name "$node")" \
    RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 "RABBITMQ_NODE_PORT=${PORT[amqp$number]}" \
    "RABBITMQ_DIST_PORT=${PORT[dist$number]}" \
    "ERL_EPMD_PORT=${PORT[epmd]}" ERL_EPMD_ADDRESS=127.0.0.1 \
    "RABBITMQ_MNESIA_BASE=$dir/mnesia" "RABBITMQ_LOG_BASE=$dir/log" RABBITMQ_LOGS=- \
    "RABBITMQ_PID_FILE=$dir/pid" "RABBITMQ_ENABLED_PLUGINS_FILE=$dir/enabled_plugins" \
    "RABBITMQ_CONFIG_FILE=$dir/rabbitmq.conf" "RABBITMQ_CONFIG_FILES=$dir/conf.d" \
    "RABBITMQ_ADVANCED_CONFIG_FILE=$dir/advanced.config" "RABBITMQ_CONF_ENV_FILE=$dir/rabbitmq-env.conf" \
    RABBITMQ_SCHEDULER_BIND_TYPE=u \
    "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=$here $schedulers+sbwt none +sbwtdcpu none +sbwtdio none" \
    "RABBITMQ_CTL_ERL_ARGS=$here"
}

# Clients may show a certificate, which has to be of the stack's CA then.
rabbitmq_settings() {
  local number=${1#rabbitmq} dir=$PLACE/$1
  if is_cluster; then
    # Three logs in memory on one machine.
    sed 's/^raft\.wal_max_size_bytes = .*/raft.wal_max_size_bytes = 64000000/' "$DEPLOY_DIR/conf/rabbitmq.conf"
    cluster_settings
  else
    cat "$DEPLOY_DIR/conf/rabbitmq.conf"
  fi
  printf '\nlisteners.ssl.1 = 127.0.0.1:%s\n' "${PORT[amqps$number]}"
  printf 'ssl_options.%s\n' "cacertfile = $dir/root.crt" "certfile = $dir/server.crt" \
    "keyfile = $dir/server.key" 'verify = verify_peer' 'fail_if_no_peer_cert = false'
}

cluster_settings() {
  local node at=0
  printf '\n'
  cat "$DEPLOY_DIR/conf/rabbitmq-cluster.conf"
  printf '\ncluster_formation.peer_discovery_backend = classic_config\n'
  for node in "${RABBITMQ_NODES[@]}"; do
    printf 'cluster_formation.classic_config.nodes.%d = %s\n' "$((++at))" "$(erlang_name "$node")"
  done
}

write_rabbitmq_files() {
  local node=$1 dir=$PLACE/$1
  as_server mkdir -p "$dir/conf.d" "$dir/log" "$dir/mnesia"
  give_certificates "$dir"
  rabbitmq_settings "$node" | write_as_server "$dir/rabbitmq.conf"
  write_as_server "$dir/enabled_plugins" <<<'[].'
  write_as_server "$dir/advanced.config" <"$DEPLOY_DIR/conf/advanced.config"
  write_as_server "$dir/rabbitmq-env.conf" </dev/null
  write_cookie "$dir/.erlang.cookie"
}

# One for all nodes: the first's.
write_cookie() {
  local first=$PLACE/rabbitmq/.erlang.cookie
  as_server mkdir -p "$PLACE/rabbitmq"
  [[ -s $first ]] || od -An -N16 -tx1 /dev/urandom | tr -d ' \n' | write_as_server "$first"
  [[ $1 == "$first" || -s $1 ]] || as_server cat "$first" | write_as_server "$1"
}

# The port mapper that lets nodes and rabbitmqctl find each other. A node would start one itself if there were none.
# With keep_port, and not new_port, the port stays the same: a running node looks for it there.
launch_epmd() {
  local attempt
  as_server mkdir -p "$PLACE/epmd"
  for ((attempt = 1; attempt <= START_ATTEMPTS_MAX; attempt++)); do
    [[ $1 == keep_port ]] || choose_port epmd
    spawn epmd "$PLACE/epmd" epmd -address 127.0.0.1 -port "${PORT[epmd]}"
    wait_until 10 epmd_settled || true
    # A running node may have been quicker, and started one itself.
    ! listens "$(epmd_pid)" "${PORT[epmd]}" || return 0
  done
  show_log epmd
  die "epmd did not start"
}

epmd_settled() { [[ ! -d /proc/${SPAWNED[epmd]} ]] || listens "${SPAWNED[epmd]}" "${PORT[epmd]}"; }

# Sees to it that there is one, before a node is launched.
need_epmd() {
  ! epmd_pid >/dev/null || return 0
  if [[ -n $(running_nodes) ]]; then launch_epmd keep_port; else launch_epmd new_port; fi
}

# A node whose epmd was killed registers with the new one by itself, after some seconds.
epmd_knows() {
  local names name
  name=$(erlang_name "$1")
  names=$(as_server epmd -port "${PORT[epmd]}" -names 2>&1) || return 1
  [[ $names == *"name ${name%@*} at port"* ]]
}

launch_rabbitmq() { launch_node rabbitmq; }

launch_rabbitmq2() { launch_node rabbitmq2; }

launch_rabbitmq3() { launch_node rabbitmq3; }

launch_node() {
  local node=$1 number=${1#rabbitmq} settings
  kill_processes "$node"
  as_server mkdir -p "$PLACE/$node"
  need_epmd
  choose_port "amqp$number"
  choose_port "amqps$number"
  choose_port "dist$number"
  write_rabbitmq_files "$node"
  mapfile -t settings < <(rabbitmq_env "$node")
  say "$node: starting on port ${PORT[amqp$number]}"
  spawn "$node" "$PLACE/$node" "${settings[@]}" "$RABBITMQ_BIN/rabbitmq-server"
}

ready_rabbitmq() { ready_node rabbitmq; }

ready_rabbitmq2() { ready_node rabbitmq2; }

ready_rabbitmq3() { ready_node rabbitmq3; }

# The listener opens at the end of the start. Asking rabbitmqctl each time would cost more than a second.
ready_node() {
  local pid number=${1#rabbitmq}
  pid=$(server_pid "$1") || return 1
  listens "$pid" "${PORT[amqp$number]}" && listens "$pid" "${PORT[amqps$number]}"
}

up_rabbitmq() { up_node rabbitmq; }

up_rabbitmq2() { up_node rabbitmq2; }

up_rabbitmq3() { up_node rabbitmq3; }

up_node() {
  local node=$1
  if ! epmd_pid >/dev/null; then
    launch_epmd keep_port
    wait_until "$START_DEADLINE_S" epmd_knows "$node" || die "$node does not register with the new epmd"
  fi
  await_server "$node"
  # Its listener is open just before the start is complete; a second `up` need not ask again.
  if [[ -n ${SPAWNED[$node]:-} ]] && ! await_node "$node"; then
    show_log "$node"
    die "$node did not start"
  fi
  set_rabbitmq_policies "$node"
  say "$node: up, pid $(server_pid "$node"), port ${PORT[amqp${node#rabbitmq}]}"
}

# The last of three is asked for all that run: asking takes longer than a second.
await_node() {
  local wait=(await_startup)
  if is_cluster; then
    [[ $1 == rabbitmq3 ]] || return 0
    wait=(await_online_nodes "$(running_nodes | wc -l)")
  fi
  rabbitmq_tool "$1" rabbitmqctl --quiet "${wait[@]}" --timeout "$START_DEADLINE_S" >&2
}

# Policies are kept with the data, and asking takes longer than a second: done once, and once more when it has changed.
set_rabbitmq_policies() {
  local done=$PLACE/rabbitmq/dead-letters
  [[ $(as_server cat "$done" 2>/dev/null) != "$DEAD_LETTERS" ]] || return 0
  rabbitmq_tool "$1" rabbitmqctl --quiet set_policy --apply-to queues dead-letters "$DEAD_LETTERS_QUEUES" \
    "$DEAD_LETTERS" >&2
  write_as_server "$done" <<<"$DEAD_LETTERS"
}

ask_rabbitmq_to_stop() { kill -TERM "$1" 2>/dev/null || true; }

ask_rabbitmq2_to_stop() { ask_rabbitmq_to_stop "$1"; }

ask_rabbitmq3_to_stop() { ask_rabbitmq_to_stop "$1"; }

# Runs one of the broker's tools on a node; from the root folder, so that it is not taken for a process of the broker.
rabbitmq_tool() {
  local settings tool=$2
  mapfile -t settings < <(rabbitmq_env "$1")
  shift 2
  (cd / && as_server env -i "${settings[@]}" "$RABBITMQ_BIN/$tool" "$@")
}
