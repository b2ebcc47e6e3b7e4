"""Runs over files: each form of input and of results, bad rows, going on, and refusals."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from onnx import TensorProto
from PIL import Image
from pyarrow import parquet

from edge_client import batch_run
from edge_client.batch_command import Teller, Voice, Wish, run_batch
from edge_client.batch_journal import Key, Progress
from edge_client.cli_batch import batch
from edge_client.cli_infer import infer
from edge_client.errors import BatchRunError, NoModelError, OtherRunError, UsageError
from edge_client.telemetry_buffer import Buffer
from schemas.ops import CenterCrop, Decode, Threshold, TopK
from tests.fakes.edge_installed import flat_onnx, install, release_of
from tests.fakes.edge_models import linear_onnx, release, run_onnx, samples

VOICE = Voice(lambda _text: None)
ONNX = linear_onnx(3, log_input=True)


def answers(x: np.ndarray) -> np.ndarray:
    return run_onnx(ONNX, x)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    return install(tmp_path / "home", release(ONNX), release(linear_onnx(4)))


def do(home, source, out, **more):
    wish = Wish(model="digits", source=source, out=out, telemetry=False, **more)
    return run_batch(home, wish, VOICE)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_any(path: Path) -> tuple[list[int], list[str], list[float]]:
    match path.suffix:
        case ".csv":
            rows = read(path)
        case ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
        case ".parquet":
            rows = parquet.read_table(path).to_pylist()
        case _:
            found = np.load(path)
            names = ("row", "label", "confidence")
            columns = zip(*(found[name] for name in names), strict=True)
            rows = [dict(zip(names, row, strict=True)) for row in columns]
    return (
        [int(r["row"]) for r in rows],
        [str(r["label"]) for r in rows],
        [float(r["confidence"]) for r in rows],
    )


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "npz", "parquet"])
def test_every_form_of_results_says_the_same(home, tmp_path, suffix, monkeypatch) -> None:
    monkeypatch.setattr(batch_run, "PART_ROWS", 64)  # several parts, put together
    x = samples(300)
    np.save(tmp_path / "x.npy", x)
    done, place = do(home, tmp_path / "x.npy", tmp_path / f"out.{suffix}")
    assert (done.answered, done.failed) == (300, 0)
    y = answers(x)
    rows, labels, confidence = read_any(place.out)
    assert rows == list(range(300))
    assert labels == ["abc"[i] for i in y.argmax(axis=1)]
    np.testing.assert_allclose(confidence, y.max(axis=1), rtol=1e-4)
    assert not place.work.exists()
    assert not place.errors.exists()


def test_every_form_of_input_gives_the_same_answers(home, tmp_path) -> None:
    x = samples(70)
    folder = tmp_path / "folder"
    folder.mkdir()
    for i, row in enumerate(x):
        np.save(folder / f"{i:03}.npy", row)
    np.save(tmp_path / "a.npy", x)
    np.savez_compressed(tmp_path / "b.npz", x=x)
    with (tmp_path / "c.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["name", *"pqrs"], *(["n", *row.tolist()] for row in x)])
    np.savetxt(tmp_path / "d.csv", x, delimiter=",", fmt="%.9g")
    columns = {name: x[:, i] for i, name in enumerate("pqrs")}
    parquet.write_table(pa.table(columns), tmp_path / "e.parquet", row_group_size=16)
    parquet.write_table(pa.table({"x": x.tolist()}), tmp_path / "f.parquet")
    y = answers(x)
    for name in ("a.npy", "b.npz", "c.csv", "d.csv", "e.parquet", "f.parquet", "folder"):
        _, place = do(home, tmp_path / name, tmp_path / f"{name}.out.csv")
        rows, labels, confidence = read_any(place.out)
        assert rows == list(range(70)), name
        assert labels == ["abc"[i] for i in y.argmax(axis=1)], name
        np.testing.assert_allclose(confidence, y.max(axis=1), rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.csv", "x.parquet"])
def test_some_rows_of_a_file(home, tmp_path, name) -> None:
    x = samples(100)
    match name:
        case "x.npy":
            np.save(tmp_path / name, x)
        case "x.npz":
            np.savez_compressed(tmp_path / name, x=x)
        case "x.csv":
            np.savetxt(tmp_path / name, x, delimiter=",", header="x_0,x_1,x_2,x_3", comments="")
        case _:
            table = pa.table({f"x_{i}": x[:, i] for i in range(4)})
            parquet.write_table(table, tmp_path / name, row_group_size=9)
    _, place = do(home, tmp_path / name, tmp_path / "o.csv", first=37, last=71, size=10)
    rows, _, confidence = read_any(place.out)
    assert rows == list(range(37, 71))
    np.testing.assert_allclose(confidence, answers(x[37:71]).max(axis=1), rtol=1e-4)


def test_bad_rows_are_kept_apart_with_their_reasons(home, tmp_path) -> None:
    lines = ["id,a,b,c,d", "u,1,1,1,1", "v,1,oops,1,1", "w,-1,1,1,1", "x,1,1", "y,nan,1,1,1",
             "z,2,2,2,2", "q,1e9,1,1,1", "r,,1,1,1", "s,1,1,1,1,1"]  # fmt: skip
    (tmp_path / "in.csv").write_text("\n".join(lines) + "\n")
    done, place = do(home, tmp_path / "in.csv", tmp_path / "o.csv", id="id")
    assert (done.answered, done.failed) == (2, 7)
    assert [(r["row"], r["id"]) for r in read(place.out)] == [("0", "u"), ("5", "z")]
    bad = {r["id"]: r["reason"] for r in read(place.errors)}
    assert list(bad) == ["v", "w", "x", "y", "q", "r", "s"]
    assert bad["v"] == "column 'b' holds 'oops', no float32"
    assert "NaN" in bad["w"]  # the logarithm of a negative number: the model failed
    assert bad["x"] == "it has 3 cells, the first line has 5"
    assert "'x'" in bad["y"]
    assert "100" in bad["q"]
    assert bad["r"] == "column 'a' holds '', no float32"
    assert bad["s"] == "it has 6 cells, the first line has 5"  # its columns may be shifted


def test_results_never_replace_their_input(home, tmp_path) -> None:
    """By a slip of the hand, with --restart, the only copy of the data would be gone."""
    source, folder = tmp_path / "in.csv", tmp_path / "folder"
    folder.mkdir()
    for path in (source, tmp_path / "o.csv.errors.csv", folder / "part-000000.csv"):
        path.write_text("a,b,c,d\n1,2,3,4\n")
    (tmp_path / "link.csv").symlink_to(source)
    (tmp_path / "hard.csv").hardlink_to(source)
    for given, out in (
        (source, source),
        (source, tmp_path / "link.csv"),
        (source, tmp_path / "hard.csv"),
        (tmp_path / "o.csv.errors.csv", tmp_path / "o.csv"),
        (folder / "part-000000.csv", folder),
    ):
        with pytest.raises(UsageError, match="would replace the input"):
            do(home, given, out, restart=True)
        assert given.read_text() == "a,b,c,d\n1,2,3,4\n"


def test_results_of_one_name_in_two_forms_keep_their_own_errors(home, tmp_path) -> None:
    x = samples(6)
    np.save(tmp_path / "good.npy", x)
    x[2] *= -1
    np.save(tmp_path / "bad.npy", x)
    _, csv_place = do(home, tmp_path / "bad.npy", tmp_path / "o.csv")
    do(home, tmp_path / "good.npy", tmp_path / "o.npz")
    assert [r["row"] for r in read(csv_place.errors)] == ["2"]


def test_nulls_and_numbers_that_do_not_fit_are_bad_rows(home, tmp_path) -> None:
    values = {name: [1.0, 2.0, 3.0] for name in "abcd"} | {"b": [1.0, None, 2.0]}
    parquet.write_table(pa.table(values), tmp_path / "in.parquet")
    done, place = do(home, tmp_path / "in.parquet", tmp_path / "o.csv")
    assert done.failed == 1
    assert read(place.errors)[0] == {"row": "1", "id": "1", "reason": "column 'b' is null"}


def test_pictures_go_the_way_that_the_manifest_says(tmp_path) -> None:
    data = flat_onnx((4, 1, 1), TensorProto.UINT8)
    steps = (Decode(mode="L"), CenterCrop(height=4, width=1))
    said = (TopK(k=2), Threshold(min=0.1))
    golden = np.full((8, 4, 1, 1), 9, np.uint8)
    home = install(tmp_path / "home", release_of(data, golden, preprocess=steps, postprocess=said))
    folder = tmp_path / "in"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 255, size=(5, 4, 2), dtype=np.uint8)
    for i, one in enumerate(pixels):
        Image.fromarray(one).save(folder / ("more" if i == 4 else "") / f"{i}.png")
    (folder / "3.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not one either")
    done, place = do(home, folder, tmp_path / "o.csv")
    assert (done.answered, done.failed) == (4, 1)
    assert [r["id"] for r in read(place.out)] == ["0.png", "1.png", "2.png", "more/4.png"]
    assert read(place.errors)[0]["id"] == "3.png"
    assert {"class", "label", "confidence", "class_2", "label_2"} <= read(place.out)[0].keys()


def test_raw_outputs(home, tmp_path) -> None:
    x = samples(9)
    np.save(tmp_path / "x.npy", x)
    for suffix in ("csv", "npz", "jsonl", "parquet"):
        do(home, tmp_path / "x.npy", tmp_path / f"o.{suffix}", raw=True, size=4)
    found = np.load(tmp_path / "o.npz")["probabilities"]
    np.testing.assert_allclose(found, answers(x), rtol=1e-5)
    lines = read(tmp_path / "o.csv")
    np.testing.assert_allclose([float(r["probabilities_2"]) for r in lines], found[:, 2], rtol=1e-5)
    listed = parquet.read_table(tmp_path / "o.parquet")["probabilities"].to_pylist()
    np.testing.assert_allclose(listed, found, rtol=1e-5)


def test_a_run_that_was_cut_off_goes_on_after_its_last_part(home, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(batch_run, "PART_ROWS", 50)
    x = samples(200)
    x[[10, 120]] *= -1
    np.save(tmp_path / "x.npy", x)
    asked = []
    infer_rows = batch_run.Run._run_rows

    def counted(self, feed, rows):
        asked.append(len(rows))
        if sum(asked) > 130 and len(asked) < 1000 and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt
        return infer_rows(self, feed, rows)

    stopped: list[bool] = []
    monkeypatch.setattr(batch_run.Run, "_run_rows", counted)
    with pytest.raises(KeyboardInterrupt):
        do(home, tmp_path / "x.npy", tmp_path / "o.jsonl", size=25)
    work = tmp_path / "o.jsonl.parts"
    assert Progress.model_validate_json((work / "run.json").read_bytes()).next_row in {50, 100}
    assert not (tmp_path / "o.jsonl").exists()
    done, place = do(home, tmp_path / "x.npy", tmp_path / "o.jsonl", size=25)
    rows, _, _ = read_any(place.out)
    assert rows == [i for i in range(200) if i not in {10, 120}]
    assert [r["row"] for r in read(place.errors)] == ["10", "120"]
    assert (done.answered, done.failed) == (198, 2)


def test_what_belongs_to_another_run_is_refused_and_said(home, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(batch_run, "PART_ROWS", 20)
    x = samples(60)
    x[45] *= -1
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "z.npy", x[:50])
    out = tmp_path / "o.csv"
    with pytest.raises(BatchRunError, match="1 rows have failed, more than --limit 0"):
        do(home, tmp_path / "x.npy", out, limit=0)
    with pytest.raises(OtherRunError, match="its input was another one"):
        do(home, tmp_path / "z.npy", out)
    with pytest.raises(
        OtherRunError, match="it began with digits version 1, and this is digits version 2"
    ):
        do(home, tmp_path / "x.npy", out, version="fallback")
    with pytest.raises(BatchRunError, match="--limit 0"):
        do(home, tmp_path / "x.npy", out, limit=0)
    done, _ = do(home, tmp_path / "x.npy", out, limit=1)
    assert (done.answered, done.failed) == (59, 1)
    with pytest.raises(OtherRunError, match="is there already"):
        do(home, tmp_path / "x.npy", out)
    do(home, tmp_path / "z.npy", out, version="2", restart=True)
    assert len(read(out)) == 50


def test_a_folder_of_parts_is_done_once(home, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(batch_run, "PART_ROWS", 30)
    np.save(tmp_path / "x.npy", samples(100))
    out = tmp_path / "results"
    do(home, tmp_path / "x.npy", out, kind="jsonl")
    before = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    assert {"run.json", "part-000000.jsonl", "part-000003.jsonl"} <= before.keys()
    done, _ = do(home, tmp_path / "x.npy", out, kind="jsonl")
    assert done.answered == 100
    assert {p.name: p.stat().st_mtime_ns for p in out.iterdir()} == before


def test_what_cannot_be_read_is_said_in_words(home, tmp_path) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((3, 5), np.float32))
    np.save(tmp_path / "double.npy", np.zeros((3, 4)))
    np.savez(tmp_path / "other.npz", a=np.zeros(3), b=np.zeros(3))
    (tmp_path / "none.npy").write_bytes(b"no array")
    (tmp_path / "none.npz").write_bytes(b"no archive")
    (tmp_path / "few.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "none.parquet").write_bytes(b"no table")
    (tmp_path / "what.xyz").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "p.png").write_bytes(b"not even looked at")
    said = {
        "wide.npy": r"must be float32\[4\], and those of wide.npy are float32\[5\]",
        "double.npy": r"are float64\[4\]",
        "other.npz": "has no array 'x'",
        "none.npy": "is no npy array",
        "none.npz": "is no npz archive",
        "few.csv": "takes 4 values, and 2 columns fit",
        "empty.csv": "holds no table",
        "none.parquet": "cannot be read as Parquet",
        "what.xyz": "no form that can be read",
        "folder": "holds 0 PNG",
        "pictures": "does not say how a picture becomes its input",
        "missing.npy": "is not there",
    }
    for name, words in said.items():
        with pytest.raises(UsageError, match=words):
            do(home, tmp_path / name, tmp_path / "o.csv")
    with pytest.raises(NoModelError, match="version 9 of digits is not installed"):
        do(home, tmp_path / "wide.npy", tmp_path / "o.csv", version="9")
    x = samples(50)
    np.save(tmp_path / "cut.npy", x)
    with (tmp_path / "cut.npy").open("r+b") as file:
        file.truncate(400)
    with pytest.raises(BatchRunError, match="cut off"):
        do(home, tmp_path / "cut.npy", tmp_path / "o.csv")


def test_what_was_inferred_is_in_the_devices_telemetry(home, tmp_path) -> None:
    x = samples(40)
    x[7] *= -1
    np.save(tmp_path / "x.npy", x)
    wish = Wish(model="digits", source=tmp_path / "x.npy", out=tmp_path / "o.csv")
    run_batch(home, wish, VOICE)
    buffer = Buffer(home.telemetry)
    try:
        windows = [one.window for one in buffer.waiting(10)]
        assert sum(window.n for window in windows) == 40
        assert sum(window.errors for window in windows) == 1
        assert sum(window.cold for window in windows) == 1
    finally:
        buffer.close()


def test_progress_is_a_line_now_and_then_off_a_terminal() -> None:
    said, now = [], [0.0]
    key = Key(model="m", version=1, sha256="0" * 64, input="i", start=0, stop=None, columns=(),
              id=None, raw=False, format="csv")  # fmt: skip
    teller = Teller(Voice(said.append), Progress(key=key, next_row=0), 1000, lambda: now[0])
    for second in range(30):
        now[0] = float(second)
        teller(second * 10, second * 10, 0)
    assert said == ["10% of 1000 rows, 10/s, 90 s left", "20% of 1000 rows, 10/s, 80 s left"]


def test_the_command_says_by_its_code_how_it_went(home, tmp_path) -> None:
    x = samples(20)
    np.save(tmp_path / "good.npy", x)
    x[3] *= -1
    np.save(tmp_path / "bad.npy", x)
    asked = ["--home", str(home.root), "--nice", "0", "--no-telemetry"]
    runs = CliRunner()
    fine = runs.invoke(
        batch, ["digits", str(tmp_path / "good.npy"), str(tmp_path / "a.csv"), *asked]
    )
    assert (fine.exit_code, fine.output) == (0, f"20 rows answered in {tmp_path / 'a.csv'}\n")
    some = runs.invoke(
        batch, ["digits", str(tmp_path / "bad.npy"), str(tmp_path / "b.csv"), *asked]
    )
    assert some.exit_code == 7
    assert "1 rows failed; see" in some.output
    odd = runs.invoke(batch, ["digits", "x", "y", *asked, "--rows", "5:5"])
    assert odd.exit_code == 2


def test_infer_takes_files_and_standard_input(home, tmp_path) -> None:
    x = samples(2)
    np.save(tmp_path / "x.npy", x)
    runs = CliRunner()
    asked = ["--home", str(home.root), "--no-telemetry"]
    found = runs.invoke(infer, ["digits", str(tmp_path / "x.npy"), "-", "-o", "json", *asked],
                        input=json.dumps(x[0].tolist()))  # fmt: skip
    assert found.exit_code == 0, found.output
    said = json.loads(found.output)
    assert [(s["input"], s["sample"]) for s in said] == [
        (str(tmp_path / "x.npy"), 0), (str(tmp_path / "x.npy"), 1), ("-", 0)
    ]  # fmt: skip
    y = answers(x)
    assert said[0]["label"] == said[2]["label"] == "abc"[y[0].argmax()]
    assert said[1]["probability"] == pytest.approx(float(y[1].max()), rel=1e-4)
    shown = runs.invoke(infer, [str(tmp_path / "x.npy"), *asked])
    assert shown.output.splitlines()[0].split() == ["input", "class", "label", "probability"]
    assert len(shown.output.splitlines()) == 3
    wide = runs.invoke(infer, [str(tmp_path / "x.npy"), "--raw", *asked])
    assert wide.output.splitlines()[:2] == shown.output.splitlines()[:2]  # outputs widen no column


def test_infer_refuses_in_words(home, tmp_path) -> None:
    (tmp_path / "x.json").write_text("{oops")
    (tmp_path / "y.json").write_text('{"z": [1, 2]}')
    (tmp_path / "p.png").write_bytes(io.BytesIO(b"x").getvalue())
    runs = CliRunner()
    for words, said in (
        ([str(tmp_path / "x.json")], "x.json: it cannot be read"),
        ([str(tmp_path / "y.json")], "y.json"),
        ([str(tmp_path / "none.npy")], "none.npy: it cannot be read"),
        (["digits"], "there is no input"),
        (["digit", str(tmp_path / "x.json")], "digit is neither a model of this device nor a file"),
        ([str(tmp_path / "p.png")], "p.png"),
    ):
        found = runs.invoke(infer, [*words, "--home", str(home.root), "--no-telemetry"])
        assert said in str(found.exception), words
