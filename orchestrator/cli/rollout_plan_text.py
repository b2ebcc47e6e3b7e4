"""A rollout's plan, for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from orchestrator.cli import console
from orchestrator.cli.output import print_facts, print_table
from schemas.pace import Mode, Pace
from schemas.rollout import RolloutSpec, RolloutState, WaveSpec
from schemas.rollout_view import Estimate, RolloutView, VariantShare

_REASON = 100
"""Characters of why nothing fits; `-o json` has all of it."""


def print_plan(view: RolloutView) -> None:
    """Print a draft: target, gates, waves, what each class gets, and what it would cost."""
    from orchestrator.cli.rollout_gates import asked_text, gate_facts

    spec, cost = view.spec, view.estimate
    name = Text(f"{spec.model}@{spec.version}", "bold")
    print_facts(
        [
            ("rollout", Text.assemble(view.id, "  ").append_text(console.state(view.state))),
            ("version", name),
            ("target", target_text(spec)),
            ("pace", pace_text(spec)),
            *gate_facts(spec),
            ("devices", None if cost is None else _devices(cost)),
            ("to be sent", None if cost is None else f"at most {console.size(cost.bytes)}"),
            ("takes", None if cost is None else _takes(cost)),
            ("asked by", asked_text(view) if _waits_for(view) else None),
            ("waits for", _waits_for(view)),
        ]
    )
    _waves(view)
    if view.preview:
        console.out().print()
        rows = [_share(share) for share in view.preview]
        heads = ("CLASS", "DEVICES", "OFFLINE", "INSTALLED", "VARIANT", "P50", "BYTES", "WHY NOT")
        print_table(heads, rows)
    for note in cost.notes if cost is not None else ():
        console.say(f"note: {note}", style="dim")


def _waits_for(view: RolloutView) -> str | None:
    if view.state is not RolloutState.AWAITING_APPROVAL:
        return None
    who = (view.asked and view.asked.name) or view.requested_by
    by = f" other than {console.clean(who)}" if who else ""
    return f"a releaser or admin{by}: `argosy rollout approve {view.id}`"


def target_text(spec: RolloutSpec) -> str:
    """As in ``class cam, tag lab, tag = hall, but not board = old, and who joins``."""
    parts = [f"class {spec.device_class}"] if spec.device_class else []
    parts += [f"tag {tag}" for tag in spec.tags]
    parts += [f"fleet {spec.fleet}"] if spec.fleet else []
    parts += [spec.where] if spec.where else []
    text = " and ".join(parts) or "all devices"
    if spec.exclude:
        text += f", but not {spec.exclude}"
    return text + (", and who matches later" if spec.dynamic else "")


def pace_text(spec: RolloutSpec) -> str | None:
    """What holds it back, as in ``10 a minute, twice as fast …``; None where nothing does."""
    parts = list(_pace(spec.pace))
    for window in spec.windows:
        minutes = console.duration(60 * window.minutes)
        parts.append(f"{window.covers} by {window.cron} for {minutes} {window.timezone}")
    if spec.mode != Mode():
        until = f" at {spec.mode.force_at.isoformat()}" if spec.mode.force_at else ""
        parts.append(spec.mode.urgency.replace("_", " ") + until)
    return ", ".join(parts) or None


def _pace(pace: Pace) -> Iterator[str]:
    if pace.per_minute is not None:
        yield f"{pace.per_minute:g} a minute"
    if pace.growth is not None:
        most = pace.growth.max_per_minute
        limit = f" up to {most:g}" if most is not None else ""
        yield f"times {pace.growth.factor:g} after every {pace.growth.after}{limit}"
    if pace.concurrent is not None:
        yield f"{pace.concurrent} at once"
    if pace.jitter_seconds:
        yield f"jitter {console.duration(pace.jitter_seconds)}"


def _devices(cost: Estimate) -> str:
    apart = (
        (cost.offline, "not there"),
        (cost.incompatible, "get nothing"),
        (cost.installed, "have it"),
    )
    told = [f"{n} {what}" for n, what in apart if n]
    return f"{cost.devices}" + (f": {', '.join(told)}" if told else "")


def _takes(cost: Estimate) -> str:
    if cost.seconds is None:
        return "nobody can say how long"
    return f"about {console.duration(cost.seconds)}, if all are there and nothing fails"


def _waves(view: RolloutView) -> None:
    """Waves with what made them; one that would be empty is left out, so they need not pair up."""
    console.out().print()
    whole = len(view.waves) == len(view.spec.waves)
    rows = [
        (
            str(wave.index + 1),
            str(wave.size),
            _by(view.spec.waves[wave.index], first=wave.index == 0) if whole else "",
        )
        for wave in view.waves
    ]
    print_table(("WAVE", "DEVICES", "BY"), rows)


def _by(wave: WaveSpec, *, first: bool) -> str:
    if wave.count is not None:
        return f"a count of {wave.count}" if first else f"{wave.count} more"
    return wave.where if wave.where is not None else f"{wave.percent:g}% of the target"


def _share(share: VariantShare) -> tuple[str | Text, ...]:
    def count(n: int) -> str:
        return str(n) if n else console.NONE

    p50 = console.ms(share.p50_ms) + (" est." if share.estimated and share.p50_ms else "")
    return (
        share.device_class,
        str(share.devices),
        count(share.offline),
        count(share.installed),
        Text("nothing", "red") if share.variant is None else share.variant,
        p50,
        console.size(share.bytes),
        Text(console.clean(share.reason or "")[:_REASON], "dim"),
    )
