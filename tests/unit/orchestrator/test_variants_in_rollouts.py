"""One rollout, several classes of devices: each gets its own variant, or is told why not."""

from __future__ import annotations

from orchestrator.domain.rollout import RolloutEvent
from schemas.budget import Budget, DeviceClassSpec
from schemas.measure import BenchReport
from schemas.rollout import ExecState, RolloutSpec
from schemas.topics import Up
from tests.fakes.resolution import bench
from tests.fakes.tiny_onnx import tiny_onnx
from tests.unit.orchestrator.test_rollout_service import assignment, desired, executions, start

BIG, SMALL = tiny_onnx(b"x" * 400_000), tiny_onnx(b"y" * 90_000)
CAM = Budget(max_size_mb=0.1)


def register(platform, budgets=None):
    """FP32 of 400 kB, measured as the fastest where it was made, and INT8 of 90 kB."""
    made = platform.manifest("fp32", "int8")
    fp32, int8 = made.variants
    big = platform.file("fp32.onnx", BIG)
    small = platform.file("int8.onnx", SMALL)
    made = made.model_copy(
        update={
            "budgets": budgets or {},
            "variants": (
                fp32.model_copy(update={"file": big, "benchmarks": (bench(1.0),)}),
                int8.model_copy(update={"file": small, "benchmarks": (bench(2.0),)}),
            ),
        }
    )
    platform.models.register("digits", made, None)
    return made


def fleet(platform, **classes):
    found = {name: platform.enroll(n, name) for name, n in classes.items()}
    for device in (device for devices in found.values() for device in devices):
        platform.birth(device)
    return found


def set_class(platform, admin, name, budget):
    spec = DeviceClassSpec(budget=budget).model_dump(mode="json")
    assert admin.put(f"/v1/device-classes/{name}", json=spec).status_code == 200


def preview(view):
    return {(s.device_class, s.variant): s for s in view.preview}


def measure(platform, device, made, p50s):
    for name, p50 in p50s.items():
        report = BenchReport(
            model="digits",
            version=1,
            variant=name,
            sha256=made.variant(name).file.sha256,
            benchmarks=(bench(p50),),
            at=platform.clock(),
        )
        platform.receive(device, Up.BENCH, report)


def test_a_class_of_100_kb_gets_another_variant_than_a_server_class(platform, admin):
    register(platform)
    set_class(platform, admin, "cam", CAM)
    devices = fleet(platform, cam=2, server=2)
    rollout = start(platform, waves=[{"percent": 100}])
    platform.tick()
    got = {e.device: e.variant for e in executions(platform, rollout)}
    assert got == {
        **dict.fromkeys(devices["cam"], "int8"),
        **dict.fromkeys(devices["server"], "fp32"),
    }
    # What was signed for the devices says the same.
    for device, variant in got.items():
        document = assignment(desired(platform, device))
        assert (document.variant, document.device) == (variant, device)


def test_the_budget_that_the_search_was_held_to_binds_where_the_platform_has_none(platform):
    register(platform, budgets={"cam": CAM})
    devices = fleet(platform, cam=1, server=1)
    rollout = start(platform, waves=[{"percent": 100}])
    platform.tick()
    got = {e.device: e.variant for e in executions(platform, rollout)}
    assert got == {devices["cam"][0]: "int8", devices["server"][0]: "fp32"}


def test_a_class_gets_what_its_own_devices_measured_as_the_fastest(platform):
    made = register(platform)
    devices = fleet(platform, pi=2, server=1)
    measure(platform, devices["pi"][0], made, {"fp32": 30.0, "int8": 8.0})
    rollout = start(platform, waves=[{"percent": 100}])
    platform.tick()
    got = {e.device: e.variant for e in executions(platform, rollout)}
    assert got == {**dict.fromkeys(devices["pi"], "int8"), devices["server"][0]: "fp32"}


def test_a_device_that_gets_none_is_told_every_reason(platform, admin):
    register(platform)
    set_class(platform, admin, "mcu", Budget(max_size_mb=0.05))
    (device,) = fleet(platform, mcu=1)["mcu"]
    rollout = start(platform, waves=[{"percent": 100}])
    platform.tick()
    (execution,) = executions(platform, rollout)
    assert execution.state is ExecState.NO_VARIANT
    assert execution.detail == (
        f"no variant fits: fp32: has {len(BIG) / 1e6:.4g} MB, class mcu allows 0.05; "
        f"int8: has {len(SMALL) / 1e6:.4g} MB, class mcu allows 0.05"
    )
    assert desired(platform, device) is None
    wave = admin.get(f"/v1/rollouts/{rollout}").json()["waves"][0]
    assert wave["executions"][0]["detail"] == execution.detail


def test_a_draft_says_how_many_get_which_variant_and_why_some_get_none(platform, admin):
    made = register(platform)
    set_class(platform, admin, "cam", CAM)
    set_class(platform, admin, "mcu", Budget(max_size_mb=0.05))
    devices = fleet(platform, cam=2, mcu=3, server=4)
    spec = RolloutSpec(model="digits", version=1)
    drafted = platform.rollouts.plan(spec)
    rows = preview(drafted)
    assert {key: row.devices for key, row in rows.items()} == {
        ("cam", "int8"): 2,
        ("mcu", None): 3,
        ("server", "fp32"): 4,
    }
    assert "MB, class mcu allows 0.05; int8: has" in rows["mcu", None].reason
    assert (rows["server", "fp32"].p50_ms, rows["server", "fp32"].estimated) == (1.0, True)
    # Looked at again, it says what would happen now.
    measure(platform, devices["server"][0], made, {"fp32": 9.0, "int8": 3.0})
    rows = preview(platform.rollouts.get(drafted.id))
    assert (rows["server", "int8"].p50_ms, rows["server", "int8"].estimated) == (3.0, False)
    begun = platform.rollouts.operate(drafted.id, RolloutEvent.START)
    assert begun.preview == ()


def test_a_budget_that_is_set_while_a_rollout_runs_binds_the_next_offers(platform, admin):
    register(platform)
    devices = fleet(platform, cam=1)
    gone = platform.enroll(1, "cam")
    rollout = start(platform, waves=[{"percent": 100}])
    platform.tick()
    set_class(platform, admin, "cam", CAM)
    platform.birth(gone[0])
    platform.tick()
    got = {e.device: e.variant for e in executions(platform, rollout)}
    assert got == {devices["cam"][0]: "fp32", gone[0]: "int8"}


def test_an_agent_that_reports_no_instruction_sets_gets_a_variant_that_needs_none(platform):
    made = platform.manifest("int8-vnni", "int8")
    first = made.variants[0]
    needs = first.requires.model_copy(update={"isa": ("vnni",)})
    variants = (first.model_copy(update={"requires": needs}), made.variants[1])
    platform.models.register("digits", made.model_copy(update={"variants": variants}), None)
    fleet(platform, old=1)
    rollout = start(platform)
    platform.tick()
    assert executions(platform, rollout)[0].variant == "int8"
