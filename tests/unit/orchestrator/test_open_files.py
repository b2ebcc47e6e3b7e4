"""What the platform starts may open as many files as the system allows: one for each device."""

from __future__ import annotations

import resource
import subprocess
import sys

_SAYS = """
import resource, subprocess, sys
from orchestrator.adapters.processes import allow_files
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
allow_files()
child = "import resource; print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
sys.exit(subprocess.call([sys.executable, "-c", child]))
"""


def limits_of_a_child(soft: int, hard: int) -> tuple[int, int]:
    found = subprocess.run(
        [sys.executable, "-c", _SAYS, str(soft), str(hard)],
        capture_output=True,
        text=True,
        check=True,
    )
    below, above = map(int, found.stdout.split())
    return below, above


def test_a_child_may_open_what_the_system_allows_and_never_less_than_before():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    assert limits_of_a_child(256, allowed) == (allowed, allowed)
    assert limits_of_a_child(allowed, allowed) == (allowed, allowed)
