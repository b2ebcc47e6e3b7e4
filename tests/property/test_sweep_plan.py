"""Whatever the space, a plan is bounded, without repeats, and within it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.jobfile import JobSpec
from schemas.sweep import Span, Sweep
from workers.sweep.plan import apply, draw_span, plan

numbers = st.floats(min_value=1e-6, max_value=1e6)
choices = st.lists(
    st.one_of(st.booleans(), st.integers(-5, 5), st.text(max_size=3), st.none()),
    min_size=1, max_size=4,
)  # fmt: skip


@st.composite
def spans(draw) -> Span:
    low = draw(numbers)
    high = draw(st.floats(min_value=low * 1.5 + 1, max_value=low * 100 + 1e3))
    return Span(min=low, max=high, log=draw(st.booleans()), whole=draw(st.booleans()))


keys = st.sampled_from(["config.a", "config.b.c", "config.b.d", "config.e"])


@given(spans(), st.floats(min_value=0, max_value=1, exclude_max=True))
def test_what_is_drawn_lies_within_the_span(span: Span, u: float) -> None:
    value = draw_span(span, u)
    assert span.min <= value <= span.max
    assert isinstance(value, int) == span.whole


@given(spans(), st.floats(min_value=0, max_value=1, exclude_max=True), st.floats(0, 0.999))
def test_a_span_is_drawn_from_in_order(span: Span, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert draw_span(span, low) <= draw_span(span, high)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(keys, st.one_of(choices, spans()), min_size=1, max_size=3),
    st.integers(1, 12),
    st.integers(0, 2**31 - 1),
)
def test_a_random_plan_is_bounded_distinct_and_repeatable(space, trials, seed) -> None:
    sweep = Sweep(space=space, method="random", trials=trials)
    spec = JobSpec(
        name="x", task="a:B", seed=seed, sweep=sweep, stop={"require_target": False}
    )  # fmt: skip
    found = plan(spec)
    assert 1 <= len(found) <= trials
    assert found == plan(spec)
    texts = [repr(sorted(p.items())) for p in found]
    assert len(set(texts)) == len(texts)
    for parameters in found:
        config = apply(spec, parameters).config
        assert set(parameters) == set(space)
        for key, value in parameters.items():
            place = config
            for name in key.split(".")[1:]:
                place = place[name]
            assert place == value
