"""Which variant a device gets: what it must have, what its class may spend, what is fastest."""

from __future__ import annotations

import pytest

from orchestrator.domain.requirements import release
from orchestrator.domain.resolve import MAX_DETAIL, Choice, Figures, Refused, installed, resolve
from schemas.budget import Budget
from schemas.device import ActiveModel
from tests.fakes.resolution import bench, hardware, manifest, measured, variant


def decide(made, device=None, budget=None, found=(), wanted=None):
    return resolve(made, device or hardware(), "cam", budget, found, wanted)


def chosen(*arguments, **more):
    choice = decide(*arguments, **more)
    assert isinstance(choice, Choice), choice
    return choice.variant.id


def why_not(one, device=None, budget=None, found=()):
    refused = decide(manifest(one), device, budget, found)
    assert isinstance(refused, Refused), refused
    ((name, reason),) = refused.reasons
    assert name == one.id
    return reason


@pytest.mark.parametrize(
    ("needs", "device", "words"),
    [
        ({"arch": ("aarch64",)}, {}, "needs aarch64, the device is x86_64"),
        ({"isa": ("avx2", "vnni")}, {"isa": ("avx2",)}, "needs the instruction set vnni"),
        ({"isa": ("avx2",)}, {}, "the device has not said which it has"),
        ({"ram_mb": 8192}, {}, "needs 8192 MiB of memory, the device has 4096"),
        ({"providers": ("CUDAExecutionProvider",)}, {}, "needs CUDAExecutionProvider"),
        ({"ort": "1.10"}, {"ort": "1.9.3"}, "needs ONNX Runtime 1.10, the device has 1.9.3"),
        ({"ort": "1.10"}, {"ort": "custom"}, "'custom' is no version"),
    ],
)
def test_a_variant_is_out_when_the_device_lacks_what_it_needs(needs, device, words):
    assert words in why_not(variant("int8", **needs), hardware(**device))


@pytest.mark.parametrize(
    ("needs", "device"),
    [
        ({"arch": ("x86_64",)}, {"arch": "AMD64"}),
        ({"arch": ("arm64",)}, {"arch": "aarch64"}),
        ({"isa": ("vnni",)}, {"isa": ("avx2", "avx512_vnni")}),
        ({"isa": ("neon",), "arch": ("aarch64",)}, {"arch": "aarch64"}),
        ({"ort": "1.20"}, {"ort": "1.20.0+cu12"}),
        ({"ort": "1.9"}, {"ort": "1.10.0"}),
        ({"ort": "1.20.1"}, {"ort": "2"}),
    ],
)
def test_what_means_the_same_is_taken_for_it(needs, device):
    assert chosen(manifest(variant("int8", **needs)), hardware(**device)) == "int8"


def test_versions_are_compared_by_their_numbers():
    assert release("1.9") < release("1.10.0") < release("1.10.1rc2")
    assert release("nightly") is None


def test_an_agent_that_reports_no_instruction_sets_gets_what_needs_none():
    made = manifest(variant("int8-vnni", 1, isa=("vnni",)), variant("int8", 2), variant("fp32", 3))
    assert chosen(made) == "int8"
    assert chosen(made, hardware(isa=("avx2", "vnni"))) == "int8-vnni"


def test_a_budget_puts_out_what_passes_it_and_a_limit_reached_is_kept():
    big = variant("fp32", size=100_001)
    assert "has 0.1 MB, class cam allows 0.1" in why_not(big, budget=Budget(max_size_mb=0.1))
    assert chosen(manifest(variant("fp32", size=100_000)), budget=Budget(max_size_mb=0.1))
    slow = variant("fp32", 12.0)
    text = why_not(slow, budget=Budget(max_latency_ms=5))
    assert "takes an estimated 12 ms, class cam allows 5" in text
    text = why_not(slow, budget=Budget(max_latency_ms=5), found=[measured("fp32", 7)])
    assert "takes 7 ms, class cam allows 5" in text
    large = variant("fp32", benchmarks=(bench(1, rss_growth_mb=80),))
    assert "an estimated 80 MiB" in why_not(large, budget=Budget(max_rss_mb=50))
    own = [measured("fp32", 1, rss_growth_mb=60)]
    assert "takes 60 MiB" in why_not(large, budget=Budget(max_rss_mb=50), found=own)


