"""Whether a candidate that ran beside the active model may be tried in earnest.

Decided on the device alone, from what both answered; no clock is read here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_client.probation import Failed, Passed, Verdict, Waiting
from edge_client.shadow import Seen
from schemas.errors import DeviceCause
from schemas.rollout import Shadow


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What is known of a shadow.

    asked: seconds in which the active model was asked, since this start of the agent. elapsed:
    seconds in all, over all starts. seen: since this start.
    """

    asked: float = 0.0
    elapsed: float = 0.0
    seen: Seen = field(default_factory=Seen)


def compare(rules: Shadow, beside: Beside) -> Verdict:
    """Judge a shadow.

    Args:
        rules: of the assignment.
        beside: what was measured so far.

    Returns:
        Failed, if too many answers differ (a failed one differs); passed, if enough agree, or if
        too few could be compared in ``max_seconds``, which says nothing against it.
    """
    seen, late = beside.seen, beside.elapsed >= rules.max_seconds
    enough = seen.compared >= rules.min_compared
    if not late and not (enough and beside.asked >= rules.seconds):
        return Waiting.FIGURES
    if not enough:
        few = f"{seen.compared} of {rules.min_compared} samples in {rules.max_seconds:g} s"
        return Passed(f"{few} were compared with the active version: too few for a verdict")
    share, least = seen.agreed / seen.compared, rules.min_agreement
    if least is not None and share < least:
        return Failed(DeviceCause.SHADOW_DISAGREED, _figures(seen, share, least))
    return Passed(_figures(seen, share))


def _figures(seen: Seen, share: float, wanted: float | None = None) -> str:
    text = f"{share:.1%} of {seen.compared} answers were those of the active version"
    if wanted is not None:
        text += f", at least {wanted:.1%} must be"
    if seen.errors:
        text += f", {seen.errors} failed"
    if seen.median is not None and seen.before is not None:
        text += f"; {1000 * seen.median:.3g} ms each, the active one {1000 * seen.before:.3g} ms"
    return text
