#!/bin/sh
# Runs mosquitto with the orchestrator's certificates.
#
# The orchestrator's folder holds the authority's key too, so the network-facing broker
# must not see it: this script, as root, copies the four files that the broker needs to a
# place of its own, and mosquitto runs as a user who can read nothing else. It looks for
# changes and has the broker read a new revocation list; a new certificate needs that too.
#
#   GATEWAY_PASSWORD  the orchestrator's password
#   FROM, TO, CONF, OWNER  other places, and who mosquitto runs as
set -eu

FROM=${FROM:-/orchestrator/ca}
TO=${TO:-/run/argosy}
CONF=${CONF:-/mosquitto/config/mosquitto.conf}
OWNER=${OWNER:-mosquitto}
FILES="ca.pem server.pem server.key crl.pem"
: "${GATEWAY_PASSWORD:?is not set: it must be the one in ARGOSY_BROKER_URL}"

complete() {
	for file in $FILES; do
		[ -s "$FROM/$file" ] || return 1
	done
}

# Copies what changed; fails when nothing did. Each file appears whole.
refresh() {
	changed=1
	for file in $FILES; do
		if ! cmp -s "$FROM/$file" "$TO/$file"; then
			cp "$FROM/$file" "$TO/.$file"
			chmod 0400 "$TO/.$file"
			chown "$OWNER" "$TO/.$file"
			mv "$TO/.$file" "$TO/$file"
			changed=0
		fi
	done
	return $changed
}

mkdir -p "$TO"
chmod 0700 "$TO"
chown "$OWNER" "$TO"
until complete; do
	echo "waiting for the orchestrator's certificates in $FROM" >&2
	sleep 1
done
refresh || true
rm -f "$TO/passwd"
(umask 077 && printf 'gateway:%s\n' "$GATEWAY_PASSWORD" >"$TO/passwd")
mosquitto_passwd -U "$TO/passwd"
chown "$OWNER" "$TO/passwd"
unset GATEWAY_PASSWORD

mosquitto -c "$CONF" &
broker=$!
trap 'kill -TERM $broker 2>/dev/null' TERM INT
while kill -0 $broker 2>/dev/null; do
	if refresh; then kill -HUP $broker; fi
	sleep 1 &
	wait $! || true
done
wait $broker
