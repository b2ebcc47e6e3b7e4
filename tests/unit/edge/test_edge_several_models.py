"""Several models on one device: an update concerns one, and the others serve on."""

from __future__ import annotations

import contextlib
import json
import shutil

import pytest

from edge_client import rollback
from edge_client.errors import (
    DiskFullError,
    InferenceError,
    NoModelError,
    NothingBeforeError,
    UsageError,
)
from edge_client.rollback_command import roll_back
from edge_client.room import make_room
from edge_client.settings import GIB
from edge_client.slots import (
    Pointer,
    Pointers,
    Slot,
    copy_of,
    find_pointers,
    read_pointers,
    write_pointers,
)
from edge_client.states import Ended, OnProbation
from edge_client.store import Store
from schemas.errors import DeviceCause
from schemas.model import Manifest
from schemas.rollout import ExecState, Probation, Shadow
from tests.fakes.edge_bench import BAD, NEW, Bench, Fuse, document
from tests.fakes.edge_models import linear_onnx, release, samples

OTHER = release(linear_onnx(7))


def slot(model: str, version: int, sha256: str = "0" * 64) -> Slot:
    return Slot(model=model, version=version, variant="fp32", sha256=sha256,
                manifest_sha256="1" * 64)  # fmt: skip


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A device that serves digits, and gestures beside it."""
    bench = Bench(tmp_path, monkeypatch, Fuse(None))
    file = Manifest.model_validate_json(OTHER.manifest).variants[0].file
    store = Store(bench.home, GIB)
    store.save_manifest(OTHER.sha256, OTHER.manifest)
    (bench.home.blobs / file.sha256).write_bytes(OTHER.onnx)
    beside = Slot(model="gestures", version=1, variant="fp32", sha256=file.sha256,
                  manifest_sha256=OTHER.sha256)  # fmt: skip
    pointers = read_pointers(bench.home.pointer).put("gestures", Pointer(active=beside))
    write_pointers(bench.home.pointer, pointers)
    bench.beside = beside
    bench.start()
    yield bench
    with contextlib.suppress(Exception):
        bench.die()


class TestPointer:
    def test_one_that_an_older_agent_wrote_is_read_and_written_anew(self, tmp_path):
        path = tmp_path / "active.json"
        new, old = slot("digits", 2), slot("digits", 1)
        plain = {name: getattr(new, name) for name in new.__dataclass_fields__}
        before = plain | {"version": 1}
        path.write_text(json.dumps({"active": plain, "fallback": before}))
        shutil.copy(path, copy_of(path))
        found = find_pointers(path)
        assert found.pointers == Pointers(models={"digits": Pointer(active=new, fallback=old)})
        assert found.damage is None
        write_pointers(path, found.pointers.put("gestures", Pointer(active=slot("gestures", 1))))
        assert [one.model for one in read_pointers(path).active] == ["digits", "gestures"]

    def test_what_served_before_another_model_is_not_its_fallback(self, tmp_path):
        path = tmp_path / "active.json"
        text = {"active": slot("b", 1), "fallback": slot("a", 1)}
        plain = {k: {n: getattr(s, n) for n in s.__dataclass_fields__} for k, s in text.items()}
        path.write_text(json.dumps(plain))
        assert read_pointers(path) == Pointers(models={"b": Pointer(active=slot("b", 1))})

    def test_a_name_that_is_not_its_models_is_damage(self, tmp_path):
        path = tmp_path / "active.json"
        write_pointers(path, Pointers(models={"a": Pointer(active=slot("b", 1))}))
        assert find_pointers(path).pointers is None

    def test_without_a_name_the_only_model_is_meant(self):
        one = Pointers(models={"a": Pointer(active=slot("a", 1))})
        assert one.one(None, "x") == "a"
        two = one.put("b", Pointer(active=slot("b", 1)))
        assert two.one("b", "x") == "b"
        with pytest.raises(UsageError, match=r"several models \(a, b\)"):
            two.one(None, "x")
        assert two.put("b", Pointer()) == one


def test_one_fails_probation_while_the_other_never_misses_a_request(bench):
    answered = 0

    def ask() -> None:
        nonlocal answered
        assert bench.runtime.predict(samples(1), model="gestures").slot == bench.beside
        answered += 1

    rules = Probation(min_inferences=3, max_error_rate=0.1)
    bench.inbox.desired(document(bench, BAD, probation=rules))
    for _ in range(300):
        ask()
        with contextlib.suppress(InferenceError):
            bench.go_on(BAD, -samples(2))
        if isinstance(bench.updater.state, Ended):
            break
    assert ExecState.PROBATION in {report.state for report in bench.reports()}
    assert bench.updater.state.outcome is ExecState.ROLLED_BACK
    assert [one.version for one in read_pointers(bench.home.pointer).active] == [1, 1]
    assert bench.runtime.counts(bench.beside) == (answered, 0)


def test_a_boot_loop_of_one_leaves_the_other_serving_from_the_first_instant(bench):
    bench.inbox.desired(document(bench, NEW, probation=Probation(max_boots=2)))
    bench.go_to(OnProbation)
    for _ in range(3):
        bench.die()
        bench.start()
        assert bench.runtime.slot("gestures") == bench.beside
    assert bench.updater.state.outcome is ExecState.ROLLED_BACK
    assert bench.reports()[-1].cause is DeviceCause.BOOT_LOOP


def test_one_that_cannot_be_loaded_does_not_keep_the_other_from_serving(bench):
    bench.die()
    (bench.home.blobs / bench.beside.sha256).write_bytes(b"rot")
    bench.start()
    assert [one.model for one in bench.runtime.slots()] == ["digits"]
    assert "gestures v1" in bench.problems.last
    # It stays in the pointer: what was there is said, and the next version replaces it.
    assert read_pointers(bench.home.pointer).of("gestures").active == bench.beside


def test_going_back_by_hand_concerns_the_model_that_is_named(bench):
    bench.run(document(bench, NEW), NEW, samples(2))
    assert bench.serving() == 2
    bench.die()
    with pytest.raises(UsageError, match="several models"):
        rollback.wanted(bench.home, id_="x", give_up=False)
    with pytest.raises(NothingBeforeError):
        roll_back(bench.home, "gestures", give_up=False, wait=1)
    assert roll_back(bench.home, "digits", give_up=False, wait=1).version == 1
    bench.start()
    assert [(one.model, one.version) for one in bench.runtime.slots()] == [
        ("digits", 1), ("gestures", 1)]  # fmt: skip


def test_the_fallback_of_another_model_goes_for_room_only_after_its_own(bench, monkeypatch):
    bench.run(document(bench, NEW), NEW, samples(2))
    pointers = read_pointers(bench.home.pointer)
    beside = Pointer(active=bench.beside, fallback=Slot(
        model="gestures", version=9, variant="fp32", sha256="2" * 64,
        manifest_sha256="3" * 64))  # fmt: skip
    write_pointers(bench.home.pointer, pointers.put("gestures", beside))
    left = []

    def full(_self, _wanted, _keep):
        now = read_pointers(bench.home.pointer)
        left.append([name for name, one in now.models.items() if one.fallback])
        msg = "no room"
        raise DiskFullError(msg)

    monkeypatch.setattr(Store, "make_room", full)
    with pytest.raises(DiskFullError):
        make_room(bench.updater._device, bench.updater.state, ())
    assert left == [["digits", "gestures"], ["gestures"], []]
    assert len(bench.runtime.slots()) == 2


class TestShadow:
    RULES = Shadow(seconds=0.5, min_compared=5, max_seconds=30, cpu_share=1.0)

    def go(self, bench, version, rules, inputs=None) -> ExecState:
        bench.inbox.desired(document(bench, version, shadow=rules))
        for _ in range(3000):
            with contextlib.suppress(InferenceError, NoModelError):
                bench.runtime.predict(samples(2) if inputs is None else inputs, model="digits")
            with contextlib.suppress(InferenceError):
                bench.go_on(version, samples(2))
            if isinstance(bench.updater.state, Ended):
                return bench.updater.state.outcome
        pytest.fail(f"stuck in {bench.updater.state}")

    def states(self, bench) -> list[ExecState]:
        return [report.state for report in bench.reports()]

    def test_one_that_agrees_is_activated_and_says_so(self, bench):
        same = release(linear_onnx(1, padding=3))
        assert self.go(bench, same, self.RULES) is ExecState.SUCCEEDED
        assert ExecState.SHADOWING in self.states(bench)
        (swap,) = (r for r in bench.reports() if r.state is ExecState.ACTIVATING)
        assert "100.0% of" in swap.detail
        assert bench.runtime.shadowing is None

    def test_one_that_disagrees_never_serves(self, bench):
        outcome = self.go(bench, NEW, self.RULES.model_copy(update={"min_agreement": 1.0}),
                          samples(32))  # fmt: skip
        assert outcome is ExecState.FAILED
        last = bench.reports()[-1]
        assert last.cause is DeviceCause.SHADOW_DISAGREED
        assert "answers were those of the active version" in last.detail
        assert last.detail.index("at least 100.0% must be") < last.detail.index(" ms each")
        assert ExecState.ACTIVATING not in self.states(bench)
        assert bench.serving() == 1
        assert bench.runtime.shadowing is None

    def test_too_few_to_compare_are_no_failure(self, bench):
        rules = Shadow(seconds=0.1, min_compared=1_000_000, max_seconds=1)
        assert self.go(bench, NEW, rules) is ExecState.SUCCEEDED
        (swap,) = (r for r in bench.reports() if r.state is ExecState.ACTIVATING)
        assert "too few for a verdict" in swap.detail

    def test_a_first_version_has_nothing_to_run_beside(self, bench):
        bench.die()
        write_pointers(bench.home.pointer, Pointers())
        bench.start()
        assert self.go(bench, NEW, self.RULES) is ExecState.SUCCEEDED
        assert ExecState.SHADOWING not in self.states(bench)
