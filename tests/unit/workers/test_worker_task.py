from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from schemas.errors import Exit
from schemas.job import JobCause
from workers.errors import JobFailed, UsageError
from workers.task import SPLITS, code_sha256, load_task
from workers.training.data import set_sha256, split_arrays
from workers.training.feed import Feed

DIGITS = "workers.recipes.digits:Digits"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a module that can be imported, and forgets it afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    written = []

    def write(name: str, text: str) -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        written.append(name)
        return path

    yield write
    for name in written:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("entrypoint", "says"),
    [
        ("no_such_package.x:Y", "no module 'no_such_package'"),
        ("workers.recipes.digits:Nothing", "no class 'Nothing'"),
        ("workers.recipes.digits:Net", "not a subclass"),
        ("workers.task:Task", "does not define"),
    ],
)
def test_a_wrong_entrypoint_is_one_line(entrypoint: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        load_task(entrypoint, {}, 0)
    assert caught.value.exit_code == Exit.USAGE
    assert "\n" not in str(caught.value)


def test_an_error_in_a_tasks_code_names_its_file_and_line(module) -> None:
    path = module("breaks_early", "import math\n\n\nx = math.sqrt(-1)\n")
    with pytest.raises(JobFailed) as caught:
        load_task("breaks_early:Task", {}, 0)
    assert caught.value.cause is JobCause.USER_CODE
    assert f"{path}:4" in caught.value.detail
    assert "Traceback" not in caught.value.detail


def test_a_syntax_error_names_its_file_and_line(module) -> None:
    path = module("does_not_parse", "x = 1\ny = (\n")
    with pytest.raises(JobFailed) as caught:
        load_task("does_not_parse:Task", {}, 0)
    assert f"{path}:2" in caught.value.detail


def test_a_missing_dependency_of_a_task_is_named(module) -> None:
    module("needs_more", "import not_installed_here\n")
    with pytest.raises(JobFailed, match=r"\.py:\d+: No module named 'not_installed_here'"):
        load_task("needs_more:Task", {}, 0)


def test_unknown_config_of_digits_is_refused() -> None:
    with pytest.raises(UsageError, match="does not know widht"):
        load_task(DIGITS, {"widht": 2}, 0)


def test_digits_are_split_by_seed_without_overlap() -> None:
    tasks = [load_task(DIGITS, {}, seed) for seed in (0, 0, 1)]
    first, again, other = ({name: split_arrays(t, name) for name in SPLITS} for t in tasks)
    for name in SPLITS:
        assert set_sha256(first[name]) == set_sha256(again[name]) != set_sha256(other[name])
    assert {name: len(part) for name, part in first.items()} == {
        "train": 1041,
        "validation": 355,
        "test": 401,
    }
    shares = [np.bincount(part.y) / len(part) for part in first.values()]
    assert np.abs(shares[0] - shares[2]).max() < 0.01, "each class has the same share"
    # The split is of rows: 1,797 in all, whichever images happen to be alike.
    assert sum(len(part) for part in first.values()) == 1797


def test_a_split_must_fit_the_signature(module) -> None:
    module(
        "wrong_type",
        "import torch\nfrom torch.utils.data import TensorDataset\n"
        "from workers.recipes.digits import Digits\nfrom workers.task import Splits\n"
        "class Floats(Digits):\n"
        "    def splits(self):\n"
        "        d = TensorDataset(torch.zeros(4, 1, 8, 8), torch.zeros(4))\n"
        "        return Splits(d, d, d)\n"
        "class Classes(Digits):\n"
        "    def splits(self):\n"
        "        x = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)\n"
        "        d = TensorDataset(x, torch.full((4,), 10))\n"
        "        return Splits(d, d, d)\n",
    )
    with pytest.raises(UsageError, match=r"float32.*but input_spec says uint8"):
        split_arrays(load_task("wrong_type:Floats", {}, 0), "train")
    with pytest.raises(UsageError, match=r"class 10\.\.10, but there are 10 labels"):
        split_arrays(load_task("wrong_type:Classes", {}, 0), "train")
    with pytest.raises(UsageError, match="no split is called 'dev'"):
        split_arrays(load_task(DIGITS, {}, 0), "dev")


def test_the_hash_of_a_set_sees_labels_and_order() -> None:
    data = split_arrays(load_task(DIGITS, {}, 0), "test")
    assert len({set_sha256(d) for d in (data, type(data)(data.x, data.y[::-1].copy()))}) == 2


def test_the_code_hash_is_of_the_tasks_own_file(module) -> None:
    text = "from workers.recipes.digits import Digits\nclass Mine(Digits):\n    pass\n"
    module("mine_one", text)
    module("mine_two", text + "# changed\n")
    one, two = (code_sha256(load_task(f"{m}:Mine", {}, 0)) for m in ("mine_one", "mine_two"))
    assert one != two


def test_augmentation_moves_images_and_loses_no_type() -> None:
    task = load_task(DIGITS, {"shift": 1}, 0)
    x = torch.arange(3 * 64, dtype=torch.uint8).reshape(3, 1, 8, 8)
    moved = task.augment(x, torch.Generator().manual_seed(1))
    assert moved.shape == x.shape
    assert moved.dtype == x.dtype
    assert not torch.equal(moved, x)
    assert torch.equal(load_task(DIGITS, {"shift": 0}, 0).augment(x, torch.Generator()), x)


def test_two_workers_share_an_epoch_and_count_validation_once() -> None:
    splits = load_task(DIGITS, {}, 0).splits()
    feeds = [Feed(splits, batch_size=32, rank=rank, world_size=2, seed=0) for rank in (0, 1)]
    batches = [[len(y) for _, y in feed.train(1)] for feed in feeds]
    assert batches[0] == batches[1], "each worker makes the same number of steps"
    assert max(batches[0]) == 16
    assert sum(map(sum, batches)) in {1041, 1042}
    assert sum(len(y) for feed in feeds for _, y in feed.validation()) == 355
    first, second = (next(iter(feeds[0].train(epoch)))[1] for epoch in (1, 2))
    assert not torch.equal(first, second), "shuffled anew"
