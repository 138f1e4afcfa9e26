#!/usr/bin/env bash
# Breaks the promise on purpose, one way at a time, in a copy of this checkout, and expects the tests to notice.
#
#   tests/faults/mutations.sh [-n] [PATTERN]     all mutations, or those whose name matches; -n: only whether they apply
#
# A mutation that no longer applies, does not build or stays green is a failure: then it, or the tests, need work.
# The copy and what is built of it are in a temporary folder; MUTATIONS_TARGET_DIR keeps the build for the next time.
# shellcheck disable=SC2016 # $1 in a pattern is Perl's
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
COPY=$WORK/ticketd
export CARGO_TARGET_DIR=${MUTATIONS_TARGET_DIR:-$WORK/target}
DRY=''
[[ ${1:-} != -n ]] || { DRY=1 && shift; }
PATTERN=${1:-.}
RESULTS=()
FAILED=0

fresh_copy() {
  rm -rf "$COPY"
  mkdir "$COPY"
  # With new times, so that cargo does not take what it built of the copy before for up to date.
  (cd "$ROOT" && tar -c --exclude=./target --exclude=./.git --exclude=./.stack --exclude=./fuzz/target .) | tar -x -m -C "$COPY"
}

# Replaces what a Perl pattern matches, which must be in one file, wherever that is by now.
replace() {
  local file sum changed=0
  while IFS= read -r file; do
    sum=$(sha256sum "$file")
    perl -0pi -e "$1" "$file"
    [[ $sum == "$(sha256sum "$file")" ]] || changed=$((changed + 1))
  done < <(find "$COPY/src" "$COPY/schema.sql" -type f)
  ((changed == 1))
}

run_tests() { (cd "$COPY" && cargo test --quiet --test faults -- --include-ignored "$@") >"$WORK/log" 2>&1; }

# What the first test that failed said: a test can be red for another reason than the one it is there for.
why_red() {
  awk '/panicked at/ { getline; why = $0; if (why ~ /the promise is broken/) { getline; why = $0 } print why; exit }' "$WORK/log"
}

note() {
  RESULTS+=("$(printf '%-12s %s%s' "$1" "$2" "${3:+$'\n'                 ${3:0:140}}")")
  printf '%s\n' "${RESULTS[-1]}"
  [[ $1 == red || $1 == green-base || $1 == applies ]] || { FAILED=1 && tail -n 15 "$WORK/log" | sed 's/^/    /'; }
}

# mutation NAME 'TEST…' PATTERN…
mutation() {
  local name=$1 tests=$2
  shift 2
  [[ $name =~ $PATTERN ]] || return 0
  fresh_copy
  : >"$WORK/log"
  local pattern
  for pattern in "$@"; do
    replace "$pattern" || { note unapplied "$name" && return 0; }
  done
  [[ -z $DRY ]] || { note applies "$name" && return 0; }
  (cd "$COPY" && cargo test --quiet --test faults --no-run) >"$WORK/log" 2>&1 || { note unbuilt "$name" && return 0; }
  # shellcheck disable=SC2086 # the tests are a list
  if run_tests $tests; then
    note GREEN "$name"
  elif grep -q '^test result: FAILED' "$WORK/log"; then
    note red "$name" "$(why_red)"
  else
    note broken "$name"
  fi
}

base() {
  fresh_copy
  if run_tests confirms:: stored_once_despite::processes::kill_9_of_accept stored_once_despite::tables::statements_are_cancelled; then
    note green-base "nothing changed"
  else
    note RED-base "nothing changed"
  fi
}

[[ $PATTERN != . || -n $DRY ]] || base

mutation '202 when the message is written, not when it is confirmed' 'confirms::' \
  's/\bconfirmed\.await\n/drop(confirmed);\n    Ok(Confirmation::Ack(None))\n/'

