"""What a model says about a batch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_client.classify import Array, classify, is_scores
from edge_client.slots import Slot


class Prediction:
    """What a model says about a batch of n samples.

    Attributes:
        outputs: arrays by name.
        n: samples.
        labels: names of the classes, where the model has them.
        slot: which version answered; None outside of a runtime.
    """

    __slots__ = ("_classified", "labels", "n", "outputs", "slot")

    def __init__(
        self,
        outputs: dict[str, Array],
        n: int,
        labels: tuple[str, ...] = (),
        slot: Slot | None = None,
    ) -> None:
        self.outputs, self.n, self.labels, self.slot = outputs, n, labels, slot
        self._classified: tuple[Array | None, Array | None] | None = None

    @property
    def classes(self) -> npt.NDArray[np.int64] | None:
        """[n], the index of the highest score; None when the first output is no scores."""
        return self._classify()[0]

    @property
    def confidence(self) -> npt.NDArray[np.float64] | None:
        """[n], the probability of that class; None when the first output is no scores."""
        return self._classify()[1]

    @property
    def scores(self) -> Array | None:
        """[n, classes], where the first output is scores over classes."""
        first = next(iter(self.outputs.values()), None)
        return first if is_scores(first, self.n) else None

    def label(self, sample: int = 0) -> str | None:
        """The name of a sample's class, where the model has names."""
        classes = self.classes
        if classes is None or not self.labels:
            return None
        return self.labels[int(classes[sample])]

    def _classify(self) -> tuple[Array | None, Array | None]:
        """Worked out when it is first read: a caller that wants the outputs alone pays nothing."""
        if self._classified is None:
            scores = self.scores
            self._classified = (None, None) if scores is None else classify(scores)
        return self._classified

    def __repr__(self) -> str:
        named = ", ".join(f"{k}: {v.dtype}{list(v.shape)}" for k, v in self.outputs.items())
        return f"Prediction(n={self.n}, {{{named}}})"
