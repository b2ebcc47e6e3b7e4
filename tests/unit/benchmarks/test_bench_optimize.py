import pytest

from benchmarks._optimize_nets import NETS
from benchmarks.optimize import PEERS, Measured, _figures, _row, _table


def side(name: str, ms: float, size: int = 50, drop: float = 0.0, accuracy: float = 0.9):
    return Measured(
        side=name,
        size=size,
        packed=size // 2,
        accuracy=accuracy,
        drop=(drop, drop - 0.01, drop + 0.01),
        n=100,
        p50_ms={1: [ms], 32: [30 * ms]},
        cpu_ms={1: [ms, ms], 32: [30 * ms]},
    )


def test_a_ratio_of_two_is_half_the_time() -> None:
    base, ours = side("fp32", 4.0, size=100), side("int8", 2.0)
    row = _row(ours, [base, ours])
    assert (row["latency_b1"], row["latency_b32"], row["size"]) == (2.0, 2.0, 0.5)
    figures = _figures("net", [base, ours])
    assert figures["net_latency_b1"].summary()["ratio"] == pytest.approx(2.0)
    assert figures["net_size"].summary()["ratio"] == pytest.approx(0.5)


def test_pruned_variants_and_others_have_figures_of_their_own() -> None:
    sides = [side("fp32", 8.0), side("int8", 4.0), side("p75-int8", 1.0)]
    figures = _figures("net", sides)
    assert figures["net_latency_b1"].summary()["ratio"] == pytest.approx(2.0)
    assert figures["net_pruned_latency_b1"].summary()["ratio"] == pytest.approx(8.0)


def test_a_peer_that_loses_more_than_was_allowed_is_no_rival() -> None:
    sides = [side("fp32", 8.0), side("int8", 4.0), side("nncf", 1.0, drop=0.5)]
    assert "net_latency_b1_to_best_peer" not in _figures("net", sides)
    fair = [*sides, side("ort-static", 6.0)]
    found = _figures("net", fair)["net_latency_b1_to_best_peer"]
    assert found.summary()["ratio"] == pytest.approx(1.5)


def test_the_table_has_a_line_per_side() -> None:
    sides = [side("fp32", 4.0), side("int8", 2.0), side(PEERS[0], 3.0)]
    text = _table("net", [_row(one, sides) for one in sides])
    assert len(text.splitlines()) == 4
    assert "2.00x" in text


@pytest.mark.parametrize("name", NETS)
def test_each_net_is_a_valid_job_whose_weights_have_a_name(name: str) -> None:
    assert NETS[name].spec().name == name
    assert len(NETS[name].digest()) == 16
