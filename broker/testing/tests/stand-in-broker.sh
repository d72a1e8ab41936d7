#!/bin/sh
# Behaves as far as a test can see like `ringway-broker`, or misbehaves as STAND_IN says.
echo "started with: $*" >&2
# Before it says that it is ready: a signal may follow at once.
case "$STAND_IN" in
stubborn) trap '' TERM ;;
*) trap 'echo "draining" >&2; exit 0' TERM ;;
esac
case "$STAND_IN" in
refuse) echo "the data directory is locked" >&2; exit 3 ;;
garbage) echo "hello" ;;
silent) ;;
*) echo '{"event":"ready","listen":"127.0.0.1:7","shards":["127.0.0.1:8","127.0.0.1:9"],"admin":"127.0.0.1:10","pid":'$$'}' ;;
esac
# Many short sleeps: a shell handles its traps between commands.
while :; do sleep 0.02; done
