"""Measuring on the device: what is installed, beside an agent, kept to be sent."""

from __future__ import annotations

import datetime as dt
import sqlite3
import threading
import time

import numpy as np
import pytest
from click.testing import CliRunner

from edge_client import autobench
from edge_client.autobench import Autobench
from edge_client.bench import Failure, Plan, installed, measure
from edge_client.bench_command import Benched, benched_of, keep
from edge_client.bench_inputs import batches, feeds_of, made_up
from edge_client.bench_table import notes, table
from edge_client.cli import cli
from edge_client.errors import BenchError, BenchRunningError, JournalError, NoModelError
from edge_client.identity import load_identity
from edge_client.lock import agent_lock, bench_lock
from edge_client.opening import open_spool
from edge_client.profile import count_nodes
from edge_client.settings import GIB
from edge_client.slots import Pointers, Slot, write_pointers
from edge_client.spool import MOST, Spool
from edge_client.store import Store
from schemas.errors import Exit
from schemas.measure import Benchmark, BenchReport, Energy
from schemas.model import Manifest
from schemas.signature import TensorSpec
from tests.fakes.edge_models import linear_onnx, pointing, quantized_onnx, release, samples
from tests.fakes.edge_trust import Signer
from tests.fakes.gateway import Ca, enrolled_home

DEVICE = "dev_0000000000000001"
QUICK = Plan(rounds=2, energy_seconds=0.01)
AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def put(home, version, number: int, variant: str = "fp32") -> Slot:
    """Install a version's variant as an update leaves it."""
    Store(home, GIB).save_manifest(version.sha256, version.manifest)
    for sha256, data in version.files.items():
        (home.blobs / sha256).write_bytes(data)
    found = Manifest.model_validate_json(version.manifest)
    return Slot(
        model=found.model,
        version=number,
        variant=variant,
        sha256=found.variant(variant).file.sha256,
        manifest_sha256=version.sha256,
    )


@pytest.fixture
def home(tmp_path):
    home, _ = enrolled_home(tmp_path / "home", Ca(), Signer(), 1)
    home.create()
    return home


@pytest.fixture
def slots(home) -> tuple[Slot, Slot]:
    """int8 serves, fp32 is its fallback."""
    new = put(home, release(linear_onnx(2), more=[("int8", quantized_onnx(1))]), 2, "int8")
    old = put(home, release(linear_onnx(1)), 1)
    write_pointers(home.pointer, pointing(active=new, fallback=old))
    return new, old


def figures(**more) -> Benchmark:
    known = {"host": "h", "provider": "p", "batch": 1, "runs": 9, "load_ms": 1, "ort": "1.2"}
    return Benchmark(**(known | {"p50_ms": 1, "p95_ms": 2, "p99_ms": 3} | more))


def a_report(number: int = 1, **more) -> BenchReport:
    return BenchReport(
        model="digits", version=1, variant="fp32", sha256=f"{number:064x}",
        benchmarks=(figures(**more),), at=AT,
    )  # fmt: skip


class TestInstalled:
    def test_active_first_then_its_fallback(self, home, slots):
        assert installed(home) == slots
        assert installed(home, "digits") == slots

    def test_one_file_is_measured_once(self, home, slots):
        new, _ = slots
        again = Slot(**{f: getattr(new, f) for f in new.__slots__} | {"version": 1})
        write_pointers(home.pointer, pointing(active=new, fallback=again))
        assert installed(home) == (new,)

    @pytest.mark.usefixtures("slots")
    def test_what_is_not_there_is_said(self, home):
        with pytest.raises(NoModelError, match="model nope is not installed here; there is digits"):
            installed(home, "nope")
        write_pointers(home.pointer, Pointers())
        with pytest.raises(NoModelError, match="no model is installed"):
            installed(home)


