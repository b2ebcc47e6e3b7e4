"""A rollout's plan from a file, from command-line options, or from both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from orchestrator.cli import plan_values, plan_words
from orchestrator.cli.overrides import Override, apply, option_at
from orchestrator.cli.plan_faults import Stand, faults, misread, no_number
from orchestrator.cli.yamlfile import Document, Place
from orchestrator.errors import Invalid
from schemas.gates import STANDARD
from schemas.rollout import RolloutSpec, WaveSpec

PLACES: dict[str, tuple[str, ...]] = {
    "device_class": ("device_class",),
    "tags": ("tags",),
    "where": ("where",),
    "fleet": ("fleet",),
    "exclude": ("exclude",),
    "dynamic": ("dynamic",),
    "priority": ("priority",),
    "approval": ("approval",),
    "on_failure": ("on_failure",),
    "rollback_to": ("rollback_to",),
    "variant": ("variant",),
    "waves": ("waves",),
    "per_minute": ("pace", "per_minute"),
    "concurrent": ("pace", "concurrent"),
    "jitter": ("pace", "jitter_seconds"),
    "grow": ("pace", "growth"),
    "max_per_minute": ("pace", "growth", "max_per_minute"),
    "mode": ("mode", "urgency"),
    "force_at": ("mode", "force_at"),
    "max_deferral": ("max_deferral_seconds",),
    "window": ("windows",),
    "min_accuracy": ("gates", "min_accuracy"),
    "max_error_rate": ("gates", "max_error_rate"),
    "max_failure_rate": ("gates", "max_failure_rate"),
    "min_success": ("gates", "min_success_rate"),
    "min_inferences": ("gates", "min_inferences"),
    "min_devices": ("gates", "min_devices"),
    "alpha": ("gates", "alpha"),
    "baseline": ("gates", "baseline_seconds"),
    "soak": ("gates", "soak_seconds"),
    "evidence": ("gates", "evidence_seconds"),
    "shadow": ("shadow", "seconds"),
    "shadow_agreement": ("shadow", "min_agreement"),
    "shadow_compared": ("shadow", "min_compared"),
    "shadow_cpu": ("shadow", "cpu_share"),
    "shadow_max": ("shadow", "max_seconds"),
    "probation_inferences": ("probation", "min_inferences"),
    "probation_errors": ("probation", "max_error_rate"),
    "probation_boots": ("probation", "max_boots"),
    "probation_latency": ("probation", "max_latency_ratio"),
    "probation_memory": ("probation", "max_memory_mb"),
    "probation_max": ("probation", "max_seconds"),
    "offer": ("offer_seconds",),
    "step": ("step_seconds",),
    "straggler": ("straggler_seconds",),
    "attempts": ("max_attempts",),
    "retry_after": ("retry_seconds",),
}
"""Options, by their parameter, and what of a plan each of them sets."""

_OPTIONS = {
    "device_class": "--class",
    "tags": "--tag",
    "model": "MODEL",
    "version": "VERSION",
    "plan_file": "--file",
}
_READ: dict[str, Callable[[str], Any]] = {
    "waves": plan_values.waves,
    "grow": plan_values.growth,
    "mode": lambda text: text.replace("-", "_"),
    "on_failure": lambda text: text.replace("-", "_"),
}
_TIME_FORCED = "time_forced"

Options = Mapping[str, Any]


def parse_waves(text: str) -> tuple[WaveSpec, ...]:
    """Read ``1,10%,100%`` or ``[tag = lab],100%``: see ``plan_values.waves``.

    Raises:
        Invalid: it does not have this form.
    """
    return tuple(WaveSpec.model_validate(wave) for wave in plan_values.waves(text))


def rollout_spec(
    model: str, version: int, options: Options, file: Document | None = None
) -> RolloutSpec:
    """The plan that a file and the options of ``argosy rollout plan`` ask for; options come first.

    Args:
        model: its name.
        version: its version's number.
        options: by parameter; None, False and () where one was not given.
        file: keys are those of ``RolloutSpec``, or named as the options.

    Raises:
        Invalid: an option is wrong; the message names it.
        Located: a line or an option is wrong; all faults at once.
    """
    base, told = _read_file(file)
    overrides = [
        Override(("model",), model, option_name("model")),
        Override(("version",), version, option_name("version")),
        *_simple(options),
        *_lists(base, options),
    ]
    _check_parts(base, options)

    def where(place: Place) -> Stand:
        option = option_at(place, overrides) or option_at(place, told)
        if option is not None or file is None:
            return Stand(0, option or "the plan")
        return Stand(file.line(place), file.where(place))

    wanted = apply(base, overrides)
    try:
        spec = RolloutSpec.model_validate(wanted)
    except ValidationError as error:
        raise faults(error, where) from None
    if (place := misread(wanted, spec)) is not None:
        raise no_number(place, where)
    return spec


def edited_spec(spec: RolloutSpec, options: Options) -> RolloutSpec:
    """A plan with what options of ``argosy rollout edit`` change in it.

    Args:
        spec: as it is.
        options: by parameter, as in ``rollout_spec``; ``no_rate``, ``no_concurrent`` and
            ``no_windows`` take away what is there.

    Raises:
        Invalid: an option is wrong; the message names it.
        Located: options are wrong; all faults at once.
    """
    _check_against(options)
    base = spec.model_dump(mode="json")
    if options.get("no_rate"):
        base["pace"] |= {"per_minute": None, "growth": None}
    if options.get("no_concurrent"):
        base["pace"]["concurrent"] = None
    if options.get("no_windows"):
        base["windows"] = []
    overrides = [*_simple(options), *_lists(base, options)]
    _check_parts(base, options)
    try:
        return RolloutSpec.model_validate(apply(base, overrides))
    except ValidationError as error:
        raise faults(
            error, lambda place: Stand(0, option_at(place, overrides) or "the plan")
        ) from None


_AGAINST = {
    "no_rate": ("per_minute", "grow", "max_per_minute"),
    "no_concurrent": ("concurrent",),
    "no_windows": ("window", "window_covers"),
}
"""Options of an edit that take away what others set."""


def _check_against(options: Options) -> None:
    """See that nothing is taken away and set at once."""
    for name, others in _AGAINST.items():
        other = next((one for one in others if options.get(one) not in {None, ()}), None)
        if options.get(name) and other is not None:
            detail = f"{option_name(name)}: {option_name(other)} says the opposite"
            raise Invalid(detail, hint="say one of the two; what is set replaces what was there")


def _read_file(file: Document | None) -> tuple[dict[str, Any], list[Override]]:
    """What a file says, and which places of it are said by keys that are named as options."""
    if file is None:
        return {}, []
    base, words = plan_words.split(file)
    windows = base.get("windows")
    if isinstance(windows, list):
        base["windows"] = [
            _placed(file, ("windows", i), plan_values.window, one) if isinstance(one, str) else one
            for i, one in enumerate(windows)
        ]
    try:
        overrides = [*_simple(words.options), *_lists(base, words.options)]
        made = apply(base, overrides)
        _check_parts(base, words.options)
    except Invalid as error:
        raise words.placed(error) from None
    return made, [replace(one, option=words.told.get(one.option, one.option)) for one in overrides]


def _placed(file: Document, place: Place, read: Callable[[str], Any], text: str) -> Any:
    try:
        return read(text)
    except Invalid as error:
        detail = f"{file.where(place)}: {error.detail.partition(': ')[2]}"
        raise Invalid(detail, hint=error.hint) from None


def _simple(options: Options) -> Iterator[Override]:
    for name, place in PLACES.items():
        value = options.get(name)
        if value is None or value is False or value == () or name == "window":
            continue
        read = _READ.get(name)
        yield Override(place, read(value) if read else value, option_name(name))
    if options.get("force_at") is not None and options.get("mode") is None:
        yield Override(("mode", "urgency"), _TIME_FORCED, "--force-at")


def _lists(base: Mapping[str, Any], options: Options) -> Iterator[Override]:
    """Options that may be repeated, each of which is one of a list."""
    windows = [plan_values.window(text) for text in options.get("window") or ()]
    covers = options.get("window_covers")
    if windows or covers is not None:
        windows = windows or [one for one in base.get("windows") or () if isinstance(one, dict)]
        if not windows:
            detail = "--window-covers: there is no window"
            raise Invalid(detail, hint="say when too, as in --window '0 2 * * * 2h UTC'")
        if covers is not None:
            windows = [one | {"covers": covers} for one in windows]
        yield Override(("windows",), windows, "--window")
    yield from _gates(_inner(base, "gates"), options)


def _gates(base: Mapping[str, Any], options: Options) -> Iterator[Override]:
    failures = [plan_values.failure(text) for text in options.get("fail") or ()]
    if failures:
        kept = _but(base.get("failures"), "kind", failures)
        yield Override(("gates", "failures"), [*kept, *failures], "--fail")
    given, watched = options.get("gate") or (), options.get("watch_gate") or ()
    if not (given or watched):
        return
    standard = [one.model_dump(mode="json") for one in STANDARD]
    there = [] if plan_values.NONE in given else base.get("telemetry", standard)
    gates = [plan_values.gate(text) for text in given if text != plan_values.NONE]
    gates += [plan_values.gate(text, "--watch-gate", required=False) for text in watched]
    kept = _but(there, "metric", gates)
    yield Override(("gates", "telemetry"), [*kept, *gates], "--gate" if given else "--watch-gate")


def _but(there: Any, key: str, new: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What is there already, without what is said anew."""
    said = {one[key] for one in new}
    of = there if isinstance(there, list | tuple) else ()
    return [one for one in of if not (isinstance(one, dict) and one.get(key) in said)]


