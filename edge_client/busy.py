"""What is being done with models right now, for who watches that it ends."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Doing:
    """One load or inference. number: of no other one. sha256: of the model file."""

    number: int
    what: str
    sha256: str


class Busy:
    """One entry per thread. No lock: each thread writes its own key, and reads are copies."""

    def __init__(self) -> None:
        self._doing: dict[int, Doing] = {}
        self._numbers = itertools.count()

    @contextmanager
    def doing(self, what: str, sha256: str) -> Iterator[None]:
        """While this lasts, a thread is at work on a model file."""
        self._doing[threading.get_ident()] = Doing(next(self._numbers), what, sha256)
        try:
            yield
        finally:
            self._doing.pop(threading.get_ident(), None)

    def now(self) -> list[Doing]:
        """All that is under way."""
        return list(self._doing.copy().values())
