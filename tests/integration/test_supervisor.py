"""The supervisor with real processes: order, restarts, and the end of whole trees."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.adapters import processes
from orchestrator.adapters.process_tree import Child, StopSignal, Supervisor, TreeEvent
from orchestrator.errors import Unavailable

pytestmark = pytest.mark.integration

DEADLINE = 15.0
MARK = "test"

# A child that says who it is, and starts a grandchild which leaves the session, as a
# daemon does, and another one that heeds no SIGTERM.
FAMILY = """
import os, pathlib, signal, subprocess, sys, time
folder = pathlib.Path(sys.argv[1])
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
def start(name, code, **how):
    path = str(folder / name)
    done = f"import os, pathlib; pathlib.Path({path!r}).write_text(str(os.getpid()))"
    subprocess.Popen([sys.executable, "-c", code.replace("READY", done)], **how)
start("detached", "READY; import time; time.sleep(600)", start_new_session=True)
start("deaf", deaf + "READY; time.sleep(600)")
start("nameless", deaf + "READY; time.sleep(600)", start_new_session=True, env={})
orphan = "import os, time\\nif os.fork(): os._exit(0)\\nos.setsid()\\nREADY\\ntime.sleep(600)"
start("orphan", orphan)
(folder / "child").write_text(str(os.getpid()))
time.sleep(600)
"""
NAMES = ("child", "detached", "deaf", "nameless", "orphan")


def until(condition: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.02)
    return result


def python(code: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-c", textwrap.dedent(code), *arguments)


def pid_in(path: Path) -> int:
    text = path.read_text() if path.exists() else ""
    return int(text or 0)


def written_pid(path: Path) -> int:
    return int(until(partial(pid_in, path), path.name))


def running(pid: int) -> bool:
    try:
        return processes.alive(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


class Running:
    """A supervisor in a thread of its own."""

    def __init__(self, folder: Path, *children: Child) -> None:
        self.stop = StopSignal()
        self.events: queue.Queue[TreeEvent] = queue.Queue()
        self.error: Exception | None = None
        self.supervisor = Supervisor(
            children,
            logs=folder,
            env=os.environ,
            mark=MARK,
            stop=self.stop,
            on_event=self.events.put,
        )
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.supervisor.run()
        except Unavailable as error:
            self.error = error

    def wait_for(self, kind: str, child: str | None = None) -> list[TreeEvent]:
        seen = [self.events.get(timeout=DEADLINE)]
        while (seen[-1].kind, seen[-1].child) != (kind, child):
            seen.append(self.events.get(timeout=DEADLINE))
        return seen

    def end(self) -> float:
        start = time.monotonic()
        self.stop.request()
        self.thread.join(20)
        assert not self.thread.is_alive()
        return time.monotonic() - start


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def start(*children: Child) -> Running:
        made.append(Running(tmp_path, *children))
        return made[-1]

    yield start
    for each in made:
        each.end()


def test_children_start_in_order_and_end_in_reverse(
    supervise: Callable[..., Running], tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    slow = python(
        "import pathlib, sys, time; time.sleep(0.3); pathlib.Path(sys.argv[1]).touch(); "
        "time.sleep(600)",
        str(flag),
    )
    second = python("import sys, time; print('hello from second', flush=True); time.sleep(600)")
    tree = supervise(
        Child(name="first", command=slow, ready=flag.exists), Child(name="second", command=second)
    )
    log = tmp_path / "second.log"
    begun = [(e.kind, e.child) for e in tree.wait_for("up")]
    assert begun == [
        ("starting", "first"),
        ("ready", "first"),
        ("starting", "second"),
        ("ready", "second"),
        ("up", None),
    ]
    until(lambda: "hello" in log.read_text(), "the output of second")
    assert tree.end() < 2
    ended = [(e.kind, e.child) for e in tree.wait_for("stopped")]
    assert ended == [("stopped", "second"), ("stopped", "first"), ("stopped", None)]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a subreaper")
def test_every_descendant_ends_within_five_seconds(
    supervise: Callable[..., Running], tmp_path: Path
) -> None:
    tree = supervise(Child(name="family", command=python(FAMILY, str(tmp_path))))
    tree.wait_for("up")
    pids = {n: written_pid(tmp_path / n) for n in NAMES}
    assert all(running(pid) for pid in pids.values())
    assert tree.end() < 5
    left = [name for name, pid in pids.items() if psutil.pid_exists(pid)]
    assert left == [], "all have ended and were reaped"


def test_a_second_request_does_not_wait(supervise: Callable[..., Running], tmp_path: Path) -> None:
    tree = supervise(Child(name="family", command=python(FAMILY, str(tmp_path))))
    tree.wait_for("up")
    pid = written_pid(tmp_path / "deaf")
    tree.stop.request()
    assert tree.end() < 2
    assert not running(pid)


def test_a_killed_child_is_started_again_and_the_others_stay(
    supervise: Callable[..., Running], tmp_path: Path
) -> None:
    code = (
        "import os, pathlib, sys, time; "
        "pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"
    )
    paths = {name: tmp_path / name for name in ("a", "b")}
    tree = supervise(*(Child(name=n, command=python(code, str(p))) for n, p in paths.items()))
    tree.wait_for("up")
    first, other = (written_pid(p) for p in paths.values())
    os.kill(first, signal.SIGKILL)
    seen = tree.wait_for("ready", "a")
    assert [(e.kind, e.detail) for e in seen] == [
        ("died", "by SIGKILL"),
        ("restarted", None),
        ("ready", None),
    ]
    until(lambda: pid_in(paths["a"]) not in {0, first}, "the new pid")
    assert pid_in(paths["b"]) == other
    assert running(other)


def test_a_child_that_keeps_dying_is_given_up_with_its_last_words(
    supervise: Callable[..., Running],
) -> None:
    # The session's own database server may be a child of this process too.
    before = psutil.Process().children()
    command = python("import sys; print('no such table: jobs'); sys.exit(3)")
    tree = supervise(
        Child(name="steady", command=python("import time; time.sleep(600)")),
        Child(name="server", command=command),
    )
    tree.thread.join(DEADLINE)
    assert tree.error is not None
    assert "the server died 5 times within 60 s, the last time with exit code 3" in str(tree.error)
    assert "no such table: jobs" in str(tree.error)
    assert psutil.Process().children() == before


def test_a_child_that_never_gets_ready_is_given_up(supervise: Callable[..., Running]) -> None:
    command = python("import time; print('waiting for nothing', flush=True); time.sleep(600)")
    child = Child(name="stuck", command=command, ready=lambda: False, ready_seconds=0.5)
    tree = supervise(child)
    tree.thread.join(DEADLINE)
    assert "the stuck was not ready" in str(tree.error)
    assert "waiting for nothing" in str(tree.error)


def test_a_changed_file_is_told_by_sighup(
    supervise: Callable[..., Running], tmp_path: Path
) -> None:
    watched = tmp_path / "crl.pem"
    watched.write_text("old")
    code = """
        import signal, time
        signal.signal(signal.SIGHUP, lambda *_: print("reloaded", flush=True))
        print("armed", flush=True)
        while True: time.sleep(1)
    """
    tree = supervise(Child(name="broker", command=python(code), reload_on=(watched,)))
    tree.wait_for("up")
    log = tmp_path / "broker.log"
    until(lambda: "armed" in log.read_text(), "the handler")
    watched.write_text("new")
    os.utime(watched, ns=(1, 1))
    until(lambda: "reloaded" in log.read_text(), "the reload")


SUPERVISE = """
import os, pathlib, sys
from orchestrator.adapters.process_tree import Child, StopSignal, Supervisor
folder = pathlib.Path(sys.argv[1])
family = (sys.executable, "-c", (folder / "family.py").read_text(), str(folder))
Supervisor([Child(name="family", command=family)], logs=folder, env=os.environ,
           mark="test-killed", stop=StopSignal()).run()
