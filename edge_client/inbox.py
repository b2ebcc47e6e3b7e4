"""What comes over the wire: checked here, and never believed before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from pydantic import ValidationError

from edge_client.actions import Report
from edge_client.device import Device
from edge_client.errors import JournalError, TrustError
from edge_client.events import CancelRequested, Offered, ProceedWanted
from edge_client.journal import Floor
from edge_client.metadata_refresh import Refresher, Verdict
from edge_client.states import Key, Offer, key_of
from edge_client.trust import claimed_key
from edge_client.updater import Updater
from schemas.rollout import Command, ExecState
from schemas.topics import Down
from schemas.transfer import Reply

MAX_COMMAND_BYTES = 4096


class Inbox:
    """Takes messages for one device. Used from the updater's thread."""

    def __init__(self, device: Device, updater: Updater) -> None:
        """Put together. updater: hears of what passed its checks."""
        self._device, self._updater = device, updater
        self._refresher = Refresher(device, decided=self._decided)
        self._takers: dict[Down, Callable[[bytes], None]] = {
            Down.CHUNK: device.inlet.take,  # of a transport that does not do it itself
            Down.REPLY: self.reply,
            Down.DESIRED: self.desired,
            Down.CMD: self.command,
            Down.META: self._refresher.answer,
        }
        self._untaken: dict[Down, bytes] = {}  # the newest that could not be written down
        self._known: tuple[bytes, Offer] | None = None  # the last document, by its digest

    def take(self, leaf: Down, payload: bytes) -> None:
        """Take a message that came on a topic; one of another part is let through.

        Raises:
            JournalError: it could not be written down; ``again`` takes what is decided by a
                document or a command, which nobody might repeat for long.
        """
        taker = self._takers.get(leaf)
        if taker is None:
            return
        self._untaken.pop(leaf, None)
        try:
            taker(payload)
        except JournalError:
            if leaf in {Down.DESIRED, Down.CMD}:
                self._untaken[leaf] = payload
            raise

    def again(self) -> None:
        """Take again what could not be written down."""
        for leaf, payload in list(self._untaken.items()):
            self.take(leaf, payload)

    def connected(self) -> None:
        """Ask for the trust metadata that is missing."""
        self._refresher.connected()

    def disconnected(self) -> None:
        """Nothing that was asked for comes any more."""
        self._refresher.disconnected()

    def pump(self) -> float:
        """Go on with what is under way. Returns when to call again, in steady seconds."""
        return self._refresher.pump()

    def desired(self, raw: bytes) -> None:
        """A desired document; an empty one means that there is none any more.

        One that waits for the trust metadata is then forgotten: it may hold for weeks, and
        the server does not repeat that it took it back.
        """
        if not raw:
            self._refresher.forget()
            return
        if self._known is not None and self._known[0] == _digest(raw):
            self._offered(self._known[1])  # the broker keeps it, and sends it at each connection
            return
        if claimed_key(raw) is None:
            self._device.problems.note("a malformed desired document was ignored")
            return
        self._refresher.check(raw)

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
        if self._repeated(key):
            return
        if command.kind == "cancel":
            self._updater.apply(CancelRequested(key=key))
        else:
            self._updater.apply(ProceedWanted(key=key))

    def reply(self, raw: bytes) -> None:
        """An answer to a request."""
        try:
            reply = Reply.model_validate_json(raw)
        except ValidationError:
            self._device.problems.note("a malformed reply was ignored")
            return
        self._updater.reply(reply)

    def _decided(self, raw: bytes, verdict: Verdict) -> None:
        """Act on what the trust metadata says of a document."""
        if isinstance(verdict, TrustError):
            self._refuse(raw, verdict)
            return
        self._offered(verdict)
        self._known = (_digest(raw), verdict)

    def _offered(self, offer: Offer) -> None:
        if self._repeated(offer.key):
            return
        device = self._device.name
        raised = offer.sequence > self._device.journal.floor(device)
        floor = Floor(device=device, sequence=offer.sequence) if raised else None
        active = self._device.runtime.slot(offer.assignment.model)
        event = Offered(offer=offer, active=active)
        self._updater.apply(event, floor=floor)

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


def _digest(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()
