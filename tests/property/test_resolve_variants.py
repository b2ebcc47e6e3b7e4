"""The resolution of variants, whatever the fleet: nothing that does not fit, nothing slower."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from orchestrator.domain.requirements import lacking
from orchestrator.domain.resolve import Choice, Refused, class_budget, known, resolve
from schemas.budget import Budget
from tests.fakes.resolution import bench, hardware, manifest, measured, variant

ARCHES = ("x86_64", "aarch64")
ISA = ("avx2", "vnni", "neon")
CLASSES = ("cam", "server")
times = st.one_of(st.none(), st.sampled_from([0.5, 1.0, 2.0, 4.0, 8.0]))


@st.composite
def variants(draw, name, ram, arch):
    p50 = draw(times if arch is None else st.sampled_from([0.5, 1.0, 2.0]))
    benchmarks = (bench(p50, rss_growth_mb=draw(times)),) if p50 is not None else ()
    needs = {
        "arch": draw(st.sampled_from([(), ARCHES, ("x86_64",), ("arm64",)])),
        "isa": draw(st.sampled_from([(), (), ("vnni",), ("avx2", "neon")])),
        "ram_mb": draw(st.sampled_from([None, None, 64, 2048])),
        "ort": draw(st.sampled_from([None, None, "1.9", "1.10"])),
    }
    if arch is not None:
        needs = {"arch": (arch,)}
    if ram is not None:
        needs["ram_mb"] = ram
    size = draw(st.sampled_from([50_000, 100_000, 400_000]))
    return variant(name, size=size, benchmarks=benchmarks, **needs)


@st.composite
def situations(draw, ram=None, arch=None):
    """Anything; with ``ram``, what every variant needs; with ``arch``, what each runs on."""
    names = [f"v{i}" for i in range(draw(st.integers(1, 5)))]
    limits = st.builds(Budget, max_latency_ms=times, max_size_mb=st.sampled_from([None, 0.1]))
    made = manifest(
        *(draw(variants(name, ram, arch)) for name in names),
        budgets=draw(st.dictionaries(st.sampled_from(CLASSES), limits)),
    )
    device = hardware(
        arch=arch or draw(st.sampled_from((*ARCHES, "AMD64"))),
        isa=tuple(draw(st.sets(st.sampled_from(ISA)))),
        ram_mb=draw(st.sampled_from([512, 4096])),
        ort=draw(st.sampled_from(["1.8.1", "1.9.0", "1.10", "unknown"])),
    )
    found = [
        measured(name, p50, device_class)
        for name in names
        for device_class in CLASSES
        if (p50 := draw(times)) is not None
    ]
    budget = draw(st.one_of(st.none(), limits))
    wanted = draw(st.sampled_from([None, None, *names]))
    return made, device, draw(st.sampled_from(CLASSES)), budget, found, wanted


@settings(max_examples=300)
@given(situations())
def test_what_is_chosen_fits_the_device_and_the_budget(situation):
    made, device, device_class, budget, found, wanted = situation
    choice = resolve(*situation)
    limits = class_budget(made, device_class, budget)
    fits = []
    for one in made.variants:
        p50 = known(made, device, device_class, found)[one.id].p50_ms
        too_slow = p50 is not None and p50 > (limits.max_latency_ms or float("inf"))
        too_large = one.file.size / 1e6 > (limits.max_size_mb or float("inf"))
        lacks = list(lacking(one.requires, device))
        if not (lacks or too_slow or too_large or wanted not in (None, one.id)):
            fits.append(one.id)
    if isinstance(choice, Refused):
        assert fits == []
    else:
        assert choice.variant.id in fits


@given(situations(ram=10**6))
def test_a_refusal_lists_every_variant_with_a_reason(situation):
    choice = resolve(*situation)
    assert isinstance(choice, Refused)
    assert [name for name, _ in choice.reasons] == [one.id for one in situation[0].variants]
    assert all(reason for _, reason in choice.reasons)
    assert all(f"{name}: " in choice.text() for name, _ in choice.reasons)


@given(situations(arch="x86_64"), st.integers(0, 5), st.sampled_from([1.01, 3.0]))
def test_a_slower_variant_never_changes_the_choice(situation, place, factor):
    made, device, device_class, budget, found, wanted = situation
    choice = resolve(*situation)
    assume(isinstance(choice, Choice))
    # Slower by what the class itself measured, so that the maker's figures of the others are
    # scaled as before.
    slower = variant("slower", size=1)
    there = list(made.variants)
    more = made.model_copy(update={"variants": (*there[:place], slower, *there[place:])})
    figures = [*found, measured("slower", choice.figures.p50_ms * factor, device_class)]
    assert resolve(more, device, device_class, budget, figures, wanted) == choice


@given(situations(arch="x86_64"))
def test_nothing_that_fits_is_known_to_be_faster(situation):
    *rest, _ = situation
    choice = resolve(*rest, None)
    assume(isinstance(choice, Choice))
    for one in situation[0].variants:
        alone = resolve(*rest, one.id)
        if isinstance(alone, Choice):
            assert alone.figures.p50_ms >= choice.figures.p50_ms
