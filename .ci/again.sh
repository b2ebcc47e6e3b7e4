#!/bin/sh
# usage: .ci/again.sh EXIT_CODE: what the tests ended with.
# Runs what failed among others once more, one test at a time: where it passes, the machine was too
# busy for a limit in seconds, and that is said; where it fails again, the run has failed.
MOST=6 # more than these is no accident of timing
python=.venv/bin/python
[ "$1" -eq 1 ] || exit "$1"
failed=$($python -c 'import json; print(*json.load(open(".pytest_cache/v/cache/lastfailed")), sep="\n")') || exit 1
count=$(printf '%s\n' "$failed" | grep -c .)
if [ "$count" -eq 0 ] || [ "$count" -gt "$MOST" ]; then
	echo "$count tests failed: not run again (that is for 1 to $MOST)." >&2
	exit 1
fi
printf 'Failed beside other tests, now run alone:\n%s\n' "$failed"
$python -m pytest --last-failed --last-failed-no-failures=none -m "not slow" || exit 1
printf 'Passed alone, failed beside other tests (worth a look):\n%s\n' "$failed"
