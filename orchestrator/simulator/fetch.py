"""How a simulated device gets a version: the manifest, and for some devices every chunk.

It pulls as ``docs/protocol.md`` has it, with a fixed window and no other way; what it fetched is
checked by its leaves and thrown away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import ValidationError

from schemas.model import Manifest
from schemas.topics import Up
from schemas.transfer import Ask, Need, Reply, chunk_count, chunk_of, leaves_digest, tag_of

WINDOW = 16
_PATIENCE_SECONDS = 3.0
_MAX_TRIES = 20


class Sender(Protocol):
    """Who speaks for the device."""

    def ask(self, leaf: Up, payload: bytes) -> None:
        """Send a question, with QoS 1, only if there is a connection."""

    def after(self, seconds: float, act: Callable[..., None], *args: object) -> None:
        """Have something done later."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of a variant."""

    size: int
    sha256: str
    leaves_sha256: str


@dataclass(frozen=True, slots=True)
class Package:
    """What of a manifest is needed: the files of each variant, the model file first."""

    files: dict[str, tuple[File, ...]]


class Library:
    """Manifests that this process has seen, each read once."""

    def __init__(self) -> None:
        self._known: dict[str, Package] = {}

    def get(self, sha256: str) -> Package | None:
        """One that was read before."""
        return self._known.get(sha256)

    def read(self, sha256: str, text: str) -> Package | None:
        """Take a manifest in; None when it is not the one, or none at all."""
        known = self._known.get(sha256)
        if known is not None:
            return known
        if hashlib.sha256(text.encode()).hexdigest() != sha256:
            return None
        try:
            manifest = Manifest.model_validate_json(text)
        except ValidationError:
            return None
        files = {}
        for variant in manifest.variants:
            both = (variant.file, *((variant.golden.file,) if variant.golden else ()))
            files[variant.id] = tuple(File(one.size, one.sha256, one.leaves_sha256) for one in both)
        self._known[sha256] = Package(files)
        return self._known[sha256]


@dataclass(slots=True)
class _Pull:
    """A file on its way."""

    file: File
    leaves: list[bytes] = field(default_factory=list)
    todo: list[int] = field(default_factory=list)
    out: set[int] = field(default_factory=set)


class Fetch:
    """One device's questions and what comes of them. One thing is fetched at a time.

    Args:
        sender: speaks for it.
        library: shared by all devices.
    """

    def __init__(self, sender: Sender, library: Library) -> None:
        self._sender, self._library = sender, library
        self._turn = 0
        self._batch = 0
        self._tries = 0
        self._wanted: Ask | None = None
        self._done: Callable[[Package | None], None] | None = None
        self._pull: _Pull | None = None
        self._rest: list[File] = []
        self._ended: Callable[[bool], None] | None = None
        self.bytes_fetched = 0

    def stop(self) -> None:
        """Want nothing any more."""
        self._turn += 1
        self._wanted = self._done = self._pull = self._ended = None
        self._rest = []

    def manifest(self, sha256: str, done: Callable[[Package | None], None]) -> None:
        """Ask for a manifest; ``done`` is called with it, or with None when it is not to be had."""
        self.stop()
        self._done, self._tries = done, 0
        self._ask(Ask(kind="manifest", sha256=sha256))

    def files(self, files: tuple[File, ...], ended: Callable[[bool], None]) -> None:
        """Pull files; ``ended`` is called with whether all of them are there."""
        self.stop()
        self._rest, self._ended, self.bytes_fetched, self._tries = list(files), ended, 0, 0
        self._next_file()

    def replied(self, reply: Reply) -> None:
        """An answer came."""
        wanted = self._wanted
        if wanted is None or (reply.kind, reply.sha256) != (wanted.kind, wanted.sha256):
            return
        if reply.error is not None:
            return  # the timer asks again
        if reply.kind == "manifest" and self._done is not None:
            package = self._library.read(reply.sha256, reply.manifest or "")
            done = self._done
            self.stop()
            done(package)
        elif reply.kind == "leaves" and self._pull is not None:
            self._begin(self._pull, reply)

    def chunk(self, payload: bytes) -> None:
        """A chunk came."""
        pull, view = self._pull, chunk_of(payload)
        if pull is None or view is None or view.tag != tag_of(pull.file.sha256):
            return
        if view.index not in pull.out:
            return
        if hashlib.sha256(view.data).digest() != pull.leaves[view.index]:
            return
        pull.out.discard(view.index)
        self.bytes_fetched += len(view.data)
        self._tries = 0
        if not pull.todo and not pull.out:
            self._next_file()
        elif len(pull.out) <= WINDOW // 2 and pull.todo:
            self._need(pull)

    def _ask(self, ask: Ask) -> None:
        self._wanted = ask
        self._sender.ask(Up.ASK, ask.model_dump_json(exclude_defaults=True).encode())
        self._sender.after(_PATIENCE_SECONDS, self._again, self._turn, ask)

    def _again(self, turn: int, ask: Ask) -> None:
        """No answer to a question in time."""
        if turn != self._turn or self._wanted != ask:
            return
        self._tries += 1
        if self._tries < _MAX_TRIES:
            self._ask(ask)
        else:
            self._fail()

    def _fail(self) -> None:
        done, ended = self._done, self._ended
        self.stop()
        if done is not None:
            done(None)
        if ended is not None:
            ended(False)  # noqa: FBT003 - not all is there

    def _next_file(self) -> None:
        if self._rest:
            file = self._rest.pop(0)
            self._pull = _Pull(file)
            self._ask(Ask(kind="leaves", sha256=file.sha256))
            return
        ended = self._ended
        self.stop()
        if ended is not None:
            ended(True)  # noqa: FBT003 - all is there

    def _begin(self, pull: _Pull, reply: Reply) -> None:
        try:
            joined = bytes.fromhex(reply.leaves or "")
        except ValueError:
            return
        leaves = [joined[i : i + 32] for i in range(0, len(joined), 32)]
        if leaves_digest(leaves) != pull.file.leaves_sha256:
            return
        if len(leaves) != chunk_count(pull.file.size):
            return
        self._wanted = None
        pull.leaves, pull.todo = leaves, list(range(len(leaves)))
        self._need(pull)
        self._sender.after(_PATIENCE_SECONDS, self._look, self._turn, pull, self.bytes_fetched)

    def _need(self, pull: _Pull) -> None:
        room = WINDOW - len(pull.out)
        some, pull.todo = pull.todo[:room], pull.todo[room:]
        pull.out.update(some)
        self._batch += 1
        need = Need(
            kind="chunks",
            sha256=pull.file.sha256,
            batch=self._batch,
            ranges=tuple((i, i + 1) for i in some),
        )
        self._sender.ask(Up.NEED, need.model_dump_json().encode())

    def _look(self, turn: int, pull: _Pull, before: int) -> None:
        """The backstop: nothing came for a while, so what is outstanding is lost."""
        if turn != self._turn or pull is not self._pull:
            return
        if before == self.bytes_fetched:
            self._tries += 1
            if self._tries >= _MAX_TRIES:
                self._fail()
                return
            pull.todo = sorted(pull.out) + pull.todo
            pull.out.clear()
            self._need(pull)
        self._sender.after(_PATIENCE_SECONDS, self._look, turn, pull, self.bytes_fetched)
