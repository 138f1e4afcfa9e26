# shellcheck shell=bash
# The private RabbitMQ, with an Erlang port mapper (epmd) of its own: sourced by stack.sh, which says where its data is
# and whose it is.

readonly RABBITMQ_BIN=/usr/lib/rabbitmq/bin RABBITMQ_NODE=ticketd@localhost

# How much RabbitMQ may give up delivering, in queues of any name that ends so: see docs/reference/rabbitmq.md.
readonly DEAD_LETTERS_QUEUES='\.dead$'
readonly DEAD_LETTERS='{"max-length": 100000, "max-length-bytes": 1000000000, "overflow": "reject-publish"}'

# Not read from the broker's pid file: that is written late in the start, and removed early in the stop. Short-lived
# helpers of the broker have the same name, but another task.
rabbitmq_pid() {
  local pid
  for pid in $(rabbitmq_process beam.smp); do
    ! grep -qszx boot "/proc/$pid/cmdline" || { printf '%s\n' "$pid" && return 0; }
  done
  return 1
}

epmd_pid() {
  local pids
  mapfile -t pids < <(rabbitmq_process epmd)
  ((${#pids[@]})) && printf '%s\n' "${pids[0]}"
}

# Prints the pids of the broker's processes that have this name.
rabbitmq_process() {
  local pid name
  for pid in $(processes rabbitmq); do
    { read -r name <"/proc/$pid/comm"; } 2>/dev/null || continue
    [[ $name != "$1" ]] || printf '%s\n' "$pid"
  done
}

# Everything the broker and its tools would else share with other brokers on the machine; and schedulers that are not
# bound to cores, as several Erlang VMs would all be bound to the same ones, and do not spin on a core that others need.
rabbitmq_env() {
  local dir=$PLACE/rabbitmq
  local here='-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false'
  printf '%s\n' \
    "HOME=$dir" "PATH=$SERVER_PATH" LANG=C.UTF-8 \
    "RABBITMQ_NODENAME=$RABBITMQ_NODE" \
    RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 "RABBITMQ_NODE_PORT=${PORT[amqp]}" "RABBITMQ_DIST_PORT=${PORT[dist]}" \
    "ERL_EPMD_PORT=${PORT[epmd]}" ERL_EPMD_ADDRESS=127.0.0.1 \
    "RABBITMQ_MNESIA_BASE=$dir/mnesia" "RABBITMQ_LOG_BASE=$dir/log" RABBITMQ_LOGS=- \
    "RABBITMQ_PID_FILE=$dir/pid" "RABBITMQ_ENABLED_PLUGINS_FILE=$dir/enabled_plugins" \
    "RABBITMQ_CONFIG_FILE=$dir/rabbitmq.conf" "RABBITMQ_CONFIG_FILES=$dir/conf.d" \
    "RABBITMQ_ADVANCED_CONFIG_FILE=$dir/advanced.config" "RABBITMQ_CONF_ENV_FILE=$dir/rabbitmq-env.conf" \
    RABBITMQ_SCHEDULER_BIND_TYPE=u \
    "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=$here +sbwt none +sbwtdcpu none +sbwtdio none" \
    "RABBITMQ_CTL_ERL_ARGS=$here"
}

# Clients may show a certificate, which has to be of the stack's CA then.
rabbitmq_settings() {
  cat "$DEPLOY_DIR/conf/rabbitmq.conf"
  printf '\nlisteners.ssl.1 = 127.0.0.1:%s\n' "${PORT[amqps]}"
  printf 'ssl_options.%s\n' "cacertfile = $PLACE/rabbitmq/root.crt" "certfile = $PLACE/rabbitmq/server.crt" \
    "keyfile = $PLACE/rabbitmq/server.key" 'verify = verify_peer' 'fail_if_no_peer_cert = false'
}

write_rabbitmq_files() {
  local dir=$PLACE/rabbitmq
  as_server mkdir -p "$dir/conf.d" "$dir/log" "$dir/mnesia"
  give_certificates "$dir"
  rabbitmq_settings | write_as_server "$dir/rabbitmq.conf"
  write_as_server "$dir/enabled_plugins" <<<'[].'
  write_as_server "$dir/advanced.config" <"$DEPLOY_DIR/conf/advanced.config"
  write_as_server "$dir/rabbitmq-env.conf" </dev/null
  [[ -s $dir/.erlang.cookie ]] ||
    od -An -N16 -tx1 /dev/urandom | tr -d ' \n' | write_as_server "$dir/.erlang.cookie"
}

# The port mapper that lets rabbitmqctl find the broker. The broker would start one itself if there were none.
# With keep_port, and not new_port, the port stays the same: a running broker looks for it there.
launch_epmd() {
  local attempt
  for ((attempt = 1; attempt <= START_ATTEMPTS_MAX; attempt++)); do
    [[ $1 == keep_port ]] || choose_port epmd
    spawn epmd "$PLACE/rabbitmq" epmd -address 127.0.0.1 -port "${PORT[epmd]}"
    wait_until 10 epmd_settled || true
    # A running broker may have been quicker, and started one itself.
    ! listens "$(epmd_pid)" "${PORT[epmd]}" || return 0
  done
  show_log epmd
  die "epmd did not start"
}

epmd_settled() { [[ ! -d /proc/${SPAWNED[epmd]} ]] || listens "${SPAWNED[epmd]}" "${PORT[epmd]}"; }

# A broker whose epmd was killed registers with the new one by itself, after some seconds.
epmd_knows_broker() {
  local names
  names=$(as_server epmd -port "${PORT[epmd]}" -names 2>&1) || return 1
  [[ $names == *"name ${RABBITMQ_NODE%@*} at port"* ]]
}

launch_rabbitmq() {
  local settings
  kill_processes rabbitmq
  as_server mkdir -p "$PLACE/rabbitmq"
  launch_epmd new_port
  choose_port amqp
  choose_port amqps
  choose_port dist
  write_rabbitmq_files
  mapfile -t settings < <(rabbitmq_env)
  say "rabbitmq: starting on port ${PORT[amqp]}"
  spawn rabbitmq "$PLACE/rabbitmq" "${settings[@]}" "$RABBITMQ_BIN/rabbitmq-server"
}

# The listener opens at the end of the start. Asking rabbitmqctl each time would cost more than a second.
ready_rabbitmq() {
  local pid
  pid=$(server_pid rabbitmq) || return 1
  listens "$pid" "${PORT[amqp]}" && listens "$pid" "${PORT[amqps]}"
}

# Policies are kept with the data, and asking takes longer than a second: done once, and once more when it has changed.
set_rabbitmq_policies() {
  local done=$PLACE/rabbitmq/dead-letters
  [[ $(as_server cat "$done" 2>/dev/null) != "$DEAD_LETTERS" ]] || return 0
  rabbitmqctl --quiet set_policy --apply-to queues dead-letters "$DEAD_LETTERS_QUEUES" "$DEAD_LETTERS" >&2
  write_as_server "$done" <<<"$DEAD_LETTERS"
}

ask_rabbitmq_to_stop() { kill -TERM "$1" 2>/dev/null || true; }

# Runs one of the broker's tools; from the root folder, so that it is not taken for a process of the broker.
rabbitmqctl() {
  local settings
  mapfile -t settings < <(rabbitmq_env)
  (cd / && as_server env -i "${settings[@]}" "$RABBITMQ_BIN/rabbitmqctl" "$@")
}
