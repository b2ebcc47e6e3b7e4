"""What comes over the wire: checked here, and never believed before."""

from __future__ import annotations

import datetime as dt

from pydantic import ValidationError

from edge_client.actions import Report
from edge_client.device import Device
from edge_client.errors import JournalError, TrustError
from edge_client.events import CancelRequested, Offered
from edge_client.journal import Floor
from edge_client.settings import BUILT
from edge_client.states import Key, key_of
from edge_client.trust import Reader, claimed_key
from edge_client.updater import Updater
from schemas.rollout import Command, ExecState
from schemas.topics import Down
from schemas.transfer import Reply

CLOCK_SLACK = dt.timedelta(minutes=5)
"""A clock may be set back by this much against the last good time."""

MAX_COMMAND_BYTES = 4096
_GOOD_TIME = "good_time"


class Inbox:
    """Takes messages for one device. Used from the updater's thread."""

    def __init__(self, device: Device, updater: Updater) -> None:
        """Put together. updater: hears of what passed its checks."""
        self._device, self._updater = device, updater
        self._takers = {
            Down.CHUNK: updater.chunk,  # checked by its hash, chunk by chunk
            Down.REPLY: self.reply,
            Down.DESIRED: self.desired,
            Down.CMD: self.command,
        }
        self._untaken: dict[Down, bytes] = {}  # the newest that could not be written down

    def take(self, leaf: Down, payload: bytes) -> None:
        """Take a message that came on a topic.

        Raises:
            JournalError: it could not be written down; ``again`` takes what is decided
                by a document or a command, which nobody might repeat for long.
        """
        self._untaken.pop(leaf, None)
        try:
            self._takers[leaf](payload)
        except JournalError:
            if leaf in {Down.DESIRED, Down.CMD}:
                self._untaken[leaf] = payload
            raise

    def again(self) -> None:
        """Take again what could not be written down."""
        for leaf, payload in list(self._untaken.items()):
            self.take(leaf, payload)

    def desired(self, raw: bytes) -> None:
        """A desired document; an empty one means that there is none any more."""
        if not raw:
            return
        now = self._device.clock.date()
        record = self._device.identity.record
        reader = Reader(
            device=record.device,
            device_class=record.device_class,
            floor=self._device.journal.floor(record.device),
            earliest=self._earliest(),
        )
        try:
            offer = self._device.trust.desired(raw, me=reader, now=now)
        except TrustError as error:
            self._refuse(raw, error)
            return
        self._device.journal.remember(_GOOD_TIME, now.timestamp())
        if self._repeated(offer.key):
            return
        event = Offered(offer=offer, active=self._device.runtime.slot)
        raised = offer.sequence > reader.floor
        floor = Floor(device=record.device, sequence=offer.sequence) if raised else None
        self._updater.apply(event, floor=floor)

    def command(self, raw: bytes) -> None:
        """A command; one that is too long to be one is dropped."""
        if len(raw) > MAX_COMMAND_BYTES:
            return
        try:
            command = Command.model_validate_json(raw)
        except ValidationError:
            self._device.problems.note("a malformed command was ignored")
            return
        key = (command.execution, command.attempt)
        if not self._repeated(key):
            self._updater.apply(CancelRequested(key=key))

    def reply(self, raw: bytes) -> None:
        """An answer to a request."""
        try:
            reply = Reply.model_validate_json(raw)
        except ValidationError:
            self._device.problems.note("a malformed reply was ignored")
            return
        self._updater.reply(reply)

    def _earliest(self) -> dt.datetime:
        good = self._device.journal.fact(_GOOD_TIME)
        if good is None:
            return BUILT
        return max(BUILT, dt.datetime.fromtimestamp(good, dt.UTC) - CLOCK_SLACK)

    def _repeated(self, key: Key) -> bool:
        """Answer for an execution that ended before the present one."""
        return key != key_of(self._updater.state) and self._device.journal.repeat(key)

    def _refuse(self, raw: bytes, error: TrustError) -> None:
        """Tell why a document is not acted on, and let nothing else follow from it."""
        key = claimed_key(raw)
        self._device.problems.note(f"the desired document is refused: {error}")
        if key is None or key == key_of(self._updater.state) or self._repeated(key):
            return
        self._updater.report(
            Report(
                key=key, state=ExecState.REJECTED, cause=error.cause, detail=str(error), keep=False
            )
        )
