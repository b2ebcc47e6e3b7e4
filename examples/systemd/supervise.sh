#!/bin/sh
# Keeps the agent running where there is no systemd: for a container's entry point, or inittab.
#   supervise.sh [options of `argosy-edge run`]
# Waits 1 s, 2 s ... 64 s between starts, and from the beginning after a run of 10 minutes.
set -u
agent=""
stop() { [ -n "$agent" ] && kill -TERM "$agent" 2>/dev/null; stopped=1; }
stopped=0
trap stop TERM INT
delay=1
while [ "$stopped" -eq 0 ]; do
    began=$(date +%s)
    argosy-edge run "$@" &
    agent=$!
    wait "$agent"
    code=$?
    if [ "$stopped" -eq 1 ]; then
        wait "$agent" # the first wait may have been ended by the signal
        exit 0
    fi
    # 2: an option is wrong; 5: not enrolled. Starting again does not help.
    case "$code" in 2 | 5) exit "$code" ;; esac
    [ $(($(date +%s) - began)) -ge 600 ] && delay=1
    echo "argosy-edge ended with $code; again in $delay s" >&2
    sleep "$delay" &
    wait $!
    [ "$delay" -lt 64 ] && delay=$((delay * 2))
done
