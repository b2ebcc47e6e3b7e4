"""The API's resources, one class each. Listings are iterators that page by themselves.

Jobs and agents stand in ``orchestrator.client.jobs``, the registry in
``orchestrator.client.models``, devices and join tokens in ``orchestrator.client.devices``,
telemetry in ``orchestrator.client.telemetry``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar
from urllib.parse import quote

from orchestrator.client.errors import AnswerError
from orchestrator.client.events import Bell
from orchestrator.client.follow import Look, follow
from orchestrator.client.transport import Params, Transport
from schemas.access import Whoami
from schemas.api import Health, Page
from schemas.rollout import (
    ExecState,
    ExecutionView,
    OperateRequest,
    PauseReason,
    Retried,
    RetryRequest,
    RolloutSpec,
    RolloutState,
    RolloutView,
)

T = TypeVar("T")

PAGE_LIMIT = 200
ENDED_ROLLOUTS = frozenset({RolloutState.SUCCEEDED, RolloutState.ABORTED, RolloutState.ROLLED_BACK})


def segment(text: str | int) -> str:
    """A value as one segment of a path."""
    return quote(str(text), safe="", errors="surrogateescape")


def is_settled(rollout: RolloutView) -> bool:
    """Whether a rollout goes no further by itself: it ended, or a verdict paused it."""
    by_verdict = rollout.pause_reason not in {None, PauseReason.OPERATOR}
    return rollout.state in ENDED_ROLLOUTS or (rollout.state == RolloutState.PAUSED and by_verdict)


class Resource:
    """What all resources share."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def _pages(
        self,
        path: str,
        item: type[T],
        params: Params | None = None,
        cursor: str | None = None,
    ) -> Iterator[T]:
        while True:
            query: Params = {**(params or {}), "limit": PAGE_LIMIT, "cursor": cursor}
            page: Page[T] = self._transport.get(path, Page[item], query)  # type: ignore[valid-type]
            yield from page.items
            if page.next is None or not page.items:
                return
            if page.next == cursor:
                detail = f"the listing {path} does not move past its cursor"
                raise AnswerError(detail)
            cursor = page.next


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

    def start(self, rollout: str) -> RolloutView:
        """Let a draft run."""
        return self._act(rollout, "start")

    def pause(self, rollout: str, reason: str = "") -> RolloutView:
        """Offer the version to no further device for now."""
        return self._act(rollout, "pause", reason)

    def resume(self, rollout: str) -> RolloutView:
        """Go on."""
        return self._act(rollout, "resume")

    def abort(self, rollout: str, reason: str = "") -> RolloutView:
        """End it here."""
        return self._act(rollout, "abort", reason)

    def _act(self, rollout: str, action: str, reason: str = "") -> RolloutView:
        path = f"/v1/rollouts/{segment(rollout)}/{action}"
        said = OperateRequest(reason=reason) if reason else None
        return self._transport.post(path, RolloutView, said)

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


class Platform(Resource):
    """The platform itself."""

    def whoami(self) -> Whoami:
        """Whose token this is."""
        return self._transport.get("/v1/whoami", Whoami)

    def health(self) -> Health:
        """Whether every part is up."""
        return self._transport.get("/v1/health", Health)


def last_of(looks: Iterator[Look[T]]) -> T:
    """What a follower saw in the end."""
    value = None
    for look in looks:
        value = look.value if look.value is not None else value
    if value is None:
        detail = "nothing was seen"
        raise AnswerError(detail)
    return value
