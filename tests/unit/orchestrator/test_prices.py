"""The price table: read at the start, or refused in one line."""

from __future__ import annotations

import pytest

from orchestrator.adapters.prices import load_prices
from orchestrator.domain.cost import Prices, cost, total
from orchestrator.errors import Invalid
from orchestrator.settings import load
from orchestrator.wiring.database import prepare_database
from schemas.job import Usage


def settings(tmp_path, text=None, **more):
    if text is not None:
        (tmp_path / "prices.yaml").write_text(text)
    return load({"ARGOSY_HOME": str(tmp_path)}, **more)


def test_the_table_in_the_home_is_read_and_one_that_is_named_goes_before_it(tmp_path):
    assert load_prices(settings(tmp_path)) is None
    home = settings(tmp_path, "{currency: EUR, cpu_hour: 0.04, gpu_hour: 2.1}")
    assert load_prices(home) == Prices("EUR", 0.04, 2.1)
    named = tmp_path / "other.yaml"
    named.write_text("currency: USD\ncpu_hour: 1\n")
    chosen = load({"ARGOSY_HOME": str(tmp_path), "ARGOSY_PRICES": str(named)})
    assert load_prices(chosen) == Prices("USD", 1.0, 0.0)
    assert load(chosen.to_env()) == chosen


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "valid dictionary"),
        ("[1]", "valid dictionary"),
        ("{currency: EUR", "not YAML"),
        ("{currency: EUR, cpu_hour: cheap}", "cpu_hour: "),
        ("{currency: EUR, cpu_hour: -1}", "cpu_hour: "),
        ("{currency: EUR, cpu_hour: .nan}", "cpu_hour: "),
        ("{currency: euro, cpu_hour: 1}", "currency: "),
        ("{currency: EUR, cpu_hour: 1, gpu_hours: 1}", "gpu_hours: "),
        ("{currency: EUR}", "cpu_hour: Field required"),
        ("x" * 70_000, "more than 65536 bytes"),
    ],
)
def test_a_table_that_is_none_keeps_the_platform_from_starting(tmp_path, text, words):
    with pytest.raises(Invalid, match=words) as told:
        prepare_database(settings(tmp_path, text))
    assert str(tmp_path / "prices.yaml") in told.value.detail
    assert "\n" not in told.value.detail
    assert "cpu_hour" in told.value.hint
    assert not (tmp_path / "argosy.db").exists()


def test_a_table_that_is_named_must_be_there(tmp_path):
    with pytest.raises(Invalid, match=r"ARGOSY_PRICES: .*is not there"):
        load_prices(settings(tmp_path, prices=str(tmp_path / "gone.yaml")))


def test_reserved_hours_are_paid_for_whether_used_or_not():
    usage = total(
        [
            Usage(cpu_seconds=3600, gpu_seconds=1800, cpu_used_seconds=9),
            Usage(cpu_seconds=1800, wall_seconds=60),
        ]
    )
    assert (usage.cpu_seconds, usage.wall_seconds, usage.cpu_used_seconds) == (5400, 60, 9)
    found = cost(usage, Prices("EUR", cpu_hour=0.04, gpu_hour=2.0))
    assert (found.amount, found.currency) == (1.06, "EUR")
    assert cost(usage, None) is None
    assert cost(total([]), Prices("EUR", 1, 1)).amount == 0
