from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from schemas.dataset import DatasetProfile
from schemas.job import JobCause
from schemas.jobfile import Dataset
from schemas.signature import TensorSpec
from workers.errors import JobFailed
from workers.inspection.dataset import profile_splits
from workers.inspection.stream import SetHash, Stream, evenly_spaced
from workers.task import SPLITS, Splits, Task, load_task
from workers.training.data import Labelled, set_sha256, split_arrays

SPEC = TensorSpec(name="x", dtype="float32", shape=(-1, 2, 3), range=(-100.0, 100.0))


class Plain(Task):
    """Random numbers in three classes; a test replaces what it is about."""

    labels = ("ant", "bee", "cow")

    def __init__(self, spec: TensorSpec = SPEC, **parts) -> None:
        super().__init__({}, 0)
        self.spec = spec
        rng = np.random.default_rng(7)
        made = {}
        for name, n in (("train", 60), ("validation", 20), ("test", 20)):
            x = torch.from_numpy(rng.normal(size=(n, 2, 3)).astype(np.float32))
            made[name] = TensorDataset(x, torch.arange(n) % 3)
        self.parts = made | parts

    @property
    def input_spec(self) -> TensorSpec:
        return self.spec

    def model(self):
        raise AssertionError

    def splits(self) -> Splits:
        return Splits(**self.parts)

    def x(self, split: str):
        return self.parts[split].tensors[0]

    def y(self, split: str):
        return self.parts[split].tensors[1]


@dataclass(frozen=True)
class Listed:
    """Samples as they come, of any kind."""

    items: list

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int):
        return self.items[index]


def look(task: Task, **settings) -> DatasetProfile:
    return profile_splits(task, task.splits(), Dataset(**settings))


def test_clean_data_has_no_problems_and_counts_everything() -> None:
    found = look(Plain(), check="fail")
    assert found.problems == ()
    assert found.overlaps == ()
    assert [(s.split, s.n) for s in found.splits] == [
        ("train", 60),
        ("validation", 20),
        ("test", 20),
    ]
    assert found.splits[1].classes == {0: 7, 1: 7, 2: 6}
    assert found.baseline.classes == {0: 20 / 60, 1: 20 / 60, 2: 20 / 60}
    assert found.sampled is None
    assert found.seconds > 0


def of_all(parts: dict[str, Labelled]) -> str:
    """What the streamed fingerprint must equal, said over whole arrays."""
    lines = [f"{name}:{set_sha256(parts[name])}\n" for name in SPLITS]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def test_the_fingerprint_is_the_one_of_the_stacked_arrays() -> None:
    task = Plain()
    stacked = {name: split_arrays(task, name) for name in SPLITS}
    assert look(task).sha256 == of_all(stacked)
    digits = load_task("workers.recipes.digits:Digits", {}, 3)
    stacked = {name: split_arrays(digits, name) for name in SPLITS}
    assert look(digits, check="off").sha256 == of_all(stacked)


def test_a_set_read_in_blocks_has_the_hash_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Plain()
    monkeypatch.setattr("workers.inspection.stream.BLOCK_SAMPLES", 7)
    stream = Stream(task, task.parts["train"], "train")
    digest = SetHash(len(stream))
    sizes = []
    for block in stream.blocks():
        digest.update(block)
        sizes.append(len(block))
    assert sizes == [7] * 8 + [4]
    assert digest.hexdigest() == set_sha256(split_arrays(task, "train"))


def test_one_changed_value_or_class_changes_the_fingerprint() -> None:
    one, value, label = Plain(), Plain(), Plain()
    value.x("test")[19, 1, 2] += 1e-3
    label.y("validation")[3] = 2
    assert len({look(task).sha256 for task in (one, value, label)}) == 3


@pytest.mark.parametrize(
    ("sample", "says"),
    [
        ((torch.zeros(2, 4), 0), r"its input is float32\[2, 4\], but input_spec says float32"),
        ((torch.zeros(2, 3, dtype=torch.float64), 0), r"its input is float64\[2, 3\]"),
        ((torch.zeros(2, 3), 3), "its class is 3, but there are 3 labels"),
        ((torch.zeros(2, 3), -1), "its class is -1"),
        ((torch.zeros(2, 3), 1.5), "its class is 1.5, not a whole number"),
        ((torch.zeros(2, 3), float("nan")), "its class is nan, not a whole number"),
        ((torch.zeros(2, 3), "bee"), "its class is 'bee', not a whole number"),
        ((torch.zeros(2, 3), torch.eye(3)[0]), r"its class is of shape \[3\], not a whole number"),
        ((torch.zeros(2, 3), None), "its class is None, not a whole number"),
        (torch.zeros(2, 3), "is a Tensor, not a pair"),
    ],
)
def test_a_sample_that_does_not_fit_is_named_whatever_check_says(sample, says) -> None:
    good = (torch.zeros(2, 3), 1)
    task = Plain(validation=Listed([good] * 5 + [sample] + [good] * 3))
    with pytest.raises(JobFailed, match=says) as caught:
        look(task, check="off")
    assert caught.value.cause is JobCause.BAD_DATA
    assert caught.value.detail.startswith("sample 5 of validation")
    assert "\n" not in caught.value.detail


