"""Runs over files that are cut off at their end, and rows that are odd in their shape."""

from __future__ import annotations

import contextlib
import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from onnx import TensorProto
from pyarrow import parquet

from edge_client import batch_arrays, batch_run
from edge_client.batch_command import Voice, Wish, run_batch
from edge_client.batch_journal import Key, Place, Progress, opened
from edge_client.batch_parquet import ParquetSource
from edge_client.batch_results import Part, encode, join
from edge_client.batch_tables import CsvSource
from edge_client.cli_infer import infer
from edge_client.errors import BatchRunError, InputError, OtherRunError
from schemas.signature import Signature, TensorSpec
from tests.fakes.edge_installed import flat_onnx, install, release_of
from tests.fakes.edge_kill import killed_at_each_step
from tests.fakes.edge_models import linear_onnx, release, samples

KEY = Key(model="m", version=1, sha256="0" * 64, input="i", start=0, stop=None, columns=(),
          id=None, raw=False, format="csv")  # fmt: skip
WHOLE = b"row,id\r\n" + b"".join(b"%d,%d\r\n" % (i, i) for i in range(6))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    return install(tmp_path / "home", release(linear_onnx()))


def do(home, source, out, **more):
    wish = Wish(model="digits", source=source, out=out, telemetry=False, **more)
    return run_batch(home, wish, Voice(lambda _text: None))


def finished(place: Place) -> batch_run.Run:
    """A run of three parts that are to be put together."""
    shutil.rmtree(place.work, ignore_errors=True)
    place.out.unlink(missing_ok=True)
    place.work.mkdir()
    for i in range(3):
        rows = [2 * i, 2 * i + 1]
        place.part(i).write_bytes(encode(Part(rows, [str(row) for row in rows]), "csv"))
    progress = Progress(key=KEY, parts=3, next_row=6, answered=6, finished=True)
    place.journal.write_text(progress.model_dump_json())
    return ended(place, progress)


def ended(place: Place, progress: Progress) -> batch_run.Run:
    run = batch_run.Run.__new__(batch_run.Run)
    run.place, run.progress = place, progress
    return run


def test_killed_while_it_cleans_up_it_has_all_rows(tmp_path) -> None:
    place = Place(tmp_path / "o.csv", "csv", single=True)
    deaths, last = 0, finished(place).progress
    for _ in killed_at_each_step(lambda: finished(place), lambda: ended(place, last)._finish()):
        deaths += 1
        with contextlib.suppress(OtherRunError), opened(place, KEY, restart=False) as progress:
            ended(place, progress)._finish() if progress.finished else None
        if place.out.exists():
            assert place.out.read_bytes() == WHOLE
    assert deaths >= 6
    assert place.out.read_bytes() == WHOLE


def test_a_restart_forgets_what_is_done_before_it_removes_it(tmp_path) -> None:
    place = Place(tmp_path / "out", "csv", single=False)
    finished(place)
    (place.work / "part-of-my-thesis.txt").write_text("mine")
    removed = []
    unlink = os.unlink
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "unlink", lambda p, **m: (removed.append(os.fspath(p)), unlink(p, **m)))
        with opened(place, KEY, restart=False) as progress:
            assert progress.finished
        with contextlib.suppress(OtherRunError), opened(place, KEY, restart=True):
            pass
    assert removed[0].endswith("run.json")
    assert len(removed) == 4
    assert [p.name for p in place.work.iterdir()] == ["part-of-my-thesis.txt"]


def test_a_part_that_is_gone_is_missed(tmp_path) -> None:
    place = Place(tmp_path / "o.csv", "csv", single=True)
    run = finished(place)
    place.part(1).unlink()
    with pytest.raises(BatchRunError, match=r"part 1 in .* is gone"):
        run._finish()
    assert not place.out.exists()


def test_a_file_of_an_odd_shape_spoils_no_other(home, tmp_path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    x = samples(12)
    for i, row in enumerate(x):
        np.save(folder / f"{i:02}.npy", row)
    np.save(folder / "00.npy", np.ones(5, np.float32))  # the first of all
    np.save(folder / "04.npy", np.ones(4, np.float64))
    huge = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }"
    (folder / "07.npy").write_bytes((huge % 2**50).ljust(127) + b"\n")
    done, place = do(home, folder, tmp_path / "o.csv")
    bad = [line.split(",", 2) for line in place.errors.read_text().splitlines()[1:]]
    assert [name for _, name, _ in bad] == ["00.npy", "04.npy", "07.npy"]
    assert "must have shape [-1, 4], not [1, 5]" in bad[0][2]
    assert "must be float32, not float64" in bad[1][2]
    assert (done.answered, done.failed) == (9, 3)


