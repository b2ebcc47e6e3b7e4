from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from orchestrator.client.errors import NotFound, Unavailable, WaitTimeoutError
from orchestrator.client.follow import Clock, Look, Rings, follow


class World:
    """A clock that moves only when someone waits, and a scripted thing to look at."""

    def __init__(self, *script: int | Exception) -> None:
        self.time = 0.0
        self.script = list(script)

    def fetch(self) -> int:
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, Exception):
            raise step
        return step

    def wait(self, seconds: float) -> None:
        self.time += seconds

    @contextmanager
    def bell(self) -> Iterator[Rings]:
        yield self

    def looks(self, **options: float) -> Iterator[Look[int]]:
        clock = Clock(now=lambda: self.time, sleep=self.wait)
        return follow(self.fetch, lambda n: n >= 3, self.bell(), clock=clock, **options)  # type: ignore[arg-type]


OUTAGE = Unavailable("away")


def test_it_looks_until_the_end() -> None:
    assert [look.value for look in World(1, 2, 3).looks()] == [1, 2, 3]


def test_an_outage_is_shown_and_borne() -> None:
    looks = list(World(1, OUTAGE, OUTAGE, 3).looks())
    assert [(look.value, look.outage) for look in looks] == [
        (1, None),
        (None, OUTAGE),
        (None, OUTAGE),
        (3, None),
    ]


def test_patience_ends() -> None:
    world = World(1, OUTAGE)
    with pytest.raises(Unavailable):
        list(world.looks(patience=10.0))
    assert 10 < world.time < 15


def test_an_outage_at_the_first_look_is_an_error_at_once() -> None:
    world = World(OUTAGE)
    with pytest.raises(Unavailable):
        list(world.looks())
    assert world.time == 0


def test_a_refusal_is_never_borne() -> None:
    with pytest.raises(NotFound):
        list(World(1, NotFound("gone")).looks())


def test_the_timeout_is_kept() -> None:
    world = World(1)
    with pytest.raises(WaitTimeoutError, match="after 7 s"):
        list(world.looks(timeout=7.0))
    assert 7 <= world.time < 8
