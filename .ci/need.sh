#!/bin/sh
# Makes sure that programs which pip cannot install are there:
#   .ci/need.sh venv|mosquitto|postgresql ...
# What is missing is installed with the system's package manager, through sudo when
# not root. When that cannot be done, one line says what to install.
set -eu

PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:/opt/homebrew/sbin:/opt/homebrew/bin"
PYTHON=${PYTHON:-python3}

have() {
	case $1 in
	venv) "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null ;;
	mosquitto) command -v mosquitto >/dev/null ;;
	postgresql)
		command -v initdb >/dev/null ||
			ls /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb 2>/dev/null | grep -q .
		;;
	*) echo "need.sh: unknown program $1" >&2; exit 2 ;;
	esac
}

# The package that holds program $2 under package manager $1.
package() {
	case $1:$2 in
	apt-get:venv) "$PYTHON" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])' ;;
	*:venv) echo python3 ;;
	dnf:postgresql) echo postgresql-server ;;
	brew:postgresql) echo postgresql@17 ;;
	*) echo "$2" ;;
	esac
}

manager() {
	for name in apt-get dnf apk brew; do
		if command -v "$name" >/dev/null; then
			echo "$name"
			return
		fi
	done
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		if [ -t 0 ]; then sudo "$@"; else sudo -n "$@"; fi
	else
		echo "not root, and there is no sudo" >&2
		return 1
	fi
}

install() {
	case $1 in
	apt-get)
		as_root apt-get -qq update &&
			as_root env DEBIAN_FRONTEND=noninteractive \
				apt-get -qq install -y --no-install-recommends "$2"
		;;
	dnf) as_root dnf install -y -q "$2" ;;
	apk) as_root apk add --no-cache -q "$2" ;;
	brew) brew install -q "$2" ;;
	esac
}

for program in "$@"; do
	if have "$program"; then continue; fi
	tool=$(manager)
	if [ -z "$tool" ]; then
		echo "make: $program is missing and no known package manager is here: install $program, then run make again" >&2
		exit 1
	fi
	name=$(package "$tool" "$program")
	echo "installing $name with $tool" >&2
	if ! install "$tool" "$name" </dev/null >&2 || ! have "$program"; then
		echo "make: $program could not be installed: install the package $name as root ($tool), then run make again" >&2
		exit 1
	fi
done
