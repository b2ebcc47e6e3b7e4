"""Batch inference without Ray: planning, reading, scoring, resuming."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.signature import TensorSpec
from tests.fakes.edge_models import linear_onnx
from workers.batch.plan import plan
from workers.batch.read import conform, pieces
from workers.batch.score import Scorer, found, part_of
from workers.batch.score_all import _unit, prepare
from workers.errors import JobFailed, UsageError

FEATURES = 4
SPEC = TensorSpec(name="x", dtype="float32", shape=(-1, FEATURES), range=(-10.0, 10.0))
PIXELS = TensorSpec(name="image", dtype="uint8", shape=(-1, 1, 2, 2), range=(0.0, 16.0))


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(10, FEATURES)).astype(np.float32)


def all_of(source: Path, **options) -> np.ndarray:
    return np.concatenate([p for unit in plan(str(source), "m", **options) for p in pieces(unit)])


@pytest.mark.parametrize("kind", ["npy", "npz", "csv", "parquet"])
def test_every_kind_of_file_gives_the_same_rows_however_it_is_cut(tmp_path, rows, kind) -> None:
    path = tmp_path / f"in.{kind}"
    frame = pd.DataFrame(rows, columns=list("abcd"))
    match kind:
        case "npy":
            np.save(path, rows)
        case "npz":
            np.savez_compressed(path, x=rows, y=np.arange(10))
        case "csv":
            frame.to_csv(path, index=False)
        case "parquet":
            frame.to_parquet(path, row_group_size=4)
    np.testing.assert_allclose(all_of(path, unit_rows=3), rows, rtol=1e-6)
    units = plan(str(tmp_path), "m", unit_rows=3)
    assert len({unit.key for unit in units}) == len(units) >= (1 if kind == "csv" else 3)
    assert [unit.name for unit in units] == [path.name] * len(units)


def test_columns_are_chosen_by_name_and_in_that_order(tmp_path, rows) -> None:
    pd.DataFrame(rows, columns=list("abcd")).to_csv(tmp_path / "in.csv", index=False)
    (unit,) = plan(str(tmp_path), "m")
    np.testing.assert_allclose(next(pieces(unit, ("d", "a"))), rows[:, [3, 0]], rtol=1e-6)
    with pytest.raises(UsageError, match="no column e; there are a, b, c, d"):
        list(pieces(unit, ("e",)))


def test_a_changed_file_or_model_is_new_work(tmp_path, rows) -> None:
    np.save(tmp_path / "in.npy", rows)
    (first,) = plan(str(tmp_path), "m")
    assert plan(str(tmp_path), "m") == (first,)
    assert plan(str(tmp_path), "other")[0].key != first.key
    np.save(tmp_path / "in.npy", rows[:5])
    assert plan(str(tmp_path), "m")[0].key != first.key


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda _: None, "there is no input"),
        (lambda p: p.mkdir(), "holds no .npy"),
        (lambda p: (p.mkdir(), (p / "a.npy").write_bytes(b"nonsense")), "a.npy cannot be read"),
        (lambda p: (p.mkdir(), np.savez(p / "a.npz", a=[1], b=[2])), "none is called 'x'"),
        (
            lambda p: (p.mkdir(), np.save(p / "a.npy", np.array([{}]), allow_pickle=True)),
            "plain numbers",
        ),
    ],
)
def test_an_input_that_cannot_be_read_says_why(tmp_path, make, says) -> None:
    make(tmp_path / "in")
    with pytest.raises(UsageError, match=says):
        plan(str(tmp_path / "in"), "m")


def test_a_file_that_ends_too_early_says_so(tmp_path, rows) -> None:
    np.save(tmp_path / "in.npy", rows)
    whole = (tmp_path / "in.npy").read_bytes()
    (tmp_path / "in.npy").write_bytes(whole[:-8])
    (unit,) = plan(str(tmp_path), "m")
    with pytest.raises(UsageError, match="8 bytes too early"):
        list(pieces(unit))


def test_rows_that_the_model_cannot_take_are_told_apart() -> None:
    values = np.array([[1, 2, 3, 4], [1, np.nan, 3, 4], [1.5, 2, 3, 4], [17, 2, 3, 4.0]])
    x, errors = conform(values, PIXELS)
    assert x.dtype == np.uint8
    assert x.shape == (4, 1, 2, 2)
    assert errors[0] is None
    assert "NaN" in errors[1]
    assert "fractions" in errors[2]
    assert "outside of 0..16" in errors[3]
    assert x[0].ravel().tolist() == [1, 2, 3, 4]
    assert not x[1:].any()
    with pytest.raises(UsageError, match=r"shape \[3\], the model's input 'image' takes"):
        conform(np.zeros((2, 3)), PIXELS)


@given(
    hnp.arrays(
        st.sampled_from([np.float64, np.float32, np.int64, np.uint8]),
        st.tuples(st.integers(0, 5), st.just(FEATURES)),
    )
)
def test_what_passes_is_what_went_in(values) -> None:
    x, errors = conform(values, PIXELS)
    for given_row, row, error in zip(values, x, errors, strict=True):
        if error is None:
            np.testing.assert_array_equal(row.ravel().astype(np.float64), given_row)
            assert 0 <= row.min() <= row.max() <= 16


def scorer(output: Path) -> Scorer:
    return Scorer(linear_onnx(), SPEC, ("a", "b", "c"), str(output), batch_size=3)


def test_a_unit_is_scored_once_and_its_result_is_whole(tmp_path, rows) -> None:
    rows[4, 1] = np.nan
    np.save(tmp_path / "in.npy", rows)
    output = tmp_path / "out"
    units = plan(str(tmp_path / "in.npy"), "m", unit_rows=6)
    done = [scorer(output).score(unit) for unit in units]
    assert [(d.rows, d.errors) for d in done] == [(6, 1), (4, 0)]
    table = pd.concat(pq.read_table(part_of(str(output), u)).to_pandas() for u in units)
    assert table["row"].tolist() == list(range(10))
    assert table["error"].notna().tolist() == [i == 4 for i in range(10)]
    fine = table[table["error"].isna()]
    outputs = np.stack(fine["output"])
    assert (outputs.argmax(1) == fine["class"]).all()
    np.testing.assert_allclose(outputs.max(1), fine["confidence"])
    assert {c: "abc"[int(c)] for c in fine["class"]} == dict(
        zip(fine["class"], fine["label"], strict=True)
    )
    assert np.isnan(table["confidence"].iloc[4])

    stamps = {p: p.stat().st_mtime_ns for p in output.iterdir()}
    again = scorer(output)
    again._session = None  # nothing is inferred a second time
    assert [again.score(unit) for unit in units] == done
    assert {p: p.stat().st_mtime_ns for p in output.iterdir()} == stamps


def test_a_unit_that_cannot_be_read_leaves_nothing_behind(tmp_path, rows) -> None:
    np.save(tmp_path / "in.npy", rows)
    (unit,) = plan(str(tmp_path / "in.npy"), "m")
    (tmp_path / "in.npy").unlink()
    done = scorer(tmp_path / "out").score(unit)
    assert "in.npy cannot be read" in done.detail
    assert found(str(tmp_path / "out"), unit) is None
    assert list((tmp_path / "out").iterdir()) == []


def test_units_travel_as_json(tmp_path, rows) -> None:
    pd.DataFrame(rows).rename(columns=str).to_parquet(tmp_path / "in.parquet", row_group_size=4)
    for unit in plan(str(tmp_path), "m", unit_rows=3):
        assert _unit(json.dumps(asdict(unit))) == unit


def test_results_below_the_input_are_no_input(tmp_path, rows) -> None:
    np.save(tmp_path / "in.npy", rows)
    output = tmp_path / "out"
    before = plan(str(tmp_path), "m", output=str(output))
    for unit in before:
        scorer(output).score(unit)
    assert plan(str(tmp_path), "m", output=str(output)) == before
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(tmp_path)
    for same in (tmp_path, f"file://{tmp_path}/", link):
        with pytest.raises(UsageError, match="between the inputs"):
            plan(str(tmp_path), "m", output=str(same))


def test_a_folder_of_results_is_of_one_work_and_rid_of_what_was_killed(tmp_path, rows) -> None:
    np.save(tmp_path / "in.npy", rows)
    output = tmp_path / "out"
    (unit,) = plan(str(tmp_path / "in.npy"), "m")
    assert prepare(str(output), [unit]) == []
    scorer(output).score(unit)
    (output / f".{Path(part_of(str(output), unit)).name}.0a1b.tmp").write_bytes(b"half")
    assert prepare(str(output), [unit]) == [unit]
    assert [path.name for path in output.iterdir()] == [Path(part_of(str(output), unit)).name]
    (other,) = plan(str(tmp_path / "in.npy"), "another model")
    with pytest.raises(JobFailed, match="1 results of another model"):
        prepare(str(output), [other])


def test_half_a_part_is_made_again(tmp_path, rows) -> None:
    np.save(tmp_path / "in.npy", rows)
    (unit,) = plan(str(tmp_path / "in.npy"), "m")
    done = scorer(tmp_path / "out").score(unit)
    part = Path(part_of(str(tmp_path / "out"), unit))
    part.write_bytes(part.read_bytes()[:-20])
    assert found(str(tmp_path / "out"), unit) is None
    assert scorer(tmp_path / "out").score(unit) == done == found(str(tmp_path / "out"), unit)


def test_no_row_one_row_and_rows_of_text(tmp_path, rows) -> None:
    np.save(tmp_path / "none.npy", rows[:0])
    np.save(tmp_path / "one.npy", rows[:1])
    (tmp_path / "head.csv").write_text("a,b,c,d\n")
    (tmp_path / "text.csv").write_text("a,b,c,d\n1,2,3,x\n1,2,3,4\n")
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    with pytest.raises(UsageError, match=r"words.npy cannot be read: it must hold plain numbers"):
        plan(str(tmp_path), "m")
    (tmp_path / "words.npy").unlink()
    done = {u.name: scorer(tmp_path / "out").score(u) for u in plan(str(tmp_path), "m")}
    counts = {name: (one.rows, one.errors, one.detail) for name, one in done.items()}
    assert counts == {"head.csv": (0, 0, None), "one.npy": (1, 0, None), "text.csv": (2, 1, None)}


def test_vectors_in_parquet_may_be_missing_or_ragged(tmp_path, rows) -> None:
    frame = pd.DataFrame({"v": [None, *rows[:3].tolist(), [1.0]]})
    frame.to_parquet(tmp_path / "in.parquet")
    (unit,) = plan(str(tmp_path), "m")
    (found_rows,) = pieces(unit)
    np.testing.assert_allclose(found_rows[1:4], rows[:3], rtol=1e-6)
    assert np.isnan(found_rows[[0, 4]]).all()


def test_a_bound_is_that_of_the_served_dtype() -> None:
    spec = TensorSpec(name="x", dtype="float32", shape=(-1, 1), range=(0.0, 0.1))
    assert conform(np.array([[np.float32(0.1)]]), spec)[1] == [None]
    assert conform(np.array([[0.11]]), spec)[1] != [None]