"""


@pytest.fixture
def supervisor_process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    (tmp_path / "family.py").write_text(FAMILY)
    process = subprocess.Popen([sys.executable, "-c", SUPERVISE, str(tmp_path)])
    try:
        for name in NAMES:
            written_pid(tmp_path / name)
        yield process
    finally:
        process.kill()
        process.wait(10)
        for name in NAMES:
            if running(pid := pid_in(tmp_path / name)):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_whole_tree(
    supervisor_process: subprocess.Popen[bytes], tmp_path: Path, number: int
) -> None:
    start = time.monotonic()
    supervisor_process.send_signal(number)
    assert supervisor_process.wait(10) == 0
    assert time.monotonic() - start < 5
    assert not any(running(pid_in(tmp_path / name)) for name in NAMES)


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_children_of_a_killed_supervisor_end_and_the_next_one_finds_the_rest(
    supervisor_process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    supervisor_process.kill()
    supervisor_process.wait(10)
    until(lambda: not running(pid_in(tmp_path / "child")), "the child's end")
    deaf, detached = pid_in(tmp_path / "deaf"), pid_in(tmp_path / "detached")
    assert running(deaf)
    assert processes.end_marked("test-killed", grace=0.3) >= 2
    assert not running(deaf)
    assert not running(detached)


def test_a_child_of_other_origin_is_left_to_who_waits_for_it(
    supervise: Callable[..., Running],
) -> None:
    tree = supervise(Child(name="a", command=python("import time; time.sleep(600)")))
    tree.wait_for("up")
    sleep = shutil.which("sleep")
    assert sleep is not None
    bystander = subprocess.Popen([sleep, "600"])
    quick = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    os.waitid(os.P_PID, quick.pid, os.WEXITED | os.WNOWAIT)
    tree.end()
    assert quick.wait(5) == 7
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait(5)