class TestMeasure:
    def test_each_variant_in_a_process_of_its_own(self, home, slots):
        before = {p: p.stat().st_mtime_ns for p in home.root.rglob("*") if p.is_file()}
        found = measure(home, slots, QUICK, device_class="cameras")
        assert [slot for slot, _ in found] == list(slots)
        for _, benchmarks in found:
            single, batch = benchmarks
            assert (single.batch, batch.batch) == (1, 32)
            assert single.runs == 50
            assert single.warm_up >= 3
            assert 0 < single.p50_ms <= single.p95_ms <= single.p99_ms
            assert single.cpu_ms > 0
            assert single.rss_mb > single.rss_growth_mb > 0
            assert single.first_ms > 0
            assert batch.first_ms is None
            assert single.energy.millijoules > 0
            assert single.nodes["CPUExecutionProvider"] >= 2
            assert single.device_class == "cameras"
            assert single.provider == "CPUExecutionProvider"
        after = {p: p.stat().st_mtime_ns for p in home.root.rglob("*") if p.is_file()}
        assert after == before, "the home is read and never written"

    def test_what_a_killed_one_left_is_removed(self, home, slots):
        (home.bench_work / "half").mkdir(parents=True)
        (home.bench_work / "half" / "profile.json").write_text("{")
        measure(home, slots[1:], QUICK, device_class="c")
        assert not home.bench_work.exists()

    def test_a_damaged_file_is_told_and_left_and_the_other_is_measured(self, home, slots):
        new, _ = slots
        (home.blobs / new.sha256).write_bytes(b"damaged")
        (_, failed), (_, good) = measure(home, slots, QUICK, device_class="c")
        assert isinstance(failed, Failure)
        assert "is damaged on the disk" in failed.reason
        assert good[0].runs == 50
        assert (home.blobs / new.sha256).read_bytes() == b"damaged"

    def test_without_golden_vectors_inputs_are_made_up(self, home, slots):
        text = Store(home, GIB).manifest(slots[1].manifest_sha256)
        golden = Manifest.model_validate_json(text).variants[0].golden.file.sha256
        (home.blobs / golden).unlink()
        ((_, good),) = measure(home, slots[1:], QUICK, device_class="c")
        assert [b.batch for b in good] == [1, 32]

    def test_made_up_inputs_fit_the_signature(self):
        specs = (
            TensorSpec(name="a", dtype="uint8", shape=(-1, 2, 3), range=(3, 9)),
            TensorSpec(name="b", dtype="float32", shape=(-1, -1)),
        )
        found = made_up(specs, 5)
        assert (found["a"].dtype, found["a"].shape) == (np.dtype("uint8"), (5, 2, 3))
        assert found["a"].min() >= 3
        assert found["a"].max() <= 9
        assert found["b"].shape == (5, 1)
        assert (found["a"] == made_up(specs, 5)["a"]).all()

    def test_a_file_that_was_removed_meanwhile_is_told(self, home, slots):
        (home.blobs / slots[0].sha256).unlink()
        (_, failed), _ = measure(home, slots, QUICK, device_class="c")
        assert isinstance(failed, Failure)

    def test_what_would_not_fit_into_memory_is_not_tried(self, home, slots, monkeypatch):
        monkeypatch.setattr("edge_client.bench.free_mb", lambda: 20)
        found = measure(home, slots, QUICK, device_class="c")
        assert all("20 are free" in failed.reason for _, failed in found)

    def test_it_is_given_up_when_told(self, home, slots):
        answers = iter([True, True, False])
        with pytest.raises(BenchError, match="given up"):
            measure(home, slots, QUICK, device_class="c", go_on=lambda: next(answers))

    def test_it_rests_as_long_as_it_ran(self, home, slots):
        rests = []
        plan = Plan(batches=(1,), rounds=2, rest=1.0, energy_seconds=0.01)
        measure(home, slots[:1], plan, device_class="c", sleep=rests.append)
        assert len(rests) == 3
        assert all(rest > 0 for rest in rests)

    def test_batches_take_the_first_samples_again(self):
        x = samples(5)
        one, two = batches({"x": x}, 3)
        assert (one["x"] == x[:3]).all()
        assert (two["x"] == x[[3, 4, 0]]).all()
        with pytest.raises(BenchError, match="no samples"):
            batches({"x": x[:0]}, 1)

    def test_a_graph_without_a_free_batch_gets_what_it_insists_on(self):
        def specs(*shapes):
            return tuple(
                TensorSpec(name=f"i{n}", dtype="float32", shape=shape)
                for n, shape in enumerate(shapes)
            )

        x = samples(6)
        free = feeds_of({"i0": x}, specs((-1, 4)), (1, 32))
        assert {size: len(feeds) for size, feeds in free.items()} == {1: 6, 32: 1}
        fixed = feeds_of({"i0": x}, specs((2, 4)), (1, 32))
        assert {size: [f["i0"].shape for f in feeds] for size, feeds in fixed.items()} == {
            1: [(2, 4)] * 3
        }
        mixed = {"i0": x, "i1": np.float32(3)}
        assert feeds_of(mixed, specs((-1, 4), ()), (1, 32)) == {1: [mixed]}

    def test_nodes_are_counted_once_per_provider(self):
        node = {"cat": "Node", "name": "a_kernel_time", "args": {"provider": "P"}}
        assert count_nodes([node, node, {"name": "run"}]) == {"P": 1}


