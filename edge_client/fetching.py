"""The work of the state DOWNLOADING: the files of an offer, and word of how far they are."""

from __future__ import annotations

from collections.abc import Callable

from edge_client.device import Device
from edge_client.errors import EdgeError
from edge_client.events import Event, Fetched, Progressed
from edge_client.fetch import Fetcher
from edge_client.files import read_limited
from edge_client.https import Server
from edge_client.manifests import files_of, kept_manifest
from edge_client.network import Network
from edge_client.room import make_room
from edge_client.states import Downloading, Key
from edge_client.transfer import Bucket
from schemas.enroll import MAX_CHAIN_BYTES
from schemas.transfer import Reply

IDLE_SECONDS = 1.0
PROGRESS_SECONDS = 0.25
"""The least time between two words of progress; a chunk may come every millisecond."""

_BATCHES = 1 << 20
"""Numbers of requests that the fetching for one attempt may use up."""


class Fetching:
    """One attempt's fetching at a time; every call is given the state."""

    def __init__(
        self,
        device: Device,
        *,
        apply: Callable[[Event], None],
        doing: Callable[[Key, Callable[[], None]], None],
    ) -> None:
        """Put together.

        Args:
            device: its parts.
            apply: takes events, at once.
            doing: does work of an execution; what it raises ends that execution.
        """
        self._device, self._apply, self._doing = device, apply, doing
        self._fetcher: Fetcher | None = None
        self._told_at = 0.0
        self._first_batch = int(device.clock.date().timestamp()) % 2**31
        bandwidth = device.settings.bandwidth
        self._network = Network(
            need=device.send,
            ask=device.inquire,
            listen=device.listen,
            inlet=device.inlet,
            clock=device.clock.steady,
            nudge=device.nudge,
            spawn=device.spawn,
            bandwidth=bandwidth,
            bucket=None if bandwidth is None else Bucket(rate=float(bandwidth)),
        )

    def pump(self, state: Downloading, now: float) -> float:
        """Go on. Returns when to call again, in steady seconds."""
        key = state.offer.key
        if self._fetcher is None:
            self._doing(key, lambda: self._start(state))
        fetcher = self._fetcher
        if fetcher is None:
            return now + IDLE_SECONDS
        self._doing(key, lambda: fetcher.pump(now))
        self._tell(key, now)
        return fetcher.due(now)

    def reply(self, state: Downloading, reply: Reply) -> None:
        """Take an answer to a request."""
        fetcher, now = self._fetcher, self._device.clock.steady()
        if fetcher is not None:
            self._doing(state.offer.key, lambda: fetcher.reply(reply, now))
            self._tell(state.offer.key, now)

    def connected(self) -> None:
        """What is missing may be asked for at once."""
        if self._fetcher is not None:
            self._fetcher.connected()

    def disconnected(self) -> None:
        """Nothing that was asked for comes any more."""
        if self._fetcher is not None:
            self._fetcher.disconnected()

    def leave(self) -> None:
        """Let go; what was fetched stays on the disk."""
        fetcher, self._fetcher = self._fetcher, None
        if fetcher is not None:
            try:
                fetcher.close()
            except (OSError, EdgeError) as error:
                self._device.problems.note(f"what was fetched could not be saved: {error}")

    def _start(self, state: Downloading) -> None:
        device = self._device
        files = files_of(kept_manifest(device, state.offer))
        make_room(device, state, files)
        self._first_batch = (self._first_batch + _BATCHES) % 2**31
        self._told_at = 0.0
        serving = device.runtime.slot(state.slot.model)
        self._fetcher = Fetcher(
            self._network,
            device.store,
            files,
            owner="{}.{}".format(*state.offer.key),
            first_batch=self._first_batch,
            active=None if serving is None else serving.sha256,
            server=self._server() if device.settings.https else None,
        )

    def _server(self) -> Server:
        identity = self._device.identity
        return Server(identity.record.server, read_limited(identity.ca, MAX_CHAIN_BYTES))

    def _tell(self, key: Key, now: float) -> None:
        """Say how far it is; a transfer that has just failed was let go of already."""
        fetcher = self._fetcher
        if fetcher is None:
            return
        if fetcher.complete:
            self._apply(Fetched(key=key, fetched=fetcher.fetched))
        elif now - self._told_at >= PROGRESS_SECONDS:
            self._told_at = now
            self._apply(Progressed(key=key, done=fetcher.done, fetched=fetcher.fetched))