def test_an_empty_split_is_named() -> None:
    with pytest.raises(JobFailed, match="the test split is empty") as caught:
        look(Plain(test=Listed([])))
    assert caught.value.cause is JobCause.BAD_DATA


def test_a_sample_that_cannot_be_read_is_named_with_the_line_that_raised() -> None:
    class Torn(Listed):
        def __getitem__(self, index: int):
            if index == 4:
                msg = "truncated file"
                raise OSError(msg)
            return self.items[index]

    with pytest.raises(JobFailed, match="truncated file") as caught:
        look(Plain(train=Torn([(torch.zeros(2, 3), 1)] * 9)))
    assert caught.value.cause is JobCause.USER_CODE
    assert "test_worker_dataset.py:" in caught.value.detail
    assert "reading sample 4 of train" in caught.value.detail


def test_samples_that_know_their_file_are_named_by_it() -> None:
    class Filed(Listed):
        def describe(self, index: int) -> str:
            return f"part-{index}.npz"

    task = Plain(test=Filed([(torch.zeros(2, 3), 9)]))
    with pytest.raises(JobFailed, match=r"sample 0 of test \(part-0\.npz\)"):
        look(task)


def test_arrays_and_whole_floats_are_taken_too() -> None:
    items = [(np.full((2, 3), i, dtype=np.float32), np.float64(i % 3)) for i in range(9)]
    found = look(Plain(test=Listed(items)))
    assert found.splits[2].classes == {0: 3, 1: 3, 2: 3}


def test_leakage_is_counted_by_content_and_told_first() -> None:
    task = Plain()
    task.x("validation")[:4] = task.x("train")[10:14]
    task.y("validation")[:4] = task.y("train")[10:14]
    task.y("validation")[0] = (task.y("train")[10] + 1) % 3
    task.x("test")[7] = task.x("validation")[19]
    task.x("train")[1] = task.x("train")[0]
    found = look(task)
    pairs = {(o.split, o.other): (o.n, o.share) for o in found.overlaps}
    assert pairs == {("validation", "train"): (4, 0.2), ("test", "validation"): (1, 0.05)}
    first, *others = found.problems
    assert first == (
        "4 of 20 validation samples (20 %) are also in train, 1 of them with another class there, "
        "as sample 0 is 10 of train: accuracy on them says nothing"
    )
    assert others[0].startswith("1 of 20 test samples (5 %) are also in validation")


def test_an_overlap_that_is_allowed_is_kept_and_not_a_problem() -> None:
    task = Plain()
    task.x("validation")[0] = task.x("train")[0]
    found = look(task, max_overlap=0.05, check="fail")
    assert found.problems == ()
    assert found.overlaps[0].n == 1
    with pytest.raises(JobFailed, match="1 of 20 validation samples"):
        look(task, max_overlap=0.04, check="fail")


def test_duplicates_and_contrary_labels_within_a_split() -> None:
    task = Plain()
    task.x("train")[[5, 8, 20]] = task.x("train")[2].clone()  # all of class 2
    task.y("train")[20] = 0
    found = look(task)
    assert (found.splits[0].duplicates, found.splits[0].conflicts) == (3, 1)
    assert found.problems == (
        (
            "1 of 60 train samples (1.67 %) equal an earlier one of another class, as sample 20 "
            "equals 2: one of the two labels is wrong"
        ),
        "3 of 60 train samples (5 %) equal an earlier one, as sample 5 equals 2",
    )


def test_samples_of_whole_numbers_are_compared_and_never_not_finite() -> None:
    spec = SPEC.model_copy(update={"dtype": "uint8", "range": None})
    items = [(torch.full((2, 3), i, dtype=torch.uint8), i % 3) for i in range(30)]
    parts = {"train": items[:15], "validation": items[15:21], "test": items[21:]}
    task = Plain(spec, **{name: Listed(part) for name, part in parts.items()})
    assert look(task, check="fail").problems == ()


