"""The keeper leaves nothing behind, however its parent ends: with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from workers.agent.processes import kill_all, marked

MARK = "ARGOSY_KEEPER_TEST"

# A head that starts a child, which starts a grandchild in a session of its own and then
# ends, so that the grandchild is an orphan; the head ignores SIGTERM, as a busy one may.
HEAD = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleep = "import time; time.sleep(600)"
start = f"s.Popen([sys.executable, '-c', {sleep!r}], start_new_session=True)"
orphan = f"import subprocess as s, sys; {start}"
subprocess.run([sys.executable, "-c", orphan], check=True)
open(sys.argv[1], "w").write("up")
time.sleep(600)
"""

PARENT = """
import subprocess, sys, time
keeper = [sys.executable, "-m", "workers.agent.keeper", *sys.argv[1:]]
subprocess.Popen(keeper, stdin=subprocess.PIPE)
time.sleep(600)
"""


def until(condition: Callable[[], object], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def world(tmp_path: Path):
    """A parent with a keeper below it; yields the parent and finds what carries the mark."""
    temp_dir = tmp_path / "ray"
    temp_dir.mkdir()
    ready = tmp_path / "ready"
    value = str(tmp_path)
    arguments = [str(temp_dir), str(tmp_path / "log"), sys.executable, "-c", HEAD, str(ready)]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *arguments], env={**os.environ, MARK: value}
    )
    assert until(ready.exists)
    assert until(lambda: len(marked(MARK, value)) == 4), "parent, keeper, head and orphan"
    yield parent, temp_dir, lambda: [p for p in marked(MARK, value) if runs(p)]
    kill_all(lambda: marked(MARK, value), seconds=5)
    parent.wait()


def runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # between the look at it and this
        return False


def keeper_of(parent: subprocess.Popen) -> psutil.Process:
    (found,) = psutil.Process(parent.pid).children()
    return found


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_agent_ends(world, number) -> None:
    parent, temp_dir, alive = world
    parent.send_signal(number)
    parent.wait()
    assert until(lambda: not alive(), 4)
    assert until(lambda: not temp_dir.exists(), 1)


@pytest.mark.integration
def test_nothing_is_left_when_the_keeper_is_told_to_end(world) -> None:
    parent, temp_dir, alive = world
    keeper = keeper_of(parent)
    keeper.terminate()
    assert until(lambda: [p.pid for p in alive()] == [parent.pid], 4)
    assert until(lambda: not temp_dir.exists(), 1)


@pytest.mark.integration
def test_the_orphan_ends_with_its_head(world) -> None:
    parent, _, alive = world
    (head,) = [p for p in keeper_of(parent).children() if "ready" in " ".join(p.cmdline())]
    head.kill()
    assert until(lambda: [p.pid for p in alive()] == [parent.pid], 4)