def test_files_are_read_a_few_at_a_time(home, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i, row in enumerate(samples(10)):
        np.save(folder / f"{i:02}.npy", row)
    monkeypatch.setattr(batch_arrays, "CHUNK_BYTES", 3 * 16)
    sizes = []
    answer = batch_run.Run._answer
    monkeypatch.setattr(
        batch_run.Run,
        "_answer",
        lambda self, chunk: (sizes.append(len(chunk.rows)), answer(self, chunk)),
    )
    do(home, folder, tmp_path / "o.csv")
    assert sizes == [3, 3, 3, 1]


def test_wide_tables_are_read_a_few_rows_at_a_time(tmp_path, monkeypatch) -> None:
    x = np.arange(400).reshape(10, 40).astype(np.float32)
    np.savetxt(tmp_path / "x.csv", x, delimiter=",")
    parquet.write_table(pa.table({f"c{i}": x[:, i] for i in range(40)}), tmp_path / "x.parquet")
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, 40)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=(-1, 2)),),
    )
    for name in ("batch_tables", "batch_parquet"):
        monkeypatch.setattr(f"edge_client.{name}.CHUNK_BYTES", 4 * 40 * 128)
    for kind, name, most in ((CsvSource, "x.csv", 4), (ParquetSource, "x.parquet", 8)):
        chunks = list(kind(tmp_path / name, signature, id_=None).read(0, None, 1000))
        assert max(len(chunk.rows) for chunk in chunks) == most
        np.testing.assert_array_equal(np.concatenate([c.feed["x"] for c in chunks]), x)


def test_whole_numbers_beside_a_null_keep_their_last_digit(tmp_path) -> None:
    large = 2**53 + 1
    parquet.write_table(pa.table({"x": [large, None, 7]}), tmp_path / "x.parquet")
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="int64", shape=(-1, 1)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=(-1, 2)),),
    )
    source = ParquetSource(tmp_path / "x.parquet", signature, id_=None)
    (chunk,) = source.read(0, None, 10)
    assert chunk.feed["x"].tolist() == [[large], [7]]
    assert [bad.row for bad in chunk.bad] == [1]


@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_outputs_of_different_shapes_are_refused_and_not_shifted(tmp_path, kind) -> None:
    def part(start: int, wide: int) -> Part:
        return Part([start], [str(start)], {"y": [np.ones(wide, np.float32)]})

    both = part(0, 2)
    both.add([1], ["1"], {"y": [np.ones(3, np.float32)]})
    with pytest.raises(BatchRunError, match="different shapes do not go into one"):
        encode(both, kind)
    assert json.loads(encode(both, "jsonl").splitlines()[1])["y"] == [1.0] * 3
    paths = [tmp_path / f"{wide}.{kind}" for wide in (2, 3)]
    for i, path in enumerate(paths):
        path.write_bytes(encode(part(i, i + 2), kind))
    with pytest.raises(BatchRunError, match="different shapes") as found:
        join(paths, tmp_path / f"o.{kind}", kind)
    assert "jsonl" in found.value.hint
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_outputs_of_rows_of_their_own_shape_stay_apart() -> None:
    found = batch_run._joined([np.ones((1, 2)), np.ones((2, 3))])
    assert [row.shape for row in found] == [(2,), (3,), (3,)]


@pytest.mark.parametrize("text", ["[300, 1, 1, 1]", '{"x": {"a": 1}}', "[[1, 2], [3]]", "[null]"])
def test_json_that_is_no_input_is_refused_in_words(tmp_path, text, monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    golden = np.ones((8, 4), np.uint8)
    home = install(tmp_path / "home", release_of(flat_onnx((4,), TensorProto.UINT8), golden))
    words = ["digits", "-", "--home", str(home.root), "--no-telemetry"]
    found = CliRunner().invoke(infer, words, input=text)
    assert isinstance(found.exception, InputError), found.exception