class TestSpool:
    @pytest.fixture
    def spool(self, tmp_path):
        spool = Spool(tmp_path / "bench.db", device=DEVICE)
        yield spool
        spool.close()

    def ids(self, spool) -> list[int]:
        return [number for number, _ in spool.waiting(1000)]

    def test_a_report_waits_until_it_arrived_and_is_remembered(self, spool):
        spool.put(a_report())
        ((number, body),) = spool.waiting(5)
        assert BenchReport.model_validate_json(body) == a_report()
        spool.arrived(number)
        assert spool.waiting(5) == []
        assert spool.knows(a_report().sha256, "1.2")
        assert not spool.knows(a_report().sha256, "1.3"), "another runtime is another speed"
        assert not spool.knows("f" * 64, "1.2")

    def test_a_newer_report_is_not_taken_for_the_older_that_arrives(self, spool):
        spool.put(a_report())
        (older,) = self.ids(spool)
        spool.put(a_report(p50_ms=0.5))
        spool.arrived(older)
        ((_, body),) = spool.waiting(5)
        assert BenchReport.model_validate_json(body).benchmarks[0].p50_ms == 0.5

    def test_it_is_bounded_and_drops_the_oldest(self, spool):
        for number in range(MOST + 5):
            spool.put(a_report(number))
        waiting = [BenchReport.model_validate_json(body) for _, body in spool.waiting(1000)]
        assert [int(r.sha256, 16) for r in waiting] == list(range(5, MOST + 5))

    def test_another_process_may_write_while_the_agent_reads(self, spool, tmp_path):
        def write() -> None:
            other = Spool(tmp_path / "bench.db", device=DEVICE)
            for number in range(20):
                other.put(a_report(number))
            other.close()

        writer = threading.Thread(target=write)
        writer.start()
        seen: set[int] = set()
        deadline = time.monotonic() + 30
        while len(seen) < 20 and time.monotonic() < deadline:
            for number in self.ids(spool):
                seen.add(number)
                spool.arrived(number)
        writer.join()
        assert len(seen) == 20
        assert spool.waiting(5) == []

    def test_a_device_that_was_enrolled_anew_sends_nothing_of_the_former(self, spool, tmp_path):
        spool.put(a_report())
        other = Spool(tmp_path / "bench.db", device="dev_0000000000000002")
        assert other.waiting(5) == []
        assert not other.knows(a_report().sha256, "1.2")
        other.close()

    def test_a_damaged_file_disturbs_nobody(self, tmp_path, caplog):
        path = tmp_path / "bench.db"
        path.write_bytes(b"no database" * 1000)
        with pytest.raises(JournalError, match="bench file"):
            Spool(path, device=DEVICE)
        spool = open_spool(path, device=DEVICE)
        spool.put(a_report())
        assert len(spool.waiting(5)) == 1
        assert (tmp_path / "bench.db.damaged").exists()
        with sqlite3.connect(path) as db:
            db.execute("DROP TABLE reports")
        db.close()
        assert spool.waiting(5) == []
        assert spool.waiting(5) == []
        spool.arrived(1)
        assert spool.knows("f" * 64, "1.2"), "nothing is measured that cannot be kept"
        assert caplog.text.count("no such table") == 1
        with pytest.raises(JournalError):
            spool.put(a_report())
        spool.close()