mutation 'acknowledged before COMMIT' 'stored_once_despite::processes::kill_9_of_consume_that_waits' \
  's/(async fn store_or_hold\(.*?-> bool \{)/$1\n        let tags = job.messages.iter().map(|message| message.tag).collect();\n        let (subscription, batch) = (job.subscription, job.batch);\n        let _early = self.events.send(WriterEvent::Stored(StoredBatch { subscription, batch, tags, met_stored: false })).await;/s'

mutation 'a nack is taken for an ack' 'confirms::a_refused_message stored_once_despite::queues::the_queue_is_full' \
  's/Ok\(Confirmation::Ack\(None\)\) =>/Ok(Confirmation::Ack(None) | Confirmation::Nack(_)) =>/'

# Unless confirms are forgotten, NotRequested never comes, so both mistakes are made at once.
mutation 'NotRequested is taken for an ack, and confirms are forgotten' 'confirms::a_refused_message' \
  's/Ok\(Confirmation::Ack\(None\)\) =>/Ok(Confirmation::Ack(None) | Confirmation::NotRequested) =>/' \
  's/channel\s*\.confirm_select\(ConfirmSelectOptions::default\(\)\)\s*\.await\?;//'

mutation 'messages are transient' 'confirms::a_refused_message' \
  's/const PERSISTENT: u8 = 2;/const PERSISTENT: u8 = 1;/'

mutation 'messages are not mandatory' 'confirms::a_refused_message' \
  's/mandatory: true/mandatory: false/'

mutation 'an id that is stored already is taken for bad data' 'stored_once_despite::cuts::the_reply_to_commit_is_lost' \
  's/(Some\("ticket_id"\), StoreError::Unique\(cause\)\) => StoreError::)Conflict/$1Data/'

mutation 'ids are not unique' 'stored_once_despite::cuts::the_reply_to_commit_is_lost' \
  's/ constraint tickets_ticket_id_key unique//' \
  's/unique: "ticket_id"/unique: "id"/'

mutation 'products are merged without ON CONFLICT' 'stored_once_despite::processes::kill_9_of_accept' \
  's/order by product_id \\\n    on conflict .*?returning/order by product_id returning/s'

mutation 'several tasks publish on one channel' 'confirms::a_refused_message' \
  's/let result = (confirm\(&channel, [^;]*\))\.await;/let publish = async move { $1.await };\n                    let handle = tokio::runtime::Handle::current();\n                    let published = tokio::task::spawn_blocking(move || handle.block_on(publish)).await;\n                    let Ok(result) = published else { std::process::abort() };/'

mutation "statements' errors are swallowed before COMMIT" 'stored_once_despite::tables::statements_are_cancelled' \
  's/\b(copied|merged)\.map_err\([^;]*\)\?;/let _ = $1;/g'

mutation 'a fresh id on republish' 'stored_once_despite::cuts::the_confirm_is_lost' \
  's/state\.sealed\.push_front\(group\)/state.sealed.push_front(group.renamed())/' \
  's|    /// The buffer, for another group to use\.|    /// The same tickets under other ids.
    pub fn renamed(mut self) -> Self {
        let mut renamed = Vec::new();
        for record in message::records(&self.records) {
            message::append(&mut renamed, Record { id: uuid::Uuid::now_v7(), ..record });
        }
        self.records = Arc::new(renamed);
        self
    }

    /// The buffer, for another group to use.|'

mutation 'the product that comes last wins, not the newest' 'stored_once_despite::processes::kill_9_of_accept' \
  's/ticket_id = excluded\.ticket_id \\\n\s*where \(known.*?returning/ticket_id = excluded.ticket_id returning/s'

mutation 'a price that changes back is taken for known' 'stored_once_despite::processes::kill_9_of_accept' \
  's/\(self\.price, self\.price\.scale\(\)\) == \(product\.price, product\.price\.scale\(\)\)\s*&& //'

mutation 'the other body of a key is dropped' 'stored_once_despite::processes::kill_9_of_accept' \
  's/Some\(_\) => Verdict::KeyReused/Some(_) => Verdict::Duplicate/'

