"""Rollouts: plan, act, follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.client.errors import InterruptedAnswerError
from orchestrator.client.events import Bell
from orchestrator.client.follow import Look, follow
from orchestrator.client.resources import Resource, last_of, segment
from orchestrator.client.transport import Params
from orchestrator.errors import Invalid
from schemas.rollout import ExecState, PauseReason, RolloutSpec, RolloutState, WaveState
from schemas.rollout_view import (
    ExecutionView,
    OperateRequest,
    Retried,
    RetryRequest,
    RolloutEdit,
    RolloutView,
)

ENDED_ROLLOUTS = frozenset({RolloutState.SUCCEEDED, RolloutState.ABORTED, RolloutState.ROLLED_BACK})


def is_settled(rollout: RolloutView) -> bool:
    """Whether a rollout goes no further by itself: it ended, or a verdict paused it."""
    by_verdict = rollout.pause_reason not in {None, PauseReason.OPERATOR}
    return rollout.state in ENDED_ROLLOUTS or (rollout.state == RolloutState.PAUSED and by_verdict)


def open_wave(rollout: RolloutView) -> int | None:
    """The index of the wave that is worked on: stragglers come last; None if all have passed."""
    left = [wave for wave in rollout.waves if wave.state is not WaveState.PASSED]
    return min(((wave.stragglers, wave.index) for wave in left), default=(False, None))[1]


class Rollouts(Resource):
    """Rollouts."""

    def create(self, spec: RolloutSpec) -> RolloutView:
        """Freeze a plan: the answer is a DRAFT that says which device is in which wave."""
        return self._transport.post("/v1/rollouts", RolloutView, spec)

    def list(self) -> Iterator[RolloutView]:
        """Every rollout, without its waves."""
        return self._pages("/v1/rollouts", RolloutView)

    def get(self, rollout: str) -> RolloutView:
        """One rollout with its waves, devices and evidence; ``cut``: not with every device."""
        return self._transport.get(f"/v1/rollouts/{segment(rollout)}", RolloutView)

    def devices(
        self, rollout: str, *, states: Sequence[ExecState] = (), wave: int | None = None
    ) -> Iterator[ExecutionView]:
        """Every device of a rollout, however many; in some states or of one wave only.

        Args:
            rollout: its id.
            states: only those in one of them; all when there are none.
            wave: only those of the wave with this index, from 0.
        """
        params: Params = {"state": [state.value for state in states], "wave": wave}
        return self._pages(f"/v1/rollouts/{segment(rollout)}/executions", ExecutionView, params)

    def retry(self, rollout: str, devices: Sequence[str] = ()) -> Retried:
        """Make another attempt on these devices, or on all where it came to nothing."""
        request = RetryRequest(devices=tuple(devices))
        return self._transport.post(f"/v1/rollouts/{segment(rollout)}/retry", Retried, request)

    def start(self, rollout: str, reason: str = "") -> RolloutView:
        """Let a draft run; one that needs an approval waits for it."""
        return self._act(rollout, "start", reason)

    def approve(self, rollout: str, reason: str = "") -> RolloutView:
        """Agree to a rollout that another person started."""
        return self._act(rollout, "approve", reason)

    def pause(self, rollout: str, reason: str = "") -> RolloutView:
        """Offer the version to no further device for now."""
        return self._act(rollout, "pause", reason)

    def resume(self, rollout: str, reason: str = "") -> RolloutView:
        """Go on."""
        return self._act(rollout, "resume", reason)

    def promote(
        self, rollout: str, *, wave: int | None = None, full: bool = False, reason: str = ""
    ) -> RolloutView:
        """Let a wave pass without soak and gates; with ``full`` all that are left.

        Args:
            rollout: its id.
            wave: the index, from 0, of the one that is meant; None: the one that is worked on, as
                it is looked up first. Who repeats a call names it, lest the next one pass too.
            full: every wave that is left.
            reason: why.

        Raises:
            InterruptedAnswerError: whether it was heard is not known; the hint names the wave.
        """
        looked_up = wave is None and not full
        if looked_up:
            wave = open_wave(self.get(rollout))
        try:
            return self._act(rollout, "promote", reason, full=full, wave=wave)
        except Invalid as error:
            if not looked_up or all(fault.field != "wave" for fault in error.fields):
                raise
            # A platform from before knows no names of waves, and takes the one that is worked on.
            return self._act(rollout, "promote", reason)
        except InterruptedAnswerError as error:
            if wave is None:
                raise
            error.hint = f"it may have been heard: promote wave {wave + 1} again, by its number"
            raise

    def activate(self, rollout: str, reason: str = "") -> RolloutView:
        """Have devices go on that wait with the version on their disk."""
        return self._act(rollout, "activate", reason)

    def finish(self, rollout: str, reason: str = "") -> RolloutView:
        """Let no more devices join a dynamic rollout."""
        return self._act(rollout, "finish", reason)

    def abort(self, rollout: str, reason: str = "") -> RolloutView:
        """End it here; devices keep what they serve."""
        return self._act(rollout, "abort", reason)

    def rollback(self, rollout: str, *, to: int | None = None, reason: str = "") -> RolloutView:
        """End it, and give its devices what they served before, or all of them one version.

        Args:
            rollout: its id.
            to: the version; None: each device's own.
            reason: why.
        """
        return self._act(rollout, "rollback", reason, to=to)

    def edit(self, rollout: str, change: RolloutEdit, revision: int) -> RolloutView:
        """Change what is named, of a rollout that is not over.

        Args:
            rollout: its id.
            change: what is None stays as it is.
            revision: ``RolloutView.revision`` of the view that the change rests on.

        Raises:
            PreconditionFailed: it was changed since.
        """
        path = f"/v1/rollouts/{segment(rollout)}"
        tag = {"If-Match": f'"{revision}"'}
        return self._transport.patch(path, RolloutView, change, tag)

    def _act(
        self,
        rollout: str,
        action: str,
        reason: str = "",
        *,
        to: int | None = None,
        full: bool = False,
        wave: int | None = None,
    ) -> RolloutView:
        path = f"/v1/rollouts/{segment(rollout)}/{action}"
        said = OperateRequest(reason=reason, to=to, full=full, wave=wave)
        return self._transport.post(path, RolloutView, None if said == OperateRequest() else said)

    def follow(self, rollout: str, timeout: float | None = None) -> Iterator[Look[RolloutView]]:
        """Look at the rollout now and whenever it changes, until it settles.

        Raises:
            WaitTimeoutError: it did not settle within ``timeout`` seconds.
        """
        return follow(
            lambda: self.get(rollout),
            is_settled,
            Bell(self._transport, rollout),
            timeout=timeout,
        )

    def wait(self, rollout: str, timeout: float | None = None) -> RolloutView:
        """The rollout once it goes no further by itself (``is_settled``)."""
        return last_of(self.follow(rollout, timeout))