class FakeProcess:
    def __init__(self) -> None:
        self.code: int | None = None
        self.killed = False

    def poll(self) -> int | None:
        return self.code

    def kill(self) -> None:
        self.killed = self.code is None

    def wait(self, _timeout: float | None = None) -> int:
        return -9 if self.code is None else self.code


class TestAutobench:
    @pytest.fixture
    def slot(self):
        return Slot(
            model="digits", version=1, variant="fp32", sha256="a" * 64, manifest_sha256="b" * 64
        )

    @pytest.fixture
    def world(self, home):
        class World:
            now = 0.0
            known: set = set()  # noqa: RUF012 - a fresh class for each test
            started: list = []  # noqa: RUF012 - likewise

            def start(self, _home, _model) -> FakeProcess:
                self.started.append(FakeProcess())
                return self.started[-1]

        world = World()
        world.started.clear()
        world.auto = Autobench(
            home, known=lambda s: s in world.known, clock=lambda: world.now, start=world.start
        )
        return world

    def settle(self, world, slot) -> None:
        world.auto.look(() if slot is None else (slot,), in_peace=True)
        world.now += autobench.SETTLE_SECONDS
        world.auto.look(() if slot is None else (slot,), in_peace=True)

    def test_a_variant_is_measured_once_after_it_settled(self, world, slot):
        world.auto.look(() if slot is None else (slot,), in_peace=True)
        world.now += autobench.SETTLE_SECONDS - 0.1
        world.auto.look(() if slot is None else (slot,), in_peace=True)
        assert not world.started
        world.now += 0.1
        world.auto.look(() if slot is None else (slot,), in_peace=True)
        (process,) = world.started
        process.code = 0
        for _ in range(5):
            world.now += 100
            world.auto.look(() if slot is None else (slot,), in_peace=True)
        assert len(world.started) == 1

    def test_never_while_an_update_is_under_way(self, world, slot):
        for _ in range(10):
            world.now += 100
            world.auto.look(() if slot is None else (slot,), in_peace=False)
        assert not world.started
        self.settle(world, slot)
        assert len(world.started) == 1

    def test_an_update_ends_it_and_it_is_done_afterwards(self, world, slot):
        self.settle(world, slot)
        world.auto.look(() if slot is None else (slot,), in_peace=False)
        assert world.started[0].killed
        self.settle(world, slot)
        assert len(world.started) == 2

    def test_what_was_measured_before_is_not_again(self, world, slot):
        world.known.add(slot.sha256)
        self.settle(world, slot)
        assert not world.started
        world.known.clear()

    def test_one_that_hangs_is_ended_and_not_tried_again(self, world, slot, caplog):
        self.settle(world, slot)
        world.now += autobench.MAX_SECONDS
        world.auto.look(() if slot is None else (slot,), in_peace=True)
        assert world.started[0].killed
        assert "could not be measured" in caplog.text
        self.settle(world, slot)
        assert len(world.started) == 1

    def test_another_variant_is_another_measurement(self, world, slot):
        self.settle(world, slot)
        world.started[0].code = 1
        world.auto.look(() if slot is None else (slot,), in_peace=True)
        other = Slot(**{f: getattr(slot, f) for f in slot.__slots__} | {"sha256": "c" * 64})
        self.settle(world, other)
        assert len(world.started) == 2

    def test_without_a_model_nothing_is_begun(self, world):
        self.settle(world, None)
        assert not world.started


