"""What is measured of a variant in the job: accuracy, times, memory, energy, nodes, size."""

from __future__ import annotations

import itertools
import json
import os

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from schemas.paired import compare
from schemas.signature import TensorSpec
from workers.errors import WorkerError
from workers.inspection.stream import Stream
from workers.optimization.measuring import timing
from workers.optimization.measuring.energy import estimated, find_rapl, metered
from workers.optimization.measuring.evaluate import score
from workers.optimization.measuring.footprint import footprint
from workers.optimization.measuring.host import host_isa, host_name
from workers.optimization.measuring.latency import Cost, compressed_bytes, costs, parts
from workers.optimization.measuring.nodes import count_nodes, nodes_of
from workers.optimization.measuring.timing import Failure, alternate
from workers.optimization.session import infer, open_session

FEATURES, CLASSES = 4, 3


def net(*, hidden: int = 0, batch: int | str = "n", bias: float = 0.0) -> bytes:
    """softmax(x @ w + bias·[1, 0, 0]); through ``hidden`` columns first, which cost time."""
    rng = np.random.default_rng(5)
    sizes = [FEATURES, hidden, CLASSES] if hidden else [FEATURES, CLASSES]
    nodes, weights, last = [], [], "x"
    for i, (rows, columns) in enumerate(itertools.pairwise(sizes)):
        w = (rng.normal(size=(rows, columns)) / np.sqrt(rows)).astype(np.float32)
        weights.append(numpy_helper.from_array(w, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"h{i}"]))
        last = f"h{i}"
    weights.append(numpy_helper.from_array(np.float32([bias, 0, 0]), "bias"))
    nodes += [
        helper.make_node("Add", [last, "bias"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["y"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, CLASSES])],
        weights,
    )
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def inputs(n: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, FEATURES)).astype(np.float32)


class LabelledTask:
    labels = ("a", "b", "c")
    input_spec = TensorSpec(name="x", dtype="float32", shape=(-1, FEATURES))


def stream(x: np.ndarray, y: np.ndarray) -> Stream:
    return Stream(LabelledTask(), list(zip(x, y.tolist(), strict=True)), "validation")


class TestScore:
    def test_says_which_samples_were_right(self, monkeypatch):
        x = inputs(1037)
        session = open_session(net())
        y = infer(session, x).argmax(axis=1)
        wrong = [0, 7, 8, 100, 1036]
        y[wrong] = (y[wrong] + 1) % CLASSES
        monkeypatch.setattr("workers.inspection.stream.BLOCK_SAMPLES", 101)  # no multiple of 8
        scored = score(session, stream(x, y))
        bits = np.unpackbits(np.frombuffer(scored.outcomes.bits, np.uint8))
        assert len(scored.outcomes.bits) == (1037 + 7) // 8
        assert list(np.flatnonzero(bits[:1037] == 0)) == wrong
        assert not bits[1037:].any()
        assert scored.accuracy.value == (1037 - 5) / 1037
        assert scored.accuracy.n == scored.outcomes.n == 1037
        assert scored.accuracy.low < scored.accuracy.value < scored.accuracy.high
        assert scored.accuracy.outcomes is None

    def test_two_models_on_one_set_can_be_paired(self):
        x = inputs(500)
        first = open_session(net())
        y = infer(first, x).argmax(axis=1)
        second = open_session(net(bias=1.0))
        other = infer(second, x).argmax(axis=1)
        one, two = score(first, stream(x, y)), score(second, stream(x, y))
        assert one.accuracy.set_sha256 == two.accuracy.set_sha256
        paired = compare(one.outcomes, two.outcomes)
        assert paired.lost == int((other != y).sum()) > 0
        assert paired.won == 0

    def test_what_is_not_a_number_is_wrong(self):
        x = inputs(16)
        y = np.zeros(16, dtype=np.int64)
        session = open_session(net(bias=float("nan")))
        assert infer(session, x).argmax(axis=1).tolist() == y.tolist()
        assert score(session, stream(x, y)).accuracy.value == 0


def test_a_fixed_batch_is_filled_up_and_cut_again():
    x = inputs(10)
    free, fixed = open_session(net()), open_session(net(batch=4))
    np.testing.assert_allclose(infer(fixed, x), infer(free, x), rtol=1e-5)


