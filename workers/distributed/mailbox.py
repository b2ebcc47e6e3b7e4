"""From the processes of a job to its driver: a small Ray actor that keeps what they send.

Workers never wait for it: a call is sent and forgotten, and only so many are under way at
once. What cannot be sent then is dropped and counted, unless it must not be lost. This
module imports nothing heavy: the actor's process starts while Ray Train's do.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

EPOCH, LIVE, LOG, HANG, BATCH, USAGE, GROUP = (
    "epoch",
    "live",
    "log",
    "hang",
    "batch",
    "usage",
    "group",
)
LOSSY = frozenset({LIVE, LOG, BATCH})
"""Kinds of which some may be lost; the rest never are, as long as the actor lives."""

DROPPED = "dropped"
"""A kind of the mailbox's own: ``{"n": …}`` log lines were dropped."""

MAX_KEPT = 20_000
"""Lossy messages that wait for the driver; the oldest go first."""

MAX_UNDER_WAY = 64
"""Calls of one process that are not answered yet."""

MAX_TAKEN = 2000
RESTARTS = 20

Message = tuple[str, dict[str, Any]]


class Pile:
    """What waits to be taken, in order, each with a number that only grows."""

    def __init__(self) -> None:
        self._next = 1
        self._waiting: deque[tuple[int, str, dict[str, Any]]] = deque()
        self._lossy = 0
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, messages: Sequence[Message]) -> None:
        """Add messages; above ``MAX_KEPT`` lossy ones, the oldest of them go."""
        for kind, payload in messages:
            if kind == DROPPED:
                self._dropped += int(payload["n"])
                continue
            self._waiting.append((self._next, kind, payload))
            self._next += 1
            self._lossy += kind in LOSSY
        if self._lossy > MAX_KEPT:
            self._thin(self._lossy - MAX_KEPT)

    def take(self, after: int) -> list[tuple[int, str, dict[str, Any]]]:
        """What has a number above ``after``; what has not was received and is forgotten."""
        while self._waiting and self._waiting[0][0] <= after:
            _, kind, _ = self._waiting.popleft()
            self._lossy -= kind in LOSSY
        if self._dropped:
            self._waiting.append((self._next, DROPPED, {"n": self._dropped}))
            self._next, self._dropped = self._next + 1, 0
        return [one for one, _ in zip(self._waiting, range(MAX_TAKEN), strict=False)]

    def _thin(self, n: int) -> None:
        kept: deque[tuple[int, str, dict[str, Any]]] = deque()
        for one in self._waiting:
            if n > 0 and one[1] in LOSSY:
                n -= 1
                self._lossy -= 1
                self._dropped += one[1] == LOG
            else:
                kept.append(one)
        self._waiting = kept


class Box:
    """The actor. Its calls run on one event loop: those of one process stay in order."""

    def __init__(self) -> None:
        self._pile = Pile()
        self._hangs: list[dict[str, Any]] = []
        # A restarted actor counts from 1 again: what was received before means nothing to it.
        self._life = uuid.uuid4().hex
        self._came = asyncio.Event()

    async def put(self, messages: list[Message]) -> None:
        """Keep messages."""
        self._hangs += [payload for kind, payload in messages if kind == HANG]
        self._pile.put(messages)
        self._came.set()

    async def take(
        self, life: str, after: int, seconds: float
    ) -> tuple[str, list[tuple[int, str, dict[str, Any]]]]:
        """What came after what this life gave out as ``after``; waits for it so long."""
        known = after if life == self._life else 0
        self._came.clear()
        if not (found := self._pile.take(known)):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._came.wait(), seconds)
            found = self._pile.take(known)
        return self._life, found

    async def hangs(self) -> list[dict[str, Any]]:
        """Every hang that was told."""
        return self._hangs


