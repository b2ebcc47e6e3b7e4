import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.paired import Outcomes, compare, paired


@st.composite
def counts(draw) -> tuple[int, int, int]:
    n = draw(st.integers(1, 5000))
    lost = draw(st.integers(0, n))
    return n, lost, draw(st.integers(0, n - lost))


@given(counts(), st.floats(0.5, 0.999))
def test_the_interval_holds_the_drop_within_its_bounds(found, confidence) -> None:
    n, lost, won = found
    one = paired(n, lost, won, confidence)
    assert -1 <= one.low <= one.drop + 1e-9
    assert one.drop - 1e-9 <= one.high <= 1
    assert one.drop == pytest.approx((lost - won) / n)


@given(counts())
def test_swapping_the_models_mirrors_the_interval(found) -> None:
    n, lost, won = found
    one, other = paired(n, lost, won), paired(n, won, lost)
    assert one.low == pytest.approx(-other.high, abs=1e-9)
    assert one.high == pytest.approx(-other.low, abs=1e-9)


@given(counts())
def test_more_confidence_and_fewer_samples_widen_it(found) -> None:
    n, lost, won = found
    assert paired(n, lost, won, 0.9).high <= paired(n, lost, won, 0.99).high + 1e-9
    assert paired(10 * n, 10 * lost, 10 * won).high <= paired(n, lost, won).high + 1e-9


@given(counts())
def test_it_approaches_wald_for_many_samples(found) -> None:
    n, lost, won = found
    n, lost, won = 10_000 * n, 10_000 * lost, 10_000 * won
    assume(lost + won > 0)
    drop = (lost - won) / n
    error = math.sqrt(max(0.0, (lost + won) / n - drop * drop) / n)
    assert paired(n, lost, won).high == pytest.approx(drop + 1.6449 * error, abs=2e-3)


@pytest.mark.parametrize(("n", "lost", "won"), [(44, 0, 1), (30, 5, 2), (200, 9, 14), (50, 0, 7)])
def test_the_limit_is_where_the_score_test_turns(n: int, lost: int, won: int) -> None:
    """Found again from the likelihood itself, without its closed form."""
    limit = paired(n, lost, won, 0.95).high

    def likelihood(share: float) -> float:
        parts = ((lost, share + limit), (won, share), (n - lost - won, 1 - 2 * share - limit))
        return sum(k * math.log(max(p, 1e-300)) for k, p in parts if k)

    low, high = max(0.0, -limit), (1 - limit) / 2
    for _ in range(200):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, b) if likelihood(a) > likelihood(b) else (a, high)
    variance = n * (2 * low + limit * (1 - limit))
    assert (n * limit - (lost - won)) / math.sqrt(variance) == pytest.approx(1.6448536, abs=1e-4)


def test_no_difference_at_all_is_still_uncertain() -> None:
    # With nothing discordant the score limit is z² / (n + z²).
    z = 1.6448536
    assert paired(143, 0, 0).high == pytest.approx(z * z / (143 + z * z), abs=1e-6)


@given(
    st.integers(1, 200).flatmap(
        lambda n: st.tuples(
            st.lists(st.tuples(st.booleans(), st.booleans()), min_size=n, max_size=n)
        )
    )
)
def test_outcomes_are_counted_bit_by_bit(drawn) -> None:
    (pairs,) = drawn
    n = len(pairs)

    def pack(values: list[bool]) -> Outcomes:
        text = "".join("01"[v] for v in values).ljust((n + 7) // 8 * 8, "0")
        return Outcomes(n, int(text, 2).to_bytes((n + 7) // 8, "big"))

    found = compare(pack([a for a, _ in pairs]), pack([b for _, b in pairs]))
    assert (found.lost, found.won) == (
        sum(a and not b for a, b in pairs),
        sum(b and not a for a, b in pairs),
    )


def test_what_cannot_be_paired_is_refused() -> None:
    with pytest.raises(ValueError, match="need 2 bytes"):
        Outcomes(9, b"x")
    with pytest.raises(ValueError, match="cannot be paired"):
        compare(Outcomes(8, b"x"), Outcomes(7, b"x"))
    with pytest.raises(ValueError, match="lost"):
        paired(3, 2, 2)