def test_numbers_that_are_none_or_out_of_range_are_found() -> None:
    task = Plain()
    task.x("train")[3, 0, 0] = float("nan")
    task.x("train")[9, 1, 1] = float("inf")
    task.x("test")[2, 0, 1] = -100.5
    found = look(task)
    train, _, test = found.splits
    assert (train.not_finite, train.out_of_range) == (2, 1)
    assert (test.not_finite, test.out_of_range) == (0, 1)
    assert found.problems[0] == (
        "2 of 60 train samples (3.33 %) hold NaN or an infinity, as sample 3 does"
    )
    assert "1 of 20 test samples (5 %) are outside of -100..100" in found.problems[1]
    assert [f.nan for f in found.baseline.features if f.name == "mean"] == [1]
    assert [f.over for f in found.baseline.features if f.name == "max"] == [1]


def test_the_bounds_of_a_range_belong_to_it_in_the_served_dtype() -> None:
    spec = SPEC.model_copy(update={"range": (-0.1, 0.1)})
    items = [(torch.full((2, 3), v), i % 3) for i, v in enumerate([0.1, -0.1, 0.0])]
    assert float(np.float32(0.1)) > 0.1
    found = look(Plain(spec, test=Listed(items)))
    assert found.splits[2].out_of_range == 0
    assert found.splits[0].out_of_range > 50


def test_missing_classes_and_imbalance_are_told_by_name() -> None:
    rng = np.random.default_rng(0)

    def of(*labels: int) -> Listed:
        return Listed([(rng.normal(size=(2, 3)).astype(np.float32), y) for y in labels])

    found = look(
        Plain(train=of(*[0] * 42, *[1] * 2), validation=of(0, 1, 2), test=of(0, 0)),
    )
    assert found.problems == (
        "train has no sample of 1 of 3 classes ('cow'): they cannot be learnt",
        "test has no sample of 2 of 3 classes ('bee', 'cow'): its accuracy says nothing of them",
        (
            "class 'ant' has 21 times the training samples of 'bee' (42 against 2): "
            "training.class_weights: balanced weighs them"
        ),
    )
    balanced = look(Plain(train=of(*[0] * 40, *[1] * 2, 2, 2)))
    assert not any("times the training samples" in text for text in balanced.problems)


def test_check_fail_ends_the_job_with_the_worst_faults() -> None:
    task = Plain()
    task.x("test")[:] = task.x("train")[:20]
    with pytest.raises(JobFailed, match="the data has faults: 20 of 20 test samples") as caught:
        look(task, check="fail")
    assert caught.value.cause is JobCause.BAD_DATA
    assert caught.value.detail.endswith("mend them, or set dataset.check to warn")


def test_check_warn_tells_problems_and_off_looks_for_none() -> None:
    task = Plain()
    task.x("test")[:] = task.x("train")[:20]
    warned, silent = look(task), look(task, check="off")
    assert len(warned.problems) == 1
    assert silent.problems == ()
    assert silent.overlaps == ()
    assert silent.sha256 == warned.sha256
    assert silent.baseline == warned.baseline


def test_statistics_come_from_samples_spread_over_the_training_split() -> None:
    n = 1000
    x = torch.arange(n, dtype=torch.float32).reshape(n, 1, 1).expand(n, 2, 3) / 10
    task = Plain(train=TensorDataset(x, torch.arange(n) % 3))
    found = look(task, profile_samples=100)
    assert found.sampled == 100
    assert found.baseline.n == 100
    mean = next(f for f in found.baseline.features if f.name == "mean")
    assert sum(mean.counts) == 100
    assert (mean.edges[0], mean.edges[-1]) == (0.0, pytest.approx(99.0))
    assert found.baseline.classes[0] == 334 / 1000, "of all samples"


@pytest.mark.parametrize(("n", "wanted", "given"), [(1000, 256, 256), (100, 256, 100), (7, 7, 7)])
def test_evenly_spaced_sees_all_of_a_sorted_split(n: int, wanted: int, given: int) -> None:
    rows = list(evenly_spaced(n, wanted))
    assert len(rows) == len(set(rows)) == given
    assert rows == sorted(rows)
    sorted_by_class = np.arange(n) * 7 // n
    assert np.bincount(sorted_by_class[rows], minlength=7).min() >= given // 7


def test_a_profile_survives_the_wire() -> None:
    found = look(Plain())
    assert DatasetProfile.model_validate_json(found.model_dump_json()) == found