class TestCommand:
    def run(self, home, *args: str):
        return CliRunner().invoke(cli, ["bench", "--home", str(home.root), *args])

    def test_it_works_while_the_agent_holds_the_home(self, home, slots):
        with agent_lock(home):
            ended = self.run(home, "digits", "--rounds", "1")
        assert ended.exit_code == Exit.OK, ended.output
        head, *rows = ended.stdout.splitlines()
        assert head.split()[:4] == ["variant", "batch", "p50", "p95"]
        assert [row.split()[:4] for row in rows] == [
            ["digits", "v2", "int8", "1"], ["digits", "v2", "int8", "32"],
            ["digits", "v1", "fp32", "1"], ["digits", "v1", "fp32", "32"],
        ]  # fmt: skip
        assert "the agent is sending 2 report(s)" in ended.stderr
        device = load_identity(home).record.device
        spool = Spool(home.bench, device=device)
        sent = [BenchReport.model_validate_json(body) for _, body in spool.waiting(9)]
        spool.close()
        assert {(r.version, r.variant) for r in sent} == {(2, "int8"), (1, "fp32")}
        assert {r.sha256 for r in sent} == {slot.sha256 for slot in slots}

    @pytest.mark.usefixtures("slots")
    def test_json_alone_is_on_stdout(self, home):
        ended = self.run(home, "--rounds", "1", "--json")
        found = Benched.model_validate_json(ended.stdout)
        assert len(found.reports) == 2
        assert "sends, once it runs and is connected" in ended.stderr

    def test_a_variant_that_fails_is_told_and_decides_the_exit_code(self, home, slots):
        (home.blobs / slots[0].sha256).write_bytes(b"damaged")
        ended = self.run(home, "--rounds", "1")
        assert ended.exit_code == Exit.FAILED
        assert "digits v2 int8 was not measured" in ended.stderr
        assert "digits v1 fp32" in ended.stdout

    @pytest.mark.usefixtures("slots")
    def test_two_at_once_would_measure_each_other(self, home):
        with bench_lock(home):
            ended = self.run(home)
        assert isinstance(ended.exception, BenchRunningError)
        assert ended.exception.exit is Exit.CONFLICT

    @pytest.mark.usefixtures("slots")
    def test_figures_that_cannot_be_kept_are_shown_all_the_same(self, home):
        home.bench.write_bytes(b"no database" * 1000)
        ended = self.run(home, "--rounds", "1")
        assert "digits v2 int8" in ended.stdout
        assert isinstance(ended.exception, JournalError)
        assert "the figures are not sent" in str(ended.exception)

    def test_quietly_only_the_active_variant_is_measured(self, home, slots):
        ended = self.run(home, "--quietly")
        assert ended.exit_code == Exit.OK
        device = load_identity(home).record.device
        spool = Spool(home.bench, device=device)
        ((_, body),) = spool.waiting(9)
        spool.close()
        report = BenchReport.model_validate_json(body)
        assert report.sha256 == slots[0].sha256
        assert [b.batch for b in report.benchmarks] == [1]


class TestTable:
    def test_units_suit_the_figures(self):
        slot = Slot(model="m", version=3, variant="int8", sha256="a" * 64, manifest_sha256="b" * 64)
        fast = figures(p50_ms=0.0049, p95_ms=0.5, p99_ms=1234.5, cpu_ms=12.345, load_ms=99.96)
        guess = figures(
            batch=32,
            rss_growth_mb=1.25,
            energy=Energy(millijoules=0.5, method="cpu_time", watts=5),
            nodes={"CPUExecutionProvider": 7},
        )
        benched = benched_of([(slot, (fast, guess))], "cameras", AT)
        _, one, two = table(benched)
        assert one.split()[3:] == [
            "1", "4.9", "µs", "500", "µs", "1234", "ms", "12.3", "ms", "100", "ms", "-", "-", "-",
        ]  # fmt: skip
        assert two.split()[-4:] == ["1.2", "MiB", "~500", "µJ"]
        assert len({len(line) for line in table(benched)}) == 1
        assert "class cameras" in notes(benched)[0]
        assert notes(benched)[1] == "~ estimated: CPU time by 5 W, as no meter can be read"

    def test_what_is_kept_is_what_is_shown(self, home):
        benched = benched_of([], "cameras", AT)
        keep(home, DEVICE, benched.reports)
        assert len(table(benched)) == 1
        assert notes(benched) == []
