"""Keeps a local Ray head: ``python -m workers.agent.keeper TEMP_DIR LOG COMMAND…``.

The agent's child and Ray's parent, and nothing else: it imports neither Ray nor torch.
When its standard input closes (the agent ended, however it ended), on SIGTERM or when
Ray ends, it kills every process below it and removes Ray's folder. It adopts orphans,
so processes that Ray left behind are below it too.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from workers.agent.processes import adopt_orphans, descendants, die_with_parent, kill_all, reap

KILL_SECONDS = 2.0
REAP_SECONDS = 0.5
POLL = 0.2


def main(arguments: list[str]) -> int:
    """Run the command until it or the agent ends; its exit code, or 0."""
    temp_dir, log, *command = arguments
    adopt_orphans()
    die_with_parent()
    wake_read, wake_write = os.pipe()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        os.write(wake_write, b"x")

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the agent, which ends this
    with Path(log).open("ab") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        while child.poll() is None:
            readable, _, _ = select.select([sys.stdin.fileno(), wake_read], [], [], POLL)
            if readable:
                break
    finally:
        code = child.poll()
        left = kill_all(descendants, seconds=KILL_SECONDS)
        reap(REAP_SECONDS)
        shutil.rmtree(temp_dir, ignore_errors=True)
    return code or (1 if left else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