mutation 'keys are cut to 200 bytes' 'stored_once_despite::processes::kill_9_of_accept' \
  's/Uuid::new_v5\(&KEY_NAMESPACE, key\)/Uuid::new_v5(&KEY_NAMESPACE, key.get(..200).unwrap_or(key))/'

mutation 'a refused ticket is at fault, whatever the table takes' 'stored_once_despite::tables::the_table_takes_nothing' \
  's/allowed &= accepted\.dead_lettered < DEAD_LETTERED_MAX/allowed |= accepted.dead_lettered < DEAD_LETTERED_MAX/' \
  's/\(comparable \|\| alone\) && evidence/evidence/' \
  's/Comparison::NoneAccepted => search\.wait\(ids\.start, kind\),/Comparison::NoneAccepted => return Ok(true),/'

mutation 'a warning at COMMIT is passed over' 'failover::waits_for_the_standby_are_cancelled' \
  's/self\.warnings\.count\(\) != warnings/false/'

mutation 'what is stored already is not waited for' 'failover::waits_for_the_standby_are_terminated' \
  's/"select pg_logical_emit_message\(true, .ticketd., ..\)"/"select"/'

mutation 'what a lost server had counts as stored' 'failover::waits_for_the_standby_are_terminated' \
  's/\n            plan\.reopen\(\);//'

mutation 'COMMIT does not wait for the disk' 'stored_once_despite::servers::kill_9_of_postgres' \
  's/set synchronous_commit = on;/set synchronous_commit = off;/'

mutation 'a plain quorum queue is taken' 'declaring::a_queue_that_would_lose' \
  's/(fn kept\(&self\) -> FieldTable \{\n)/$1        if !self.dead.as_str().is_empty() {\n            return quorum();\n        }\n/'

mutation 'a replay is off the list before it is confirmed' 'stored_once_despite::dead_letters::kill_9_of_a_replay_that_waits' \
  's/(let row = transaction\.query_opt\(TAKE, &\[&number\]\)\.await;)/$1\n        let _early = transaction.batch_execute("commit").await;/'

mutation 'dead letters are acknowledged before their rows are committed' 'stored_once_despite::dead_letters::kill_9_of_a_collector_that_waits' \
  's/let acknowledged = within\(channel\.basic_ack\(tag, BasicAckOptions \{ multiple: true \}\)\)\.await;/let acknowledged = Ok::<(), BrokerError>(());/' \
  's/(let tag = last\.tag;\n)/$1        let _early = within(channel.basic_ack(tag, BasicAckOptions { multiple: true })).await;\n/'

mutation 'a file is moved before it is taken' 'sending::files_are_stored_once' \
  's/Verdict::Unavailable => \{/Verdict::Unavailable => self.accepted(file, Uuid::nil()).await,\n            _ if answer.status == 0 => {/'

mutation 'a file that is sent again has another key' 'sending::files_are_stored_once' \
  's/let key = ticket_key\(&self[^;]*\);/let key = Uuid::now_v7().to_string();/'

mutation 'a body is answered 202 before all its groups are confirmed' 'bulk::bodies_are_stored_once_though_accept' \
  's/self\.tickets\.outcomes\.all\(\)\.await;//'

mutation "tickets' numbers begin anew with each group of a body" 'bulk::bodies_are_stored_once_though_accept' \
  's/id_of_nth\(id, entry\.place\.number\)/id_of_nth(id, entry.place.number % 1024)/'

mutation 'tickets of a file have other ids each time' 'importing::an_import_through_rabbitmq importing::a_direct_import_is' \
  's/id_of_nth\(id_of_file, entry\.place\.number\)/Uuid::now_v7()/'

mutation 'a direct import counts what it hands over' 'importing::a_direct_import_is' \
  's/if self\.handed_over == 0 \{/self.stored = self.handed_over;\n        if true {/'

printf '\n'
printf '%s\n' "${RESULTS[@]}"
exit "$FAILED"
