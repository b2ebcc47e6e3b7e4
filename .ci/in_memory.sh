#!/bin/sh
# usage: .ci/in_memory.sh COMMAND [ARGUMENT ...]
# Runs the command with its temporary files in memory, where there is room for them, and removes
# them at the end: on a disk most tests wait for fsync. A TMPDIR that is set is left as it is.
room=4194304   # KiB free under /dev/shm
memory=8388608 # KiB available in all: Ray ends its workers when little is left
shm=/dev/shm

roomy() {
	[ "$(df -Pk "$shm" 2>/dev/null | awk 'NR == 2 { print $4 }')" -ge "$room" ] 2>/dev/null &&
		[ "$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo 2>/dev/null)" -ge "$memory" ] 2>/dev/null
}

# Whether programs may run from folder $1: some tests make virtual environments and libraries.
runs_programs() {
	printf '#!/bin/sh\n' >"$1/try" && chmod 755 "$1/try" && "$1/try" 2>/dev/null
}

[ -z "${TMPDIR:-}" ] && roomy || exec "$@"
# A short name: the paths of Unix sockets end at 107 characters.
folder=$(mktemp -d "$shm/t.XXXXXX") || exec "$@"
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
chmod 711 "$folder" # PostgreSQL, which is not root, has its own within
if runs_programs "$folder"; then
	rm "$folder/try"
	TMPDIR=$folder "$@"
	exit
fi
rm -rf "$folder"
trap - EXIT INT TERM
exec "$@"
