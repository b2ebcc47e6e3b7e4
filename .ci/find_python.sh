#!/bin/sh
# Prints the path of a Python that Argosy runs on: $PYTHON, else the first that fits.
set -eu

fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

for name in ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.14 python}; do
	if command -v "$name" >/dev/null && fits "$name"; then
		command -v "$name"
		exit 0
	fi
done
echo "make: Argosy needs Python 3.11 or newer, and ${PYTHON:-no python3 on PATH} is not: install one, or run make PYTHON=/path/to/python3.11" >&2
exit 1
