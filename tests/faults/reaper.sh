#!/usr/bin/env bash
# Waits for the end of the test binary, which holds the other end of our standard input and writes nothing, and then
# clears away what belongs to it: servers, ticketd processes, mounts, data. A panic, an abort or a kill -9 of the
# tests leaves nothing behind.
set -uo pipefail
cat >/dev/null

# Whatever carries the folder's name in its environment was started by those tests.
for entry in /proc/[0-9]*; do
  pid=${entry##*/}
  if [[ $pid != "$$" ]] && grep -qzxF "FAULTS_DIR=$STACK_DIR" "$entry/environ" 2>/dev/null; then
    kill -KILL "$pid" 2>/dev/null
  fi
done
while read -r mount; do
  umount -l "$mount"
done < <(awk -v dir="$STACK_DIR/" 'index($2, dir) == 1 { print $2 }' /proc/mounts)
unset DATABASE_URL AMQP_URL RABBITMQ_URL STACK_URLS
here=$STACK_DIR
for STACK_DIR in "$here"/pair "$here"/cluster "$here"; do
  bash "$here/deploy/stack.sh" wipe
done
rm -rf "$STACK_DIR/deploy"
# Left in place when a test failed and its ledger and logs are worth a look.
rmdir "$STACK_DIR/tests" "$STACK_DIR" 2>/dev/null
