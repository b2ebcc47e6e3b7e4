"""Benign or malignant, from 30 measurements of cell nuclei.

569 fine-needle aspirates: Breast Cancer Wisconsin (Diagnostic), Street, Wolberg and
Mangasarian, 1993; it ships with scikit-learn. Not for medical use: a small set of one
hospital. The net is an additive one: each measurement contributes a piecewise linear curve
of its own (the encoding of Gorishniy et al., 2022, arXiv 2203.05556, from the package in
requirements.txt), so that one can see what it learnt from each. Logistic regression does as
well here; what it takes to train either is the same.
"""

from __future__ import annotations

from functools import cached_property

import torch
from rtdl_num_embeddings import PiecewiseLinearEncoding, compute_bins
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from schemas.signature import TensorSpec
from workers.task import Splits, Task

FEATURES = 30


class Net(nn.Module):
    """A curve per measurement and class, added up: about 500 weights."""

    def __init__(self, bins: list[Tensor]) -> None:
        super().__init__()
        self.encode = PiecewiseLinearEncoding(bins)
        self.add = nn.Linear(self.encode.get_output_shape()[0], len(Tumours.labels))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 2) of raw measurements, float32 (N, 30)."""
        logits: Tensor = self.add(self.encode(x))
        return logits


class Tumours(Task):
    """config: bins (8) per measurement, and lr and batch_size (32), as every task."""

    labels = ("malignant", "benign")
    batch_size = 32

    @property
    def input_spec(self) -> TensorSpec:
        """The measurements as they are, in scikit-learn's order."""
        return TensorSpec(
            name="measurements",
            dtype="float32",
            shape=(-1, FEATURES),
            layout="NC",
            meaning="mean, error and worst of 10 properties of cell nuclei, as in the data set",
        )

    @cached_property
    def _parts(self) -> tuple[tuple[Tensor, Tensor], ...]:
        x, y = load_breast_cancer(return_X_y=True)
        learn_x, test_x, learn_y, test_y = train_test_split(
            x, y, test_size=0.25, stratify=y, random_state=self.seed
        )
        train_x, check_x, train_y, check_y = train_test_split(
            learn_x, learn_y, test_size=0.25, stratify=learn_y, random_state=self.seed
        )
        pairs = ((train_x, train_y), (check_x, check_y), (test_x, test_y))
        return tuple((torch.tensor(a, dtype=torch.float32), torch.tensor(b)) for a, b in pairs)

    def splits(self) -> Splits:
        """319 to learn from, 107 to decide by, 143 held out, stratified."""
        train, validation, test = (TensorDataset(x, y) for x, y in self._parts)
        return Splits(train, validation, test)

    def model(self) -> nn.Module:
        """The bins come from the training split alone."""
        return Net(compute_bins(self._parts[0][0], n_bins=int(self.config.get("bins", 8))))
