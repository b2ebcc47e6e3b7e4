"""What processes of a job say: bounded on the way, in order, and what matters never lost."""

from __future__ import annotations

import asyncio
import io
import logging
import subprocess
import sys
from typing import Any

import pytest

from workers.distributed import logs, mailbox
from workers.distributed.logs import Allowance, Capture, Lines, Outlet, spend
from workers.distributed.mailbox import DROPPED, EPOCH, LOG, Box, Mailbox, Pile


def test_messages_stay_until_they_are_acknowledged() -> None:
    pile = Pile()
    pile.put([(EPOCH, {"n": 1}), (LOG, {"n": 2})])
    first = pile.take(0)
    assert [payload["n"] for _, _, payload in first] == [1, 2]
    assert pile.take(0) == first, "an answer that was lost is given again"
    pile.put([(EPOCH, {"n": 3})])
    assert [payload["n"] for _, _, payload in pile.take(first[-1][0])] == [3]
    assert len(pile) == 1


def test_epochs_outlive_a_flood_of_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "MAX_KEPT", 5)
    pile = Pile()
    pile.put([(EPOCH, {"n": 1})])
    pile.put([(LOG, {"n": i}) for i in range(20)])
    pile.put([(EPOCH, {"n": 2})])
    found = pile.take(0)
    assert [p["n"] for _, kind, p in found if kind == EPOCH] == [1, 2]
    assert [p["n"] for _, kind, p in found if kind == LOG] == list(range(15, 20))
    assert [p["n"] for _, kind, p in found if kind == DROPPED] == [15]


def test_a_box_wakes_the_one_who_waits_and_starts_anew_after_a_restart() -> None:
    async def run() -> None:
        box = Box()
        waiting = asyncio.create_task(box.take("", 0, 30))
        await asyncio.sleep(0)
        await box.put([(EPOCH, {"n": 1})])
        life, found = await waiting
        assert [n for n, _, _ in found] == [1]
        assert await box.take(life, 1, 0) == (life, [])
        other = Box()
        await other.put([(EPOCH, {"n": 2})])
        again, found = await other.take(life, 1, 0)
        assert again != life
        assert found[0][2] == {"n": 2}

    asyncio.run(run())


def test_hangs_are_kept_for_those_who_ask() -> None:
    async def run() -> list[dict[str, Any]]:
        box = Box()
        await box.put([("hang", {"rank": 1})])
        life, found = await box.take("", 0, 0)
        await box.take(life, found[-1][0], 0)
        return await box.hangs()

    assert asyncio.run(run()) == [{"rank": 1}]


class Actor:
    """A handle whose calls are never answered, or fail at once."""

    def __init__(self, *, dead: bool = False) -> None:
        self.calls: list[list[Any]] = []
        self.dead = dead
        self.put = self

    def remote(self, messages: list[Any]) -> object:
        if self.dead:
            msg = "no actor"
            raise RuntimeError(msg)
        self.calls.append(messages)
        return object()


def test_a_sender_never_blocks_and_keeps_what_must_not_be_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mailbox, "MAX_UNDER_WAY", 3)
    monkeypatch.setattr(Mailbox, "_settle", lambda _: None)
    actor = Actor()
    box = Mailbox("x", actor)
    for i in range(10):
        box.send(LOG, {"n": i})
    box.send(EPOCH, {"n": 100})
    assert [m[0][1]["n"] for m in actor.calls] == [0, 1, 2]
    box._under_way.clear()
    box.send(EPOCH, {"n": 101})
    assert actor.calls[-1] == [(EPOCH, {"n": 100}), (EPOCH, {"n": 101}), (DROPPED, {"n": 7})]


def test_epochs_wait_for_a_mailbox_that_is_away() -> None:
    actor = Actor(dead=True)
    box = Mailbox("x", actor)
    box.send(EPOCH, {"n": 1})
    box.send(LOG, {"n": 1})
    actor.dead = False
    box.send(EPOCH, {"n": 2})
    assert actor.calls == [[(EPOCH, {"n": 1}), (EPOCH, {"n": 2})]]


def test_the_mailbox_imports_nothing_heavy() -> None:
    code = (
        "import sys, workers.distributed.mailbox; print([m for m in sys.modules if m in sys.argv])"
    )
    heavy = ["ray", "torch", "pydantic", "numpy", "httpx", "psutil"]
    found = subprocess.run(
        [sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        (["a\nb", "c\n"], ["a", "bc"]),
        (["  x  \n", "\n", "\n"], ["  x"]),
        (["10%\r", "50%\r", "100%\n"], ["100%"]),
        (["10%\r50%\r", "\n"], ["50%"]),
        (["dos\r\n"], ["dos"]),
    ],
)
def test_a_stream_is_cut_into_lines(written: list[str], lines: list[str]) -> None:
    cutter = Lines()
    assert [line for text in written for line in cutter.feed(text)] == lines
    assert cutter.rest() == ""


def test_a_line_without_an_end_is_bounded() -> None:
    cutter = Lines()
    for _ in range(100):
        assert cutter.feed("x" * 10_000) == []
    assert len(cutter.rest()) == logs.MAX_OPEN


def test_lines_are_bounded_in_length_and_rate() -> None:
    said: list[tuple[str, str]] = []
    now = [0.0]
    outlet = Outlet(lambda level, text: said.append((level, text)), clock=lambda: now[0])
    for i in range(2000):
        outlet.say("info", f"{i}")
    assert len(said) == logs.BURST
    now[0] = 10.0
    outlet.say("info", "x" * 9999)
    assert said[-2] == ("warning", "1500 lines came too fast and were left out")
    assert len(said[-1][1]) == logs.MAX_LINE + 2


def test_an_allowance_refills_over_time() -> None:
    allowance, goes = spend(Allowance(left=0.0, at=0.0), 0.0)
    assert (goes, allowance.lost) == (False, 1)
    assert spend(allowance, 1.0)[1]


def test_prints_and_records_reach_both_the_stream_and_the_sink(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    said: list[tuple[str, str]] = []
    capture = Capture(lambda level, text: said.append((level, text)))
    capture.start()
    try:
        print("hello")  # noqa: T201 - what a task may do
        print("no end", end="")  # noqa: T201 - likewise
        logging.basicConfig(level=logging.DEBUG)  # as a user would; it changes nothing
        logging.getLogger("their.module").warning("careful: %d", 7)
        library = logging.makeLogRecord(
            {"msg": "of no interest", "levelno": logging.INFO, "pathname": pytest.__file__}
        )
        logging.getLogger().handle(library)
    finally:
        capture.stop()
    assert said == [("info", "hello"), ("warning", "careful: 7"), ("info", "no end")]
    assert out.getvalue() == "hello\nno end"
    assert "careful: 7" in err.getvalue()
    assert sys.stdout is out


def test_rays_own_lines_are_told_from_warnings_on() -> None:
    assert logs.printed("2026-11-22 08:26:18,306\tINFO streaming.py:215 -- Starting") is None
    assert logs.printed("2026-11-22 08:26:17,952\tWARNING util.py:650 -- old") == "warning"
    assert logs.printed("2026-11-22 is a date") == "info"