def test_every_reason_of_a_variant_is_given():
    reason = why_not(
        variant("fp32", size=10**7, ram_mb=9999, ort="9.0"), budget=Budget(max_size_mb=1)
    )
    assert "9999 MiB" in reason
    assert "ONNX Runtime 9.0" in reason
    assert "10 MB" in reason


def test_the_platforms_budget_binds_and_the_manifests_where_it_has_none():
    made = manifest(
        variant("fp32", 1, size=10**6),
        variant("int8", 2, size=10**5),
        budgets={"cam": Budget(max_size_mb=0.5)},
    )
    assert chosen(made) == "int8"
    assert chosen(made, budget=Budget()) == "int8"
    # An operator who speaks of the class takes the manifest's limits off with it.
    assert chosen(made, budget=Budget(max_latency_ms=50)) == "fp32"


def test_the_fastest_on_the_class_is_chosen_whatever_the_maker_measured():
    made = manifest(variant("int8", 1), variant("fp32", 2))
    found = [measured("int8", 9), measured("fp32", 4), measured("int8", 1, "server")]
    choice = decide(made, found=found)
    assert (choice.variant.id, choice.estimated) == ("fp32", False)
    assert choice.figures.p50_ms == 4
    assert chosen(made) == "int8"


def test_what_the_class_has_not_measured_is_scaled_by_what_it_has():
    made = manifest(variant("a", 10), variant("b", 20), variant("c", 30), variant("int8", 4))
    found = [measured("a", 30), measured("b", 20), measured("c", 300)]
    choice = decide(made, found=found)
    # The ratios are 3, 1 and 10: 4 ms there are 12 ms here.
    assert (choice.variant.id, choice.estimated) == ("int8", True)
    assert choice.figures == Figures(p50_ms=12)


def test_figures_of_other_machines_do_not_count():
    made = manifest(
        variant("first"),
        variant("arm", benchmarks=(bench(1, arch="aarch64"),)),
        variant("batch", benchmarks=(bench(1, batch=32),)),
        variant("gpu", benchmarks=(bench(1, provider="CUDAExecutionProvider"),)),
        variant("old", benchmarks=(bench(1, arch=None),)),
    )
    assert chosen(made) == "first"
    assert chosen(made, hardware(arch="arm64")) == "first"


def test_what_nobody_measured_keeps_its_place_in_the_manifest():
    unknown_first = manifest(variant("int8"), variant("fp32", 5))
    assert chosen(unknown_first) == "int8"
    assert decide(unknown_first).figures.p50_ms is None
    assert chosen(manifest(variant("fp32", 5), variant("int8"))) == "fp32"
    # Under a limit of latency, what is known to keep it is safer.
    assert chosen(unknown_first, budget=Budget(max_latency_ms=9)) == "fp32"
    assert chosen(manifest(variant("int8")), budget=Budget(max_latency_ms=9)) == "int8"


def test_of_equally_fast_ones_the_smaller_is_chosen():
    made = manifest(variant("fp32", 3, size=900), variant("int8", 3, size=300))
    assert chosen(made) == "int8"


def test_a_wanted_variant_is_the_only_one_and_must_fit_too():
    made = manifest(variant("int8", 1), variant("fp32", 2, ram_mb=9999))
    assert chosen(made, wanted="int8") == "int8"
    reasons = dict(decide(made, wanted="fp32").reasons)
    assert reasons["int8"] == "the rollout asks for fp32"
    assert "9999" in reasons["fp32"]


def test_a_refusal_is_one_bounded_line_that_names_every_variant():
    names = [f"v{i}-{'x' * 55}" for i in range(64)]
    made = manifest(*(variant(n, ram_mb=9999, ort="99.1", arch=("aarch64",)) for n in names))
    text = decide(made).text()
    assert len(text) <= MAX_DETAIL
    assert "\n" not in text
    assert all(f"{name}: needs aarch64" in text for name in names)
    short = decide(manifest(variant("int8", ram_mb=9999))).text()
    assert short == "no variant fits: int8: needs 9999 MiB of memory, the device has 4096"


def test_a_device_that_serves_the_file_has_it_installed():
    one = variant("int8")
    made = manifest(one)
    active = ActiveModel(model="digits", version=2, variant="int8", sha256=one.file.sha256)
    assert installed(active, made, 2, one)
    assert not installed(active, made, 3, one)
    assert not installed(None, made, 2, one)
