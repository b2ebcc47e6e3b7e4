"""Inference from a program: followed, counted, closed, and not through a fork."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from edge_client import user_telemetry
from edge_client.api import Edge
from edge_client.errors import ForkedError, InputError, NoModelError, UsageError
from edge_client.live_counts import files
from edge_client.settings import GIB, Home
from edge_client.slots import Pointer, Pointers, Slot, read_pointers, write_pointers
from edge_client.store import Store
from edge_client.telemetry_buffer import Buffer
from schemas.model import Manifest
from tests.fakes.edge_models import Release, linear_onnx, release, run_onnx, samples

ONE, TWO = release(linear_onnx(1)), release(linear_onnx(2))
SECONDS = 20.0


def install(home: Home, made: Release, version: int, model: str = "digits") -> Slot:
    manifest = Manifest.model_validate_json(made.manifest)
    store = Store(home, GIB)
    store.save_manifest(made.sha256, made.manifest)
    for sha256, data in made.files.items():
        (home.blobs / sha256).write_bytes(data)
    slot = Slot(model=model, version=version, variant="fp32",
                sha256=manifest.variants[0].file.sha256, manifest_sha256=made.sha256)  # fmt: skip
    write_pointers(home.pointer, read_pointers(home.pointer).put(model, Pointer(active=slot)))
    return slot


@pytest.fixture
def home(tmp_path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    install(home, ONE, 1)
    return home


def follows(model, version: int) -> None:
    pause = threading.Event()
    for _ in range(int(SECONDS / 0.02)):
        if model.slot.version == version:
            return
        pause.wait(0.02)
    pytest.fail(f"v{model.slot.version} serves still")


def test_a_swap_under_load_fails_and_mixes_nothing(home):
    x = samples(3)
    expected = {1: run_onnx(ONE.onnx, x), 2: run_onnx(TWO.onnx, x)}
    wrong, stop, versions = [], threading.Event(), set()
    with Edge(home.root).model() as model:

        def ask() -> None:
            while not stop.is_set():
                try:
                    found = model.predict(x)
                    version = found.slot.version
                    versions.add(version)
                    (scores,) = found.outputs.values()
                    if not np.allclose(scores, expected[version], atol=1e-5):
                        wrong.append(version)
                except Exception as error:  # noqa: BLE001 - any failure is one
                    wrong.append(error)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for made, version in ((TWO, 2), (ONE, 1), (TWO, 2)):
            install(home, made, version)
            follows(model, version)
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert versions == {1, 2}


def test_one_that_cannot_be_loaded_leaves_the_old_one_in_place(home, caplog):
    with Edge(home.root).model("digits") as model:
        slot = install(home, TWO, 2)
        (home.blobs / slot.sha256).unlink()
        pause = threading.Event()
        for _ in range(500):
            if "the version before serves on" in caplog.text:
                break
            pause.wait(0.02)
        assert "digits v2" in caplog.text
        assert model.predict(samples(1)).slot.version == 1


def test_what_programs_infer_is_in_the_devices_telemetry(home):
    edge = Edge(home.root)
    with edge.model() as model, edge.model("digits") as again:
        for _ in range(5):
            model.predict(samples(2), truth=None)
        again.predict(samples(1), truth=1)
        with pytest.raises(InputError):
            model.predict(samples(1)[:, :2])
        assert len(files(home.live_counts)) == 1  # one process counts once
    buffer = Buffer(home.telemetry)
    (row,) = buffer.waiting(10)
    buffer.close()
    assert (row.window.n, row.window.rejected, row.window.labelled) == (11, 1, 1)
    assert files(home.live_counts) == []


def test_where_nothing_can_be_written_nothing_is_counted_and_that_is_said_once(home, caplog):
    home.telemetry.mkdir()
    for _ in range(2):
        with Edge(home.root).model() as model:
            assert model.predict(samples(1)).n == 1
    assert caplog.text.count("is not counted") == 1
    with Edge(home.root).model(telemetry=False) as model:
        assert model.predict(samples(1)).n == 1


def test_the_model_is_named_where_there_are_several(home):
    install(home, TWO, 4, model="gestures")
    edge = Edge(home.root)
    assert [(one.model, one.version) for one in edge.models()] == [("digits", 1), ("gestures", 4)]
    with pytest.raises(UsageError, match="several models"):
        edge.model()
    with pytest.raises(NoModelError, match="there is digits, gestures"):
        edge.model("faces")
    with edge.model("gestures", telemetry=False) as model:
        assert model.classify(samples(2))[0].known


def test_without_a_model_that_is_said(home):
    write_pointers(home.pointer, Pointers())
    with pytest.raises(NoModelError, match="no model is active"):
        Edge(home.root).model()


def test_after_its_end_and_in_a_forked_child_it_says_so(home):
    model = Edge(home.root).model()
    model.predict(samples(1))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # whatever happens here, nothing of the test goes on
        try:
            try:
                model.predict(samples(1))
            except ForkedError:
                with Edge(home.root).model() as mine:
                    os.write(writer, b"%d" % mine.predict(samples(3)).n)
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as answers:
        assert answers.read() == b"3"
    assert model.predict(samples(1)).n == 1
    model.close()
    model.close()
    with pytest.raises(NoModelError, match="was closed"):
        model.predict(samples(1))
    assert home.root not in user_telemetry._shared
    buffer = Buffer(home.telemetry)
    assert sorted(row.window.n for row in buffer.waiting(10)) == [2, 3]
    buffer.close()
