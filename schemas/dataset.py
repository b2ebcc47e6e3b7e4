"""What was found in the data before training, and what drift is measured against."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from schemas.base import Count, Wire
from schemas.ids import Sha256

MAX_CLASSES_SHOWN = 1000
MAX_FEATURES = 64
MAX_BINS = 32

Split = Literal["train", "validation", "test"]


class Feature(Wire):
    """The distribution of one statistic of the inputs, in bins fixed by the training data.

    name: ``mean``, ``std``, ``min``, ``max`` or ``zeros`` (the share of zeros) of all values
    of an input, or ``mean[i]`` or ``std[i]`` of its channel or feature i.
    edges: ascending; bin i holds edges[i] <= value < edges[i+1], and the last one its upper
    edge too. counts: per bin. under, over: values outside, infinities among them. nan: values
    that are no number. Counts of the same edges add up.
    """

    name: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    edges: Annotated[tuple[float, ...], Field(min_length=2, max_length=MAX_BINS + 1)]
    counts: Annotated[tuple[Count, ...], Field(max_length=MAX_BINS)]
    under: Count = 0
    over: Count = 0
    nan: Count = 0

    @model_validator(mode="after")
    def _consistent(self) -> Feature:
        ascending = all(a < b for a, b in zip(self.edges, self.edges[1:], strict=False))
        if not ascending or len(self.counts) != len(self.edges) - 1:
            msg = "edges must ascend, with one count between each two"
            raise ValueError(msg)
        return self


class Baseline(Wire):
    """What the model was trained on, as a device's windows are compared with it.

    n: training samples behind the features. classes: the share of each class in the
    training split, by its number; of very many, the most frequent.
    """

    n: Count
    features: Annotated[tuple[Feature, ...], Field(max_length=MAX_FEATURES)] = ()
    classes: Annotated[dict[int, float], Field(max_length=MAX_CLASSES_SHOWN)] = Field(
        default_factory=dict
    )


class SplitProfile(Wire):
    """One split.

    duplicates: samples equal to an earlier one. conflicts: those of them with another
    class. not_finite: samples with a NaN or an infinity. out_of_range: samples outside of
    the range that the task's input says.
    """

    split: Split
    n: Count
    classes: Annotated[dict[int, Count], Field(max_length=MAX_CLASSES_SHOWN)] = Field(
        default_factory=dict
    )
    duplicates: Count = 0
    conflicts: Count = 0
    not_finite: Count = 0
    out_of_range: Count = 0


class Overlap(Wire):
    """Samples of ``split`` that are also in ``other``: leakage."""

    split: Split
    other: Split
    n: Count
    share: Annotated[float, Field(ge=0, le=1)]


class DatasetProfile(Wire):
    """A data set, looked at before training.

    sha256: its fingerprint. sampled: samples per split behind the input statistics, where
    not all. problems: sentences for a person; the worst first. seconds: what it took.
    """

    sha256: Sha256
    splits: Annotated[tuple[SplitProfile, ...], Field(max_length=3)]
    overlaps: Annotated[tuple[Overlap, ...], Field(max_length=3)] = ()
    baseline: Baseline
    problems: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=500)], ...], Field(max_length=50)
    ] = ()
    sampled: Count | None = None
    seconds: Annotated[float, Field(ge=0)] = 0.0
