"""What the verdict on a wave rests on: a line for each gate that matters, or a table of all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from orchestrator.cli import console
from orchestrator.cli.output import Cell, print_table
from schemas.evidence import said
from schemas.gates import Evidence
from schemas.rollout import WaveState
from schemas.rollout_view import RolloutView, WaveView

_MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "yellow")}
_HEADINGS = (
    "GATE",
    "CLASS",
    "VALUE",
    "INTERVAL",
    "CONTROL",
    "LIMIT",
    "DEVICES",
    "LOOK",
    "VERDICT",
    "NOTE",
)


def evidence_text(evidence: Evidence) -> Text:
    """As in ``✗ accuracy 91 % ≥ 95 % (n=220)``, of a comparison with its interval and class."""
    mark, style = _MARKS[evidence.ok]
    if evidence.ok is None and not evidence.binding:
        mark, style = "·", "dim"
    parts = said(evidence)
    if evidence.value is None and evidence.look is not None:
        name, what = evidence.metric.replace("_", " "), evidence.device_class or "all"
        text = Text.assemble((f"{mark} ", style), (f"{name} ", "dim"), f"of {what} is not known")
        return text.append(f": {console.clean(evidence.note)}" if evidence.note else "", "dim")
    text = Text.assemble((f"{mark} ", style), (f"{parts.metric} ", "dim"), parts.value)
    if parts.interval:
        text.append(f" ({parts.interval})", "dim")
    if evidence.device_class:
        text.append(f" of {evidence.device_class}", "dim")
    text.append(f" {parts.limit} (n={parts.sizes})", "dim")
    if evidence.ok is not True and evidence.note and evidence.look is None:
        text.append(f"  {console.clean(evidence.note)}", "dim")
    return text


def lines(evidence: Sequence[Evidence]) -> Iterable[Text]:
    """A line for each gate that failed or is open, and one that counts the others."""
    matters = [one for one in evidence if one.binding and one.ok is not True]
    yield from (evidence_text(one) for one in sorted(matters, key=lambda e: e.ok is None))
    passed = sum(one.ok is True for one in evidence)
    rest = len(evidence) - passed - len(matters)
    if passed or rest:
        gates = "gate" if passed == 1 else "gates"
        text = Text.assemble(("✓ ", "green"), (f"{passed} {gates} passed", "dim"))
        yield text.append(f", {rest} without a sign of harm" if rest else "", "dim")


def print_why(view: RolloutView) -> None:
    """Print all evidence of a rollout's waves, as tables."""
    out = console.out()
    name = f"{view.spec.model}@{view.spec.version}"
    out.print(
        Text.assemble((name, "bold"), f"  {view.id}  ").append_text(console.state(view.state))
    )
    if view.reason:
        out.print(Text(console.clean(view.reason), "yellow"), soft_wrap=True)
    for wave in view.waves:
        out.print()
        out.print(_heading(wave, len(view.waves)), soft_wrap=True)
        if wave.evidence:
            print_table(_HEADINGS, [_row(one) for one in wave.evidence])


def _heading(wave: WaveView, of: int) -> Text:
    devices = "1 device" if wave.size == 1 else f"{wave.size} devices"
    text = Text(f"wave {wave.index + 1} of {of}, {devices}  ").append_text(
        console.state(wave.state)
    )
    if wave.promoted_by and wave.state is WaveState.PASSED:
        text.append(f"  let pass by {console.clean(wave.promoted_by)}", "yellow")
    if wave.looks:
        text.append(f"  after {wave.looks} look{'s' if wave.looks > 1 else ''}", "dim")
    return text if wave.evidence else text.append("  nothing was judged yet", "dim")


def _row(evidence: Evidence) -> list[Cell]:
    parts = said(evidence)
    return [
        parts.metric,
        evidence.device_class or "",
        parts.value,
        parts.interval,
        parts.control,
        parts.limit,
        parts.sizes,
        "" if evidence.look is None else str(evidence.look),
        _verdict(evidence),
        Text(console.clean(evidence.note), "dim"),
    ]


def _verdict(evidence: Evidence) -> Text:
    if evidence.ok is None:
        return Text("open", "yellow") if evidence.binding else Text("no harm shown", "dim")
    return Text("passed", "green") if evidence.ok else Text("failed", "red")
