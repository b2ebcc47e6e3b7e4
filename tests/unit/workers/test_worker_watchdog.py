"""Hangs are noticed, placed and told once; time is the test's own."""

from __future__ import annotations

import importlib.util
import queue
import threading
import traceback
from pathlib import Path

import pytest
import torch

from workers.training import loop
from workers.training.watchdog import Hang, Watchdog, explain

TASK = """
def forward(inside, release):
    inside.set()
    release.wait(20)
"""


class Time:
    """A clock that the waits of the watchdog move on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits = 0
        self.held = threading.Event()
        self.on_wait = lambda: None

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        self.waits += 1
        self.on_wait()
        return self.held.is_set()


def dog(seconds: float, told: list[Hang], time: Time, rank: int = 0) -> Watchdog:
    return Watchdog(seconds, rank, told.append, clock=lambda: time.now, wait=time.wait)


def test_no_hang_is_told_while_beats_come() -> None:
    told: list[Hang] = []
    time = Time()
    watch = dog(900, told, time)

    def beat_and_end() -> None:
        watch.beat()
        if time.waits >= 100:
            time.held.set()

    time.on_wait = beat_and_end
    watch.start()
    watch._thread.join(5)
    watch.stop()
    assert time.now > 4 * 900
    assert told == []


def test_a_loop_in_user_code_is_told_once_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "user_task.py"
    path.write_text(TASK)
    spec = importlib.util.spec_from_file_location("user_task", path)
    task = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(task)
    told: list[Hang] = []
    came, inside, release = threading.Event(), threading.Event(), threading.Event()
    time = Time()
    time.on_wait = lambda: inside.wait(20)

    def hang(found: Hang) -> None:
        told.append(found)
        came.set()

    watch = Watchdog(900, 3, hang, clock=lambda: time.now, wait=time.wait)

    def train() -> None:
        watch.start()  # as Ray Train has it, the loop need not be on the main thread
        task.forward(inside, release)

    thread = threading.Thread(target=train)
    thread.start()
    assert came.wait(20)
    watch._thread.join(5)
    release.set()
    thread.join(5)
    watch.stop()
    assert told == [Hang(3, "no step for 900 s: user_task.py:4 in forward", user_code=True)]


def test_it_can_be_stopped_from_within_and_before_it_began() -> None:
    told: list[Hang] = []
    time = Time()
    watch = Watchdog(1, 0, lambda _: watch.stop(), clock=lambda: time.now, wait=time.wait)
    watch.stop()
    with watch:
        pass
    idle = Watchdog(3600, 0, told.append)
    with idle:
        assert idle._thread.is_alive()
    assert idle._thread is None
    assert told == []


def frame(filename: str, name: str = "forward", line: int = 41) -> traceback.FrameSummary:
    return traceback.FrameSummary(filename, line, name)


SITE = str(Path(torch.__file__).parent)
LOOP = loop.__file__
USER = "/home/someone/code/train.py"


@pytest.mark.parametrize(
    ("stack", "detail", "user_code"),
    [
        ([LOOP, USER], "train.py:41 in forward", True),
        ([LOOP, USER, f"{SITE}/nn/functional.py"], "train.py:41 in forward", True),
        ([LOOP, f"{SITE}/autograd/__init__.py"], "loop.py:41 in forward", False),
        (
            [LOOP, USER, f"{SITE}/distributed/distributed_c10d.py"],
            "train.py:41 in forward, waiting for the other workers",
            False,
        ),
        (
            [LOOP, f"{SITE}/utils/data/dataloader.py", queue.__file__],
            "loop.py:41 in forward, waiting for the task's data set to load",
            True,
        ),
        ([LOOP, f"{SITE}/utils/data/dataloader.py", USER], "train.py:41 in forward", True),
        ([f"{SITE}/x.py"], "x.py:41 in forward", False),
        ([], "its thread has ended", False),
    ],
)
def test_a_stack_says_whose_the_hang_is(stack, detail, user_code) -> None:
    found = explain([frame(name) for name in stack], 1, 901.3)
    assert found == Hang(1, f"no step for 901 s: {detail}", user_code)