class TestCosts:
    def test_variants_are_measured_together_and_failures_told(self, tmp_path):
        models = {"slow": net(hidden=20_000), "quick": net(), "broken": b"no model"}
        paths = {}
        for name, data in models.items():
            paths[name] = tmp_path / f"{name}.onnx"
            paths[name].write_bytes(data)
        found = costs(paths, inputs(), rounds=6, starts=1)
        assert list(found) == ["slow", "quick", "broken"]
        assert isinstance(found["broken"], Failure)
        assert "\n" not in found["broken"].reason
        slow, quick = found["slow"], found["quick"]
        assert isinstance(slow, Cost)
        assert isinstance(quick, Cost)
        for cost in (slow, quick):
            single, batch = cost.benchmarks
            assert (single.batch, batch.batch) == (1, 32)
            assert single.runs >= 6
            assert single.warm_up >= 2
            assert 0 < single.p50_ms <= single.p95_ms <= single.p99_ms
            assert single.cpu_ms == cost.cpu_ms > 0
            assert single.load_ms > 0
            assert single.first_ms is not None
            assert batch.first_ms is None
            assert single.rss_mb > single.rss_growth_mb > 0
            assert batch.rss_mb >= single.rss_mb
            assert single.energy.millijoules > 0
            assert single.arch == os.uname().machine
            assert single.device_class is None
        assert slow.cpu_ms > 3 * quick.cpu_ms
        assert slow.benchmarks[0].nodes["CPUExecutionProvider"] >= 3
        assert slow.compressed_bytes > quick.compressed_bytes

    def test_a_graph_of_a_fixed_batch_is_measured_at_that(self, tmp_path):
        path = tmp_path / "fixed.onnx"
        path.write_bytes(net(batch=4))
        powercap(tmp_path, {"intel-rapl:0": ("package-0", 1, 1000)})
        meter = find_rapl(tmp_path)
        cost = costs({"fixed": path}, {"x": inputs()}, rounds=2, starts=1, rapl=meter)["fixed"]
        assert [b.batch for b in cost.benchmarks] == [4]
        assert [b.energy.method for b in cost.benchmarks] == ["rapl"]

    def test_inputs_that_do_not_fit_are_a_failure(self, tmp_path):
        path = tmp_path / "net.onnx"
        path.write_bytes(net())
        found = costs({"net": path}, {"z": inputs()}, rounds=1, starts=1)["net"]
        assert isinstance(found, Failure)
        assert "x" in found.reason

    def test_batches_take_the_first_samples_again(self):
        x = np.arange(5)
        rows = [feed["x"].tolist() for feed in parts({"x": x}, 3)]
        assert rows == [[0, 1, 2], [3, 4, 0]]
        assert [f["x"].tolist() for f in parts({"x": x[:2]}, 5)] == [[0, 1, 0, 1, 0]]
        with pytest.raises(ValueError, match="no samples"):
            parts({"x": x[:0]}, 2)


class TestTurns:
    def test_blocks_alternate_and_each_round_turns_the_order(self, monkeypatch):
        monkeypatch.setattr(timing, "WARM_UP", 1)
        monkeypatch.setattr(timing, "BLOCK", 2)
        monkeypatch.setattr(timing, "BLOCK_SECONDS", 1e6)
        ran: list[str] = []
        runs = {name: lambda _i, name=name: ran.append(name) for name in "ab"}
        found = alternate(runs, rounds=2)
        # A warm-up each; then blocks of two after one that is not counted.
        assert "".join(ran) == "abaaabbbbbbaaa"
        for times in found.values():
            assert (len(times.wall), len(times.cpu), times.warm_up) == (4, 4, 3)

    def test_one_that_breaks_ends_and_the_others_go_on(self):
        calls = {"n": 0}

        def breaks(_i):
            calls["n"] += 1
            if calls["n"] > 30:
                msg = "out of luck\nand more"
                raise RuntimeError(msg)

        found = alternate({"bad": breaks, "good": lambda _i: None}, rounds=3)
        assert found["bad"] == Failure("it does not run: RuntimeError: out of luck")
        assert len(found["good"].wall) == 3 * timing.BLOCK
        assert calls["n"] == 31

    def test_time_that_is_over_ends_all_after_the_same_round(self):
        found = alternate({n: lambda _i: None for n in "ab"}, rounds=50, max_seconds=0.0)
        counts = {len(times.wall) for times in found.values()}
        assert counts == {timing.FEWEST_ROUNDS * timing.BLOCK}