class Mailbox:
    """A process's way to the mailbox of its job.

    Args:
        name: of the actor.
        actor: its handle, where it is at hand.
    """

    def __init__(self, name: str, actor: Any = None) -> None:
        self.name = name
        self._actor = actor
        self._lock = threading.RLock()
        self._under_way: deque[tuple[Any, list[Message]]] = deque()
        self._kept: list[Message] = []
        self._lost = 0

    def send(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Send and go on. Never raises: a job trains on without its mailbox."""
        with self._lock:
            self._settle()
            full = len(self._under_way) >= MAX_UNDER_WAY
            if kind not in LOSSY:
                self._kept.append((kind, dict(payload)))
            elif full:
                self._lost += kind == LOG
            else:
                self._post([(kind, dict(payload))])
            if not full:
                self._post_kept()

    def flush(self, seconds: float) -> None:
        """Wait for what is under way, and for what must not be lost, for so long at most."""
        import ray  # noqa: PLC0415 - there already; this module must import alone

        with self._lock, contextlib.suppress(Exception):
            self._post_kept()
            refs = [ref for ref, _ in self._under_way]
            if refs:
                ray.wait(refs, num_returns=len(refs), timeout=seconds)

    def hangs(self, seconds: float) -> list[dict[str, Any]]:
        """Every hang that the job's processes told; empty if the mailbox does not answer."""
        import ray  # noqa: PLC0415 - see flush

        try:
            found: list[dict[str, Any]] = ray.get(self._handle().hangs.remote(), timeout=seconds)
        except Exception:  # noqa: BLE001 - the failure that is being explained matters more
            return []
        return found

    def _post_kept(self) -> None:
        if self._lost:
            self._kept.append((DROPPED, {"n": self._lost}))
            self._lost = 0
        if self._kept:
            messages, self._kept = self._kept, []
            self._post(messages)

    def _post(self, messages: list[Message]) -> None:
        try:
            self._under_way.append((self._handle().put.remote(messages), messages))
        except Exception:  # noqa: BLE001 - no mailbox: see send
            self._kept += _lasting(messages)

    def _settle(self) -> None:
        """Forget what was answered; keep what failed and must not be lost."""
        if not self._under_way:
            return
        import ray  # noqa: PLC0415 - see flush

        try:
            refs = [ref for ref, _ in self._under_way]
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
            done = set(ready)
        except Exception:  # noqa: BLE001 - no cluster: see send
            return
        still: deque[tuple[Any, list[Message]]] = deque()
        for ref, messages in self._under_way:
            if ref not in done:
                still.append((ref, messages))
                continue
            try:
                ray.get(ref)
            except Exception:  # noqa: BLE001 - the actor died before it answered
                self._kept += _lasting(messages)
        self._under_way = still

    def _handle(self) -> Any:
        if self._actor is None:
            import ray  # noqa: PLC0415 - see flush

            self._actor = ray.get_actor(self.name)
        return self._actor


def _lasting(messages: list[Message]) -> list[Message]:
    return [one for one in messages if one[0] not in LOSSY]


class Postbox:
    """The driver's end: starts the actor on this node and takes what comes. It owns it."""

    def __init__(self, name: str) -> None:
        import ray  # noqa: PLC0415 - see Mailbox.flush
        from ray.util.scheduling_strategies import (  # noqa: PLC0415 - likewise
            NodeAffinitySchedulingStrategy,
        )

        self.name = name
        cluster: Any = ray
        here = NodeAffinitySchedulingStrategy(
            node_id=cluster.get_runtime_context().get_node_id(), soft=False
        )
        self._actor = (
            cluster.remote(Box)
            .options(
                name=name,
                num_cpus=0,
                scheduling_strategy=here,
                max_restarts=RESTARTS,
                max_task_retries=RESTARTS,
            )
            .remote()
        )
        self._life, self._after = "", 0

    def take(self, seconds: float) -> list[Message]:
        """What came since the last call; waits for it so long at most.

        Raises:
            RayError: the mailbox does not answer.
        """
        import ray  # noqa: PLC0415 - see Mailbox.flush

        call = self._actor.take.remote(self._life, self._after, seconds)
        life, found = ray.get(call, timeout=seconds + 30)
        if found:
            self._life, self._after = life, found[-1][0]
        return [(kind, payload) for _, kind, payload in found]
