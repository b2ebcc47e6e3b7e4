"""Plans with parts that would have no effect are refused, with what would give them one."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from orchestrator.errors import Invalid
from schemas.effects import idle_parts
from schemas.rollout import RolloutSpec


def check_effective(
    spec: RolloutSpec, now: datetime, changed: Collection[str] | None = None
) -> None:
    """See that what somebody asks for changes something.

    Args:
        spec: the plan.
        now: the time.
        changed: only these parts are looked at; None: all.

    Raises:
        Invalid: a part has no effect.
    """
    for idle in idle_parts(spec, now):
        if changed is None or idle.place[0] in changed:
            msg = f"{'.'.join(idle.place)}: {idle.why}"
            raise Invalid(msg, hint=idle.hint)
