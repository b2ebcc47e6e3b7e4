"""What a batcher works with: requests with what they carry, and a queue for each model."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from edge_client.errors import EdgeError
from edge_client.inference import Array, Loaded, Model, Prediction
from edge_client.queueing import ALONE, Queue, Request

Answer: TypeAlias = Prediction | EdgeError

_log = logging.getLogger(__name__)


class Runs(Protocol):
    """What a batcher needs of ``edge_client.runtime.Runtime``."""

    def loaded(self, model: str | None = None) -> Loaded | None:
        """What serves a model now."""

    def infer(
        self,
        loaded: Loaded,
        feed: dict[str, Array],
        *,
        n: int,
        queue_seconds: float = 0.0,
        runs: int = 1,
        tried: bool = True,
    ) -> list[Array]:
        """Run a checked feed of n samples, timed and counted.

        queue_seconds: how long they waited. tried: False where a failure is not to be counted,
        as the samples are going to be run again one by one.
        """

    def rejected(self, loaded: Loaded, n: int = 1) -> None:
        """Count a request that does not fit the model."""

    def shed(self, loaded: Loaded, n: int = 1) -> None:
        """Count samples that were turned away unanswered."""


@dataclass(slots=True)
class Job:
    """A request with what it carries. Its answer is given once."""

    request: Request
    loaded: Loaded
    feed: dict[str, Array]
    done: Callable[[Answer], None]

    def answer(self, answer: Answer) -> None:
        """Hand it over."""
        try:
            self.done(answer)
        except Exception:  # noqa: BLE001 - a caller's function; the others' answers are due
            _log.exception("an answer could not be handed over")


@dataclass(slots=True)
class Desk:
    """One model's queue and its threads. running: runs under way.

    alone: SHA-256 of models whose batches turned out not to come apart again. seconds: that a
    request alone takes in the model, lately.
    """

    queue: Queue
    changed: threading.Condition
    jobs: dict[int, Job] = field(default_factory=dict)
    threads: list[threading.Thread] = field(default_factory=list)
    alone: set[str] = field(default_factory=set)
    running: int = 0
    seconds: float = 1.0


def handing_over(answers: list[Answer], answered: threading.Lock) -> Callable[[Answer], None]:
    """A function that keeps an answer, and releases the lock."""

    def done(answer: Answer) -> None:
        answers.append(answer)
        answered.release()

    return done


def can_merge(model: Model) -> bool:
    """Whether samples of several requests may go into one run: a batch in front, everywhere."""
    sides = (*model.signature.inputs, *model.signature.outputs)
    return model.apart and all(spec.shape[:1] == (-1,) for spec in sides)


def kind_of(loaded: Loaded, feed: Mapping[str, Array]) -> Hashable:
    """What runs together: the same loaded model, and shapes that differ in the batch alone."""
    if not can_merge(loaded.model):
        return ALONE
    return (id(loaded), *(value.shape[1:] for value in feed.values()))


def bytes_of(feed: Mapping[str, Array]) -> int:
    """Bytes of a feed's arrays."""
    return sum(value.nbytes for value in feed.values())
