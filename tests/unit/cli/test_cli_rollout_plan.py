"""Plans from the command line: every key as an option, files with lines, faults that are named."""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import Any, get_args

import pytest
import yaml
from argosy_fake_platform import State, rollout_view
from pydantic import BaseModel

from orchestrator.cli.plan import PLACES
from orchestrator.cli.plan_words import options
from orchestrator.cli.rollout_plan_text import pace_text, print_plan, target_text
from schemas.gates import STANDARD, Metric
from schemas.model import ModelView
from schemas.pace import Urgency, WindowCovers
from schemas.rollout import OnFailure, RolloutSpec, RolloutState, WaveState
from schemas.rollout_view import Estimate, VariantShare, WaveView

# Not options of their own: the argument, and lists that are read from repeated options.
_READ_ELSEWHERE = {("model",), ("version",), ("gates", "failures"), ("gates", "telemetry")}


@pytest.fixture
def digits(fake: State) -> State:
    fake.models = [ModelView(name="digits", versions=(1, 2, 3), aliases={"champion": 2})]
    return fake


def made(fake: State) -> RolloutSpec:
    (script,) = list(fake.rollouts.values())[-1:]
    spec = script[0].spec
    assert isinstance(spec, RolloutSpec)
    return spec


def _keys(model: type[BaseModel], place: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    for name, field in model.model_fields.items():
        options = get_args(field.annotation) if isinstance(field.annotation, UnionType) else ()
        inner = next((one for one in (field.annotation, *options) if _is_model(one)), None)
        found |= {(*place, name)} if inner is None else _keys(inner, (*place, name))
    return found


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def test_every_key_of_a_plan_has_an_option() -> None:
    set_by_another = {("pace", "growth", "factor"), ("pace", "growth", "after")}  # --grow
    keys = _keys(RolloutSpec) - _READ_ELSEWHERE - set_by_another
    assert keys == set(PLACES.values()) - {("pace", "growth")}


def test_options_for_the_whole_plan(argosy: Any, digits: State) -> None:
    answer = argosy(
        "rollout", "plan", "digits", "--where", "tag = lab", "--fleet", "shops",
        "--exclude", "class = old", "--dynamic", "--priority", "80", "--approval",
        "--waves", "1,[class in (a, b)],10%,100%", "--on-failure", "roll-back",
        "--rollback-to", "champion", "--per-minute", "10", "--grow", "2/10",
        "--max-per-minute", "100", "--concurrent", "5", "--jitter", "10m",
        "--window", "0 2 * * 1-5 2h Europe/Berlin", "--window", "30 12 1 * * 90m",
        "--window-covers", "all", "--force-at", "2027-01-01T00:00:00Z", "--max-deferral", "2h",
        "--fail", "rolled_back=5%/3", "--min-success", "90%", "--min-devices", "7",
        "--alpha", "0.05", "--baseline", "2h", "--probation-inferences", "5",
        "--probation-max", "1m",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "nothing runs yet: `argosy rollout start rol_" in answer.err
    assert "and `argosy rollout abort rol_" in answer.err
    spec = made(digits)
    assert (spec.version, spec.rollback_to, spec.on_failure) == (3, 2, OnFailure.ROLL_BACK)
    assert (spec.where, spec.fleet, spec.exclude) == ("tag = lab", "shops", "class = old")
    assert (spec.dynamic, spec.approval, spec.priority) == (True, True, 80)
    assert [(w.count, w.where, w.percent) for w in spec.waves] == [
        (1, None, None), (None, "class in (a, b)", None), (None, None, 10), (None, None, 100),
    ]  # fmt: skip
    growth = spec.pace.growth
    assert growth is not None
    assert (growth.factor, growth.after, growth.max_per_minute) == (2, 10, 100)
    assert (spec.pace.per_minute, spec.pace.concurrent, spec.pace.jitter_seconds) == (10, 5, 600)
    assert [(w.cron, w.minutes, w.timezone, w.covers) for w in spec.windows] == [
        ("0 2 * * 1-5", 120, "Europe/Berlin", WindowCovers.ALL),
        ("30 12 1 * *", 90, "UTC", WindowCovers.ALL),
    ]
    assert (spec.mode.urgency, spec.max_deferral_seconds) == (Urgency.TIME_FORCED, 7200)
    (failure,) = spec.gates.failures
    assert (failure.kind, failure.max_rate, failure.min_devices) == ("rolled_back", 0.05, 3)
    assert (spec.gates.min_success_rate, spec.gates.min_devices, spec.gates.alpha) == (0.9, 7, 0.05)
    assert (spec.probation.min_inferences, spec.probation.max_seconds) == (5, 60)


def test_gates_are_added_to_the_standard_ones_or_stand_alone(argosy: Any, digits: State) -> None:
    argosy("rollout", "plan", "digits", "--gate", "accuracy=2%", "--gate", "rss=1.5x?")
    gates = {one.metric: (one.max_worse, one.required) for one in made(digits).gates.telemetry}
    assert gates[Metric.ACCURACY] == (0.02, True)
    assert gates[Metric.RSS] == (1.5, False)
    assert len(gates) == len(STANDARD) + 1
    argosy("rollout", "plan", "digits", "--gate", "none", "--watch-gate", "latency-p95=1.2")
    (alone,) = made(digits).gates.telemetry
    assert (alone.metric, alone.max_worse, alone.required) == (Metric.LATENCY_P95, 1.2, False)
    argosy("rollout", "plan", "digits", "--gate", "none")
    assert made(digits).gates.telemetry == ()


PLAN = """\
model: digits@champion
where: tag = lab
waves: "[class = cam],50%,100%"
pace:
  per_minute: 10
windows: ["0 2 * * * 2h"]
gates:
  soak_seconds: 60
  telemetry:
    - {metric: accuracy, max_worse: 0.05}
"""


def test_a_file_says_it_too_and_options_come_first(
    argosy: Any, digits: State, tmp_path: Path
) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(PLAN)
    given = ("--per-minute", "20", "--gate", "silence=0.1", "--window-covers", "all")
    answer = argosy("rollout", "plan", "-f", file, *given)
    assert answer.code == 0, answer.err
    spec = made(digits)
    assert (spec.version, spec.where, spec.pace.per_minute) == (2, "tag = lab", 20)
    assert [wave.where or wave.percent for wave in spec.waves] == ["class = cam", 50, 100]
    assert [one.metric for one in spec.gates.telemetry] == [Metric.ACCURACY, Metric.SILENCE]
    assert [(one.minutes, one.covers) for one in spec.windows] == [(120, WindowCovers.ALL)]
    argosy("rollout", "start", "digits@1", "-f", file)
    assert made(digits).version == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: digits\nwaves: 1,x\n", ":2: waves: 'x' is neither a count"),
        ("model: digits\npace: {per_minuet: 3}\n", ":2: there is no key 'pace.per_minuet'"),
        ("model: digits\npriority:\n  101\n", ":2: priority: must be less than or equal to 100"),
        ("model: digits\ngates:\n  alpha: no number\n", ":3: gates.alpha: must be a number"),
        ("model: digits\nwhere: tag =\n", ":2: where:"),
        ("model: digits\nwindows:\n  - 0 2 * * 2h\n", ":3: '0 2 * * 2h' is no maintenance window"),
        ("waves: '1'\n", "the key 'model' is missing"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_by_its_line(
    argosy: Any, digits: State, tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    answer = argosy("rollout", "plan", "-f", file)
    assert (answer.code, answer.out) == (2, "")
    assert words in answer.err
    assert not digits.rollouts


AS_OPTIONS = """\
model: digits
class: cam
tag: lab
waves: "[tag = lab],60%,100%"
per-minute: 60
grow: 2/10
max_per_minute: 600
jitter: 10m
window: 0 2 * * 1-5 2h Europe/Berlin
window-covers: all
mode: soft
max-deferral: 2h
gate: [accuracy=0.05, "latency_p95=1.5x?"]
fail: rolled_back=5%/3
max-failure-rate: 20%
soak: 10m
shadow: 30s
shadow-cpu: 50%
on-failure: roll-back
rollback-to: champion
attempts: 5
"""


def test_a_file_may_name_its_keys_as_the_options_are_named(
    argosy: Any, digits: State, tmp_path: Path
) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(AS_OPTIONS)
    assert argosy("rollout", "plan", "-f", file).err.count("error") == 0
    by_file = made(digits)
    argv = []
    for line in AS_OPTIONS.splitlines()[1:]:
        key, _, value = line.partition(": ")
        key = key.replace("_", "-")
        for one in value.strip("[]").split(", ") if key == "gate" else [value.strip('"')]:
            argv += [f"--{key}", one.strip('"')]
    assert argosy("rollout", "plan", "digits", *argv).code == 0
    assert made(digits) == by_file
    assert (by_file.device_class, by_file.gates.soak_seconds) == ("cam", 600)
    assert (by_file.rollback_to, by_file.on_failure) == (2, OnFailure.ROLL_BACK)
    argosy("rollout", "plan", "-f", file, "--class", "pi", "--soak", "1m")
    assert (made(digits).device_class, made(digits).gates.soak_seconds) == ("pi", 60)


def test_the_spec_of_a_rollout_is_a_plan(argosy: Any, digits: State, tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(AS_OPTIONS)
    argosy("rollout", "plan", "-f", file)
    whole = made(digits)
    for spec in (whole, RolloutSpec(model="digits", version=1)):
        file.write_text(yaml.safe_dump(spec.model_dump(mode="json")))
        assert argosy("rollout", "plan", "-f", file).code == 0
        assert made(digits) == spec


def test_every_option_of_a_plan_can_stand_in_a_file() -> None:
    by_name = {one.name for one in options().values()}
    assert set(PLACES) | {"gate", "watch_gate", "fail", "window_covers"} == by_name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("class: a\ndevice_class: b\n", ":3: device_class: 'class' says the same"),
        ("class: My Cam\n", ":2: class: this form is not allowed (it is 'My Cam')"),
        ("soak: soon\n", ":2: soak: 'soon' is not a duration such as 90, 30s"),
        ("attempts: 99\n", ":2: attempts: must be less than or equal to 20 (it is 99)"),
        ("mode: lazy\n", ":2: mode: 'lazy' is not one of 'forced', 'soft'"),
        ("grow: fast\n", ":2: grow: 'fast' is not of the form FACTOR/AFTER"),
        ("gate:\n  accuracy: 0.05\n", ":2: gate: must be one value, as behind --gate"),
        ("rollback-to: faces@1\n", ":2: rollback-to: 'faces@1' is of another model"),
        ("clas: cam\n", "did you mean 'class'?"),
        ("soak_seconds: 5\n", "did you mean 'gates.soak_seconds'?"),
        ("gates: {soak: 5}\n", "did you mean 'soak_seconds'?"),
        ("gates: {soak_seconds: 5m}\n", "it is in seconds; the names of the options take units"),
        ("pace: {per_minuet: 5}\n", "did you mean 'per_minute'?"),
        ("per_minute: true\n", ":2: per_minute: must be one value"),
        ("pace: {per_minute: true}\n", ":2: pace.per_minute: must be a number"),
        ("priority: yes\n", ":2: priority: must be a number"),
        ("waves: [{count: true}]\n", ":2: waves.0.count: must be a number"),
        ("rollback_to: true\n", ":2: rollback_to: must be a number"),
    ],
)
def test_a_key_that_is_wrong_is_named_as_it_is_written(
    argosy: Any, digits: State, tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(f"model: digits\n{text}")
    answer = argosy("rollout", "plan", "-f", file)
    assert (answer.code, answer.out) == (2, "")
    assert words in answer.err
    assert not digits.rollouts


def test_a_file_about_another_model_is_refused(argosy: Any, digits: State, tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    for named in ("letters", "letters@champion"):
        file.write_text(f"waves: '1'\nmodel: {named}\nversion: 1\n")
        answer = argosy("rollout", "plan", "digits@3", "-f", file)
        assert (answer.code, digits.rollouts) == (2, {})
        assert f"{file}:2: model: it is {named}, and the command line names digits" in answer.err
    file.write_text("model: digits@champion\n")
    assert argosy("rollout", "plan", "digits@3", "-f", file).code == 0
    assert made(digits).version == 3


def test_every_fault_is_told_at_once(argosy: Any, digits: State, tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text("model: digits\npriority: -1\nmax_attempts: 99\n")
    answer = argosy("rollout", "plan", "-f", file, "--alpha", "7")
    assert answer.err.count("error: ") == 3
    assert "--alpha: must be less than or equal to 0.2 (it is 7.0)" in answer.err
    assert f"{file}:2: priority" in answer.err
    assert f"{file}:3: max_attempts" in answer.err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--waves", "[tag = a"], "--waves: '[tag = a' has a bracket that is not closed"),
        (["--waves", "[tag ~ a],100%"], "--waves:"),
        (["--where", "tag ="], "--where:"),
        (["--window", "0 2 * * *"], "--window: '0 2 * * *' is no maintenance window"),
        (["--window", "0 2 * * * 30s"], "--window: '30s' is no whole number of minutes"),
        (["--window", "0 2 * * * 2h Mars/Olympus"], "--window: there is no time zone"),
        (["--window", "61 2 * * * 2h"], "--window: '61 2 * * *' is no cron expression"),
        (["--window-covers", "all"], "--window-covers: there is no window"),
        (["--grow", "twice"], "--grow: 'twice' is not of the form FACTOR/AFTER"),
        (["--grow", "2/10"], "growth needs a rate to grow from"),
        (["--max-per-minute", "5"], "--max-per-minute: the rate does not grow"),
        (
            ["--per-minute", "10", "--grow", "2/10", "--max-per-minute", "5"],
            "--max-per-minute: 5 is less than the rate that it starts with, 10",
        ),
        (["--gate", "beauty=1"], "--gate: 'beauty=1' is not of the form METRIC=VALUE"),
        (["--gate", "accuracy=1.2x"], "--gate: 1.2x is no tolerance of accuracy"),
        (["--watch-gate", "rss=5%"], "--watch-gate: 5% is no tolerance of rss"),
        (["--fail", "sulks=1"], "--fail: 'sulks=1' is not of the form KIND=RATE"),
        (["--mode", "time-forced"], "--mode: force_at belongs to time_forced"),
        (["--mode", "soft", "--force-at", "2027-01-01T00:00:00Z"], "force_at belongs to"),
        (["--rollback-to", "faces@1"], "--rollback-to: 'faces@1' is of another model"),
        (["--fleet", "No Fleet"], "--fleet: this form is not allowed"),
    ],
)
def test_what_is_wrong_in_an_option_is_named(
    argosy: Any, digits: State, argv: list[str], words: str
) -> None:
    answer = argosy("rollout", "plan", "digits", *argv)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert words in answer.err
    assert not digits.rollouts


def test_a_draft_is_started_as_it_is(argosy: Any, digits: State) -> None:
    argosy("rollout", "plan", "digits", "-o", "name")
    (draft,) = digits.rollouts
    assert argosy("rollout", "start", draft, "--waves", "2").err.startswith(
        "error: --waves: the plan of a draft is frozen"
    )
    assert argosy("rollout", "start", draft).code == 0
    assert argosy("rollout", "plan").err.startswith("error: no model is named")


def test_a_plan_is_shown_with_what_it_costs(capsys: pytest.CaptureFixture[str]) -> None:
    spec = {
        "where": "tag = lab", "exclude": "class = old", "dynamic": True,
        "waves": ({"count": 1}, {"where": "class = cam"}, {"percent": 100}),
        "pace": {"per_minute": 10, "growth": {"factor": 2, "after": 10}, "concurrent": 3},
        "mode": {"urgency": "download_only"},
    }  # fmt: skip
    waves = tuple(
        WaveView(index=i, state=WaveState.PENDING, size=n) for i, n in enumerate((1, 4, 7))
    )
    shares = (
        VariantShare(device_class="cam", variant="int8", devices=10, offline=2, installed=1,
                     bytes=9_000_000, p50_ms=1.5),
        VariantShare(device_class="old", devices=2, reason="int8: needs avx2"),
    )  # fmt: skip
    cost = Estimate(
        devices=12, offline=2, incompatible=2, installed=1, bytes=9_000_000, notes=("by guess",)
    )
    view = rollout_view(RolloutState.DRAFT, waves=waves, preview=shares, estimate=cost)
    planned = view.spec.model_validate(view.spec.model_dump() | spec)
    print_plan(view.model_copy(update={"spec": planned}))
    shown = capsys.readouterr()
    for words in (
        "tag = lab, but not class = old, and who matches later",
        "10 a minute, times 2 after every 10, 3 at once, download only",
        "12: 2 not there, 2 get nothing, 1 have it",
        "at most 9.0 MB",
        "2     4        class = cam",
        "cam    10       2        1          int8     1.50 ms  9.0 MB",
        "int8: needs avx2",
    ):
        assert words in shown.out
    assert "note: by guess" in shown.err


def test_a_target_and_a_pace_in_words() -> None:
    plain = RolloutSpec(model="digits", version=1)
    assert (target_text(plain), pace_text(plain)) == ("all devices", None)
    more = {"device_class": "cam", "tags": ["a"], "fleet": "f", "exclude": "tag = b"}
    full = RolloutSpec.model_validate(plain.model_dump() | more | {"dynamic": True})
    assert target_text(full) == (
        "class cam and tag a and fleet f, but not tag = b, and who matches later"
    )
    soft = RolloutSpec.model_validate(plain.model_dump() | {"mode": {"urgency": "soft"}})
    assert pace_text(soft) == "soft"


def test_drafts_are_pointed_out_and_shown_as_plans(argosy: Any, fake: State) -> None:
    cost = Estimate(devices=5, offline=0, incompatible=0, installed=0, bytes=0, seconds=61.0)
    ids = {"id": "rol_0000000000000000"}
    fake.rollouts[ids["id"]] = [rollout_view(RolloutState.DRAFT, estimate=cost, **ids)]
    assert "drafts that nobody started: 1" in argosy("rollout", "ls").err
    assert "takes       about 1m 01s" in argosy("rollout", "get", ids["id"]).out


@pytest.mark.parametrize("gate", ["accuracy=1.5", "rss=0.5x", "latency_p95=1"])
def test_a_tolerance_that_a_metric_cannot_have_is_refused(
    argosy: Any, digits: State, gate: str
) -> None:
    answer = argosy("rollout", "plan", "digits", "--gate", gate)
    assert (answer.code, "error: --gate: " in answer.err) == (2, True)
