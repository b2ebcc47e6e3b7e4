"""Sharded splits: files, memory, and what each worker reads."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from schemas.job import JobCause
from schemas.signature import TensorSpec
from tests.unit.workers.blobs import TRAIN, Blobs, arrays, sharded, spec_of
from workers import shards
from workers.errors import JobFailed, UsageError
from workers.shards import Shard, ShardedSamples, load_npz, npz_shards
from workers.training import loop
from workers.training.data import set_sha256, stack
from workers.training.feed import Feed
from workers.training.local import LocalEngine

LENGTHS = [30, 5, 20, 15]
SPEC = TensorSpec(name="x", dtype="float32", shape=(-1, 4))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    x, y = arrays(TRAIN, 0)
    at = 0
    for number, n in enumerate(LENGTHS):
        np.savez_compressed(tmp_path / f"part-{number}.npz", x=x[at : at + n], y=y[at : at + n])
        at += n
    return tmp_path


def test_lengths_are_read_from_the_headers_alone(folder, monkeypatch) -> None:
    monkeypatch.setattr(shards.np, "load", lambda *_, **__: pytest.fail("read a whole file"))
    found = npz_shards(folder)
    assert [shard.length for shard in found.shards] == LENGTHS
    assert len(found) == TRAIN


def test_samples_are_those_of_the_files_in_order(folder) -> None:
    x, y = arrays(TRAIN, 0)
    found = npz_shards(folder)
    assert set_sha256(stack(found, SPEC, "train", 3)) == set_sha256(
        shards_free := stack(sharded(x, y, [TRAIN]), SPEC, "train", 3)
    )
    assert np.array_equal(shards_free.y, y)
    one_x, one_y = found[31]
    assert torch.equal(one_x, torch.from_numpy(x[31]))
    assert int(one_y) == y[31]
    assert found.describe(31) == "part-1.npz row 1"
    assert np.array_equal(found.labels(2), y[35:55])
    with pytest.raises(IndexError):
        found[TRAIN]


def test_no_more_shards_are_kept_than_said(folder) -> None:
    x, y = arrays(TRAIN, 0)
    samples = sharded(x, y, LENGTHS, cached=1)
    in_order = [samples[i] for i in range(TRAIN)]
    assert len(in_order) == TRAIN
    assert len(samples._load.loads) == 4, "in order, each is read once"
    assert len(samples._kept) == 1
    sent = pickle.loads(pickle.dumps(samples))  # noqa: S301 - made here
    assert len(sent._kept) == 0
    assert torch.equal(sent[40][0], samples[40][0])


def test_two_workers_read_their_own_shards_and_make_as_many_steps() -> None:
    x, y = arrays(60, 0)
    held = Blobs({}, 0).splits()
    loads, steps, seen = [], [], []
    for rank in (0, 1):
        train = sharded(x, y, [10] * 6)
        splits = type(held)(train, sharded(x[:33], y[:33], [20, 13]), held.test)
        feed = Feed(splits, batch_size=8, rank=rank, world_size=2, seed=3)
        assert not train._load.loads, "nothing is read before it is asked for"
        batches = list(feed.train(1))
        steps.append([len(b[1]) for b in batches])
        loads.append(train._load.loads)
        seen.append(torch.cat([b[0] for b in batches]))
    assert steps[0] == steps[1] == [4] * 7 + [2]
    assert sorted(loads[0] + loads[1]) == [f"shard-{i}" for i in range(6)]
    assert {len(one) for one in loads} == {3}
    together = torch.cat(seen).numpy()
    assert np.array_equal(np.unique(together, axis=0), np.unique(x, axis=0))


def test_validation_in_shards_is_counted_once_over_the_workers() -> None:
    x, y = arrays(33, 0)
    held = Blobs({}, 0).splits()
    found = []
    for rank in (0, 1):
        validation = sharded(x, y, [20, 13])
        feed = Feed(
            type(held)(held.train, validation, held.test),
            batch_size=8,
            rank=rank,
            world_size=2,
            seed=0,
        )
        found += [b[0] for b in feed.validation()]
    assert np.array_equal(torch.cat(found).numpy(), x)


def test_class_counts_read_the_labels_alone_and_each_shard_once(folder, monkeypatch) -> None:
    held = Blobs({}, 0).splits()
    read: list[str] = []
    original = shards._array
    monkeypatch.setattr(
        shards, "_array", lambda shard, name: read.append(name) or original(shard, name)
    )
    counts = np.zeros(3, dtype=np.int64)
    for rank in (0, 1):
        train = npz_shards(folder)
        train._labels = lambda shard: shards._array(shard, "y")
        feed = Feed(
            type(held)(train, held.validation, held.test),
            batch_size=8,
            rank=rank,
            world_size=2,
            seed=0,
        )
        counts += feed.class_counts(3, lambda: None)
    assert read == ["y"] * 4
    assert np.array_equal(counts, np.bincount(arrays(TRAIN, 0)[1]))


def test_a_training_on_files_is_that_on_arrays_in_the_same_shards(folder) -> None:
    class OnFiles(Blobs):
        def splits(self):
            held = super().splits()
            return type(held)(npz_shards(folder, cached=1), held.validation, held.test)

    ends = []
    for task in (OnFiles({}, 0), Blobs({"shards": LENGTHS}, 0)):
        engine = LocalEngine("accuracy")
        loop.run(task, spec_of(class_weights="balanced"), engine)
        ends.append(loop.unpack(engine.last)["model"])
    assert all(torch.equal(v, ends[1][k]) for k, v in ends[0].items())


def break_archive(folder: Path) -> None:
    (folder / "part-1.npz").write_bytes(b"PK no more")


def leave_out_y(folder: Path) -> None:
    np.savez(folder / "part-1.npz", x=np.zeros((5, 4), np.float32))


def widen(folder: Path) -> None:
    np.savez(folder / "part-1.npz", x=np.zeros((5, 3), np.float32), y=np.zeros(5, np.int64))


def shorten(folder: Path) -> None:
    np.savez(folder / "part-1.npz", x=np.zeros((5, 4), np.float32), y=np.zeros(4, np.int64))


def scalar(folder: Path) -> None:
    np.savez(folder / "part-1.npz", x=np.float32(1), y=np.zeros(5, np.int64))


def claim_too_much(folder: Path) -> None:
    with zipfile.ZipFile(folder / "part-1.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr'")


@pytest.mark.parametrize(
    "damage", [break_archive, leave_out_y, widen, shorten, scalar, claim_too_much]
)
def test_a_shard_that_does_not_fit_is_named(folder, damage) -> None:
    damage(folder)
    with pytest.raises(JobFailed, match=r"shard .*part-1\.npz") as caught:
        npz_shards(folder)
    assert caught.value.cause is JobCause.BAD_DATA
    assert "\n" not in caught.value.detail


def test_an_empty_folder_and_a_shard_that_changed_are_bad_data(folder, tmp_path) -> None:
    with pytest.raises(JobFailed, match=r"no \*\.npz"):
        npz_shards(tmp_path / "nothing")
    with pytest.raises(UsageError, match="0 shards"):
        ShardedSamples([Shard("empty", 0)], load_npz)
    found = npz_shards(folder)
    shorten(folder)
    with pytest.raises(JobFailed, match="holds 4 samples, not 5"):
        found[31]
    (folder / "part-1.npz").unlink()
    with pytest.raises(JobFailed, match="cannot be read"):
        found[32]
