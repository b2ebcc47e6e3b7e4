"""What the verdict on a wave rests on, a sentence for each figure: of those that matter, or all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from orchestrator.cli import console
from schemas.evidence import sentence
from schemas.gates import Evidence
from schemas.rollout import WaveState
from schemas.rollout_view import RolloutView, WaveView

_MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "yellow")}


def evidence_text(evidence: Evidence) -> Text:
    """As in ``✗ accuracy of cam got 6.2 points worse on 12 devices than on 20 …``."""
    mark, style = _MARKS[evidence.ok]
    if evidence.ok is None and not evidence.binding:
        mark, style = "·", "dim"
    return Text.assemble((f"{mark} ", style), console.clean(sentence(evidence)))


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
    """Print all evidence of a rollout's waves: what failed first, then what is open."""
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
        for one in sorted(wave.evidence, key=_urgency):
            out.print(evidence_text(one), soft_wrap=True)
        if any(one.ok is None and not one.binding for one in wave.evidence):
            out.print(Text("· is not required: only harm that is shown stops it", "dim"))


def _urgency(evidence: Evidence) -> int:
    if evidence.ok is None:
        return 1 if evidence.binding else 3
    return 2 if evidence.ok else 0


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
