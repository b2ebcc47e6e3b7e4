"""What a search needs, and what it gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from workers.inspection.stream import Stream
from workers.optimization.executor import TrialFailed
from workers.optimization.measuring.evaluate import Scored
from workers.optimization.point import Point
from workers.optimization.searching.budgets import Known
from workers.optimization.searching.front import Selection
from workers.optimization.searching.make import Net
from workers.optimization.searching.trials import Trial
from workers.optimization.session import Array


@dataclass(frozen=True, slots=True)
class Data:
    """What a search reads of the data. head: the first validation inputs, (n, …).

    train: to calibrate with; None: nothing static is quantized.
    """

    train: Stream | None
    validation: Stream
    test: Stream | None
    head: Array


class Nets(Protocol):
    """What makes nets that must be trained."""

    def pruned(self, shares: Sequence[float]) -> Iterator[tuple[float, Net | TrialFailed]]:
        """Pruned by each share and trained again, in FP32, as each is done."""
        ...

    def trained(self, shares: Sequence[float]) -> Iterator[tuple[float, Net | TrialFailed]]:
        """The nets of these shares, trained with quantization in the loop, as each is done."""
        ...

    @property
    def can_train(self) -> bool:
        """Whether ``trained`` is to be had."""
        ...


@dataclass(frozen=True, slots=True)
class Optimized:
    """What came of it.

    trials, known: all, by point; the files of those kept lie in the folder. tests: of the
    kept ones on the test split.
    """

    selection: Selection
    trials: Mapping[Point, Trial]
    known: Mapping[Point, Known]
    tests: Mapping[Point, Scored] = field(default_factory=dict)

    def kept(self) -> list[Trial]:
        """In the order in which they are offered."""
        return [self.trials[known.point] for known in self.selection.kept]
