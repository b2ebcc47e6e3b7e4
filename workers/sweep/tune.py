"""The ends of Ray Tune that a sweep holds: who hears of trials, who stops them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray.tune import Callback, Stopper
from ray.tune.schedulers import ASHAScheduler

from schemas.jobfile import JobSpec
from workers.sweep.plan import milestones, sweep_of
from workers.sweep.record import Record
from workers.sweep.reports import BEST, CONFIG, ENDED, GROUP

if TYPE_CHECKING:
    from workers.sweep.keeper import Keeper


class Watch(Callback):
    """Passes what Tune hears of its trials to the keeper of the record.

    Args:
        keeper: of the record.
        down: called with the number of a trial whose workers are gone.
        free: called with the id of a placement group that a trial's death may have left.
    """

    def __init__(
        self, keeper: Keeper, down: Callable[[int], None], free: Callable[[str], None]
    ) -> None:
        self._keeper = keeper
        self._down = down
        self._free = free
        self._groups: dict[int, str] = {}

    def __getstate__(self) -> dict[str, object]:
        """Nothing: Tune saves its callbacks for a resumption of its own, which is not used."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process was started, or started again."""
        del iteration, trials, info
        self._let_go(_number(trial))
        self._keeper.started(_number(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch of a trial, or its end."""
        del iteration, trials, info
        if GROUP in result:
            self._groups[_number(trial)] = result[GROUP]
        self._keeper.reported(_number(trial), result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial returned, or was stopped."""
        del iteration, trials, info
        self._keeper.left(_number(trial))
        self._down(_number(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process failed for the last time."""
        del iteration, trials, info
        said = str(trial.get_error() or "").strip().splitlines()
        last = said[-1] if said else "its process ended"
        self._keeper.broke(_number(trial), re.sub(r"^workers\.errors\.\w+: ", "", last))
        self._let_go(_number(trial))
        self._down(_number(trial))

    def _let_go(self, number: int) -> None:
        """Of a trial whose process died: a placement group lives as long as the job does."""
        if (group := self._groups.pop(number, None)) is not None:
            self._free(group)


class TargetReached(Stopper):
    """Ends the search when a trial ended with the target reached.

    Not as soon as an epoch reaches it: that trial is to end by itself, with its checkpoint.
    """

    def __init__(self, target: float | None) -> None:
        self._target = target
        self._reached = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Look at a report; never a reason to stop the trial that made it."""
        del trial_id
        if self._target is not None and result.get(ENDED) == "done":
            self._reached = self._reached or result[BEST] >= self._target
        return False

    def stop_all(self) -> bool:
        """Whether the other trials need not go on."""
        return self._reached


@dataclass(frozen=True, slots=True)
class _Past:
    """A trial of an earlier attempt, as far as a scheduler looks at one."""

    trial_id: str


def scheduler_of(spec: JobSpec, record: Record) -> Any:
    """What ends trials early: ASHA with what ended trials measured at its rungs, or nothing."""
    sweep = sweep_of(spec)
    if sweep.method != "asha":
        return None
    # As Any: it is handed trials of an earlier attempt, of which it needs no more than an id.
    scheduler: Any = ASHAScheduler(
        time_attr="epoch",
        metric=spec.stop.metric,
        mode="max",
        # Out of reach: the loop itself ends after the last epoch, with its checkpoint.
        max_t=spec.stop.max_epochs + 1,
        grace_period=sweep.grace_epochs,
        reduction_factor=sweep.reduction,
    )
    rungs = milestones(spec)
    for entry in record.entries:
        if not entry.ended:
            continue  # it tells its own when it runs
        past = _Past(f"past-{entry.trial.number}")
        scheduler.on_trial_add(None, past)
        for epoch in sorted(set(entry.rungs) & set(rungs)):
            known = {"epoch": epoch, spec.stop.metric: entry.rungs[epoch]}
            scheduler.on_trial_result(None, past, known)
    return scheduler


def _number(trial: Any) -> int:
    return int(trial.config[CONFIG])
