"""What is being done with models right now, for who watches that it ends."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident


@dataclass(frozen=True, slots=True)
class Doing:
    """One load or inference. number: of no other one. sha256: of the model file."""

    number: int
    what: str
    sha256: str


class Busy:
    """One entry per thread. No lock: each thread writes its own key, and reads are copies.

    ``begin`` and ``end`` are for the way of each inference, where a context manager would cost
    more than some models do.
    """

    def __init__(self) -> None:
        self._doing: dict[int, tuple[int, str, str]] = {}
        self._numbers = itertools.count()

    def begin(self, what: str, sha256: str) -> None:
        """From now on this thread is at work on a model file; ``end`` must follow."""
        self._doing[get_ident()] = (next(self._numbers), what, sha256)

    def end(self) -> None:
        """This thread is done."""
        self._doing.pop(get_ident(), None)

    @contextmanager
    def doing(self, what: str, sha256: str) -> Iterator[None]:
        """While this lasts, a thread is at work on a model file."""
        self.begin(what, sha256)
        try:
            yield
        finally:
            self.end()

    def now(self) -> list[Doing]:
        """All that is under way."""
        return [Doing(*one) for one in self._doing.copy().values()]