class TestAlone:
    def test_memory_is_the_models(self, tmp_path):
        sizes = {"small": 10, "large": 700_000}  # 700,000 times 7 floats: 19 MiB
        grown = {}
        for name, hidden in sizes.items():
            path = tmp_path / f"{name}.onnx"
            path.write_bytes(net(hidden=hidden))
            found = footprint(path, [{"x": inputs(1)}, {"x": inputs(32)}])
            assert found.load_ms > 0
            assert found.first_ms > 0
            assert found.growth_mb[0] <= found.growth_mb[1]
            grown[name] = found.growth_mb[0]
        assert grown["large"] - grown["small"] > 15

    def test_what_cannot_be_loaded_is_said_on_one_line(self, tmp_path):
        path = tmp_path / "bad.onnx"
        path.write_bytes(b"bad")
        with pytest.raises(WorkerError, match=r"bad\.onnx cannot be loaded and run by itself"):
            footprint(path, [{"x": inputs(1)}])


class TestNodes:
    def test_the_runtime_is_asked(self, tmp_path):
        path = tmp_path / "net.onnx"
        path.write_bytes(net())
        # Product and sum are fused into one node.
        assert nodes_of(path, {"x": inputs(1)}) == {"CPUExecutionProvider": 2}

    def test_a_node_that_runs_often_counts_once(self):
        def ran(name: str, provider: str, index: int = 0) -> dict:
            args = {"provider": provider, "node_index": str(index)}
            return {"cat": "Node", "name": f"{name}_kernel_time", "args": args}

        events = [
            ran("a", "Cuda"), ran("a", "Cuda"), ran("a", "Cuda", 1), ran("b", "Cpu"),
            {"cat": "Session", "name": "session_initialization"},
            {"cat": "Node", "name": "b_fence_before", "args": {"provider": "Cpu"}},
        ]  # fmt: skip
        assert count_nodes(events) == {"Cuda": 2, "Cpu": 1}


def powercap(root, readings: dict[str, tuple[str, int, int]]) -> None:
    for folder, (name, reading, limit) in readings.items():
        (root / folder).mkdir(parents=True)
        (root / folder / "name").write_text(name + "\n")
        (root / folder / "energy_uj").write_text(f"{reading}\n")
        (root / folder / "max_energy_range_uj").write_text(f"{limit}\n")


class TestEnergy:
    def test_packages_are_read_and_counters_begin_anew(self, tmp_path):
        powercap(
            tmp_path,
            {
                "intel-rapl:0": ("package-0", 900, 1000),
                "intel-rapl:0:0": ("core", 900, 1000),
                "intel-rapl:1": ("package-1", 100, 5000),
                "intel-rapl:2": ("psys", 1, 1000),
            },
        )
        rapl = find_rapl(tmp_path)
        ticks = iter([0.0, 0.1, 0.2, 0.3])

        def run(i: int) -> None:
            if i == 0:
                (tmp_path / "intel-rapl:0" / "energy_uj").write_text("200\n")  # beyond 1000
            (tmp_path / "intel-rapl:1" / "energy_uj").write_text(f"{100 + 300 * (i + 1)}\n")

        found = metered(rapl, run, seconds=0.25, clock=lambda: next(ticks))
        # Three runs: 300 µJ of one package and 900 of the other.
        assert found.method == "rapl"
        assert not found.estimated
        assert found.millijoules == pytest.approx(1200 / 3 / 1e3)

    def test_a_counter_that_may_not_be_read_is_none(self, tmp_path):
        powercap(tmp_path, {"intel-rapl:0": ("package-0", 1, 1000)})
        (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
        assert find_rapl(tmp_path) is None
        assert find_rapl(tmp_path / "absent") is None

    def test_a_counter_that_goes_away_is_not_a_failure(self, tmp_path):
        powercap(tmp_path, {"intel-rapl:0": ("package-0", 1, 1000)})
        rapl = find_rapl(tmp_path)
        gone = tmp_path / "intel-rapl:0" / "energy_uj"
        assert metered(rapl, lambda _i: gone.unlink(), seconds=0.0) is None

    def test_an_estimate_says_so(self):
        found = estimated(2.0, watts=3.0)
        assert (found.millijoules, found.method, found.watts) == (6.0, "cpu_time", 3.0)
        assert found.estimated
        assert estimated(1.0).watts > 0


def test_the_packed_size_is_zstds(tmp_path):
    path = tmp_path / "zeros"
    path.write_bytes(bytes(1_000_000))
    assert 0 < compressed_bytes(path) < 1000
    path.write_bytes(np.random.default_rng(0).bytes(100_000))
    assert compressed_bytes(path) >= 100_000


def test_the_host_is_named(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: Fast One\nflags\t: avx2 avx_vnni\n")
    assert host_name(cpuinfo).startswith("Fast One, ")
    assert host_isa(cpuinfo) == ("avx2", "avx_vnni", "vnni")
    assert host_isa(tmp_path / "absent") == ()
    assert json.dumps(host_name(tmp_path / "absent"))