def _check_parts(base: Mapping[str, Any], options: Options) -> None:
    """See that options that only change something have something to change."""
    shadow = [name for name, place in PLACES.items() if place[0] == "shadow"]
    first = next((name for name in shadow if options.get(name) is not None), None)
    if first is not None and first != "shadow" and not base.get("shadow"):
        detail = f"{option_name(first)}: nothing is tried as a shadow"
        raise Invalid(detail, hint="say for how long too, as in --shadow 10m")
    grows = options.get("grow") is not None or _inner(base, "pace").get("growth")
    if options.get("max_per_minute") is not None and not grows:
        detail = "--max-per-minute: the rate does not grow"
        raise Invalid(detail, hint="say how too, as in --per-minute 10 --grow 2/10")
    rate, most = options.get("per_minute"), options.get("max_per_minute")
    if rate is not None and most is not None and most < rate:
        detail = f"--max-per-minute: {most:g} is less than the rate that it starts with, {rate:g}"
        raise Invalid(detail, hint="the most is what it grows to, as in --max-per-minute 100")


def _inner(base: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = base.get(key)
    return found if isinstance(found, dict) else {}


def option_name(name: str) -> str:
    """How the option of a parameter is written."""
    return _OPTIONS.get(name, f"--{name.replace('_', '-')}")
