# shellcheck shell=bash
# The private PostgreSQL, and its synchronous standby: sourced by stack.sh, which says where its data is and whose it is.

postgres_pid() { postmaster_pid postgres; }

standby_pid() { postmaster_pid standby; }

# The postmaster's. The file stays behind when it is killed.
postmaster_pid() {
  local pid
  { read -r pid <"$PLACE/$1/postmaster.pid"; } 2>/dev/null || return 1
  belongs "$pid" "$1" || return 1
  printf '%s\n' "$pid"
}

newest_postgres() {
  local bin newest=''
  while read -r bin; do
    [[ ! -x $bin/initdb || ! -x $bin/postgres ]] || newest=$bin
  done < <(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V)
  [[ -n $newest ]] && printf '%s\n' "$newest"
}

# The newest installed version makes new data; data that exists needs the version that made it.
postgres_bin() {
  local data=$PLACE/postgres version
  if [[ ! -s $data/PG_VERSION ]]; then
    newest_postgres
    return
  fi
  version=$(<"$data/PG_VERSION")
  [[ -x /usr/lib/postgresql/$version/bin/postgres ]] ||
    die "$data was made by PostgreSQL $version: install it, or delete the data with: $SELF wipe"
  printf '%s\n' "/usr/lib/postgresql/$version/bin"
}

# Made beside its place and moved there when whole, so that an interrupted start leaves nothing half made.
init_postgres() {
  local bin=$1 new=$PLACE/postgres.new
  say "postgres: making the data folder with $bin"
  as_server rm -rf "$new"
  if ! make_cluster "$bin" "$new" >"$LOG_DIR/initdb.log" 2>&1; then
    show_log initdb
    die "postgres: the data folder could not be made"
  fi
  as_server mv "$new" "$PLACE/postgres"
}

# Trust is enough: the server listens on loopback only and holds nothing but test data. No server runs yet, so the
# database is made in single-user mode.
make_cluster() {
  local bin=$1 data=$2 clean=(env -i "PATH=$SERVER_PATH" LANG=C)
  as_server "${clean[@]}" "$bin/initdb" --pgdata="$data" --username=ticketd --auth=trust --encoding=UTF8 --locale=C &&
    as_server "${clean[@]}" "$bin/postgres" --single -D "$data" postgres <<<'create database ticketd'
}

# For one of the two servers, by the programs in this folder.
postgres_settings() {
  local server=$1 bin=$2
  cat "$DEPLOY_DIR/conf/postgresql.conf"
  printf "\nlisten_addresses = '127.0.0.1'\nport = %s\n" "${PORT[$server]}"
  # No socket file: its path would be too long in many checkouts (the limit is 107 bytes).
  printf "unix_socket_directories = ''\n"
  printf "ssl = on\nssl_ca_file = 'root.crt'\n"
  # Costs less than the method that every version has; known from version 15 on, where it was built in.
  ! knows_setting "$bin" wal_compression=lz4 || printf 'wal_compression = lz4\n'
  "${server}_replication"
}

# With a standby, a COMMIT waits until that has it on its disk, too; it may have been away for this much WAL.
postgres_replication() {
  [[ ! -s $PLACE/standby/PG_VERSION ]] ||
    printf "synchronous_standby_names = 'ANY 1 (standby)'\nwal_keep_size = 512MB\n"
}

# The first server knows it by its cluster_name. Once promoted it waits for nobody.
standby_replication() {
  printf "cluster_name = 'standby'\nprimary_conninfo = 'host=127.0.0.1 port=%s user=ticketd sslmode=disable'\n" \
    "${PORT[postgres]}"
}

# Users by which tests see what a server may ask of a connection; all others come in as they like.
postgres_logins() {
  printf '%s\n' '# TYPE DATABASE USER ADDRESS METHOD' \
    'hostnossl all tls_only all reject' \
    'hostssl all plain_only all reject' \
    'hostssl all certified all cert' \
    'hostnossl all certified all reject' \
    'host all with_password all scram-sha-256' \
    'local all all trust' \
    'host all all all trust' \
    'host replication all all trust'
}

knows_setting() {
  as_server env -i "PATH=$SERVER_PATH" LANG=C "$1/postgres" -D "$PLACE/postgres" -C "${2%%=*}" -c "$2" >/dev/null 2>&1
}

launch_postgres() {
  local bin
  bin=$(postgres_bin)
  kill_processes postgres
  [[ -s $PLACE/postgres/PG_VERSION ]] || init_postgres "$bin"
  launch_postmaster postgres "$bin"
}

launch_standby() {
  kill_processes standby
  [[ -s $PLACE/standby/PG_VERSION ]] || copy_postgres
  launch_postmaster standby "$(postgres_bin)"
}

# What the first server has is copied while it runs. Made beside its place, as in init_postgres.
copy_postgres() {
  local new=$PLACE/standby.new
  server_pid postgres >/dev/null || launch_postgres
  await_server postgres
  say "standby: copying the data of postgres"
  as_server rm -rf "$new"
  if ! as_server env -i "PATH=$SERVER_PATH" LANG=C "$(postgres_bin)/pg_basebackup" --pgdata="$new" --checkpoint=fast \
    --host=127.0.0.1 --port="${PORT[postgres]}" --username=ticketd --no-password >"$LOG_DIR/basebackup.log" 2>&1; then
    show_log basebackup
    die "standby: the data could not be copied"
  fi
  write_as_server "$new/standby.signal" </dev/null
  as_server mv "$new" "$PLACE/standby"
}

launch_postmaster() {
  local server=$1 bin=$2 data=$PLACE/$1
  choose_port "$server"
  # Its pid may belong to another program by now, which the server would take for a running server.
  as_server rm -f "$data/postmaster.pid"
  configure_postmaster "$server" "$bin"
  postgres_logins | write_as_server "$data/pg_hba.conf"
  give_certificates "$data"
  say "$server: starting version $(<"$data/PG_VERSION") on port ${PORT[$server]}"
  spawn "$server" "$data" "$bin/postgres" -D "$data"
}

configure_postmaster() {
  local settings
  # Whole before it is written: making it reads the file that it replaces.
  settings=$(postgres_settings "$1" "$2")
  write_as_server "$PLACE/$1/postgresql.conf" <<<"$settings"
}

# Has the first server, where it runs, wait for the standby from now on.
follow_standby() {
  local pid
  pid=$(server_pid postgres) || return 0
  configure_postmaster postgres "$(postgres_bin)"
  kill -HUP "$pid"
}

promote_standby() {
  as_server env -i "PATH=$SERVER_PATH" LANG=C "$(postgres_bin)/pg_ctl" promote --pgdata="$PLACE/standby" \
    --wait --timeout="$START_DEADLINE_S" >&2
}

ready_postgres() { postmaster_is_ready postgres; }

ready_standby() { postmaster_is_ready standby; }

# The server says so itself, in the file that names its pid.
postmaster_is_ready() {
  local pid
  pid=$(server_pid "$1") || return 1
  [[ $(sed -n 8p "$PLACE/$1/postmaster.pid" 2>/dev/null) == ready* ]]
}

# Fast shutdown: clients are cut off, and what was committed is on disk.
ask_postgres_to_stop() { kill -INT "$1" 2>/dev/null || true; }

ask_standby_to_stop() { kill -INT "$1" 2>/dev/null || true; }
