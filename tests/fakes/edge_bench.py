"""One device on a bench: its real updater over a perfect network, and writes that fail."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import itertools
from pathlib import Path

import pytest

from edge_client import serving, work
from edge_client.device import Clock, Device
from edge_client.errors import EdgeError, InferenceError, JournalError, NoModelError
from edge_client.identity import load_identity
from edge_client.inbox import Inbox
from edge_client.journal import Journal
from edge_client.metadata import MetadataClient
from edge_client.metadata_cache import MetadataCache
from edge_client.metadata_refresh import JournalFloors
from edge_client.probe import Trial, Verdict, try_model
from edge_client.runtime import Runtime
from edge_client.settings import GIB, RunSettings
from edge_client.slots import Pointer, Slot, read_pointers, write_pointers
from edge_client.staging import TrialEnded
from edge_client.states import Ended, OnProbation
from edge_client.store import Store
from edge_client.telemetry import Windows
from edge_client.updater import Updater
from schemas.model import Manifest
from schemas.rollout import ExecReport, Probation, Shadow
from schemas.topics import Down
from schemas.transfer import CHUNK_BYTES, Chunk, Reply, encode_chunk, leaves_of, tag_of
from schemas.trust import MetadataAnswer, MetadataAsk
from tests.fakes.edge_models import Release, blocks, linear_onnx, release
from tests.fakes.edge_trust import Signer, assignment
from tests.fakes.gateway import Ca, enrolled_home

SIGNER, CA = Signer(), Ca()
OLD = release(linear_onnx(1))
NEW = release(linear_onnx(2, padding=5 * CHUNK_BYTES))
BAD = release(linear_onnx(2, log_input=True))
RULES = Probation(min_inferences=3, max_boots=50)


class CrashError(BaseException):
    """The process dies here; nothing may catch it."""


class Fuse:
    """Dies at the n-th write."""

    def __init__(self, at: int | None) -> None:
        self.left = at

    def burn(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                raise CrashError

    def after(self) -> None:
        """Dies also just behind a write."""
        self.burn()


class FullOnce(Fuse):
    """The n-th write finds the disk full, once; whoever wrote hears of it."""

    def burn(self) -> None:
        try:
            super().burn()
        except CrashError:
            raise OSError(errno.ENOSPC, "No space left on device") from None

    def after(self) -> None:
        """A write that was done did not fail."""


class InProcessTrial:
    """The trial load without its process."""

    def __init__(self, home, slot, *, on_end, **_limits) -> None:
        trial = Trial(
            home=str(home.root),
            manifest_sha256=slot.manifest_sha256,
            variant=slot.variant,
            address_bytes=0,
            cpu_seconds=0,
        )
        try_model(Store(home, GIB), trial)
        on_end(Verdict())

    def abandon(self) -> None:
        pass


class Bench:
    """One device with a perfect network, driven by hand."""

    def __init__(self, folder: Path, monkeypatch, fuse: Fuse) -> None:
        self.home, self.device = enrolled_home(folder, CA, SIGNER, 1)
        self.fuse = fuse
        self.wire, self.asked = [], []
        self.server_now: dt.datetime | None = None  # as far as the device knows
        monkeypatch.setattr(work, "TrialRun", InProcessTrial)
        monkeypatch.setattr(serving, "write_pointers", self._write_pointers)
        self.install(OLD)

    def install(self, old: Release) -> None:
        file = Manifest.model_validate_json(old.manifest).variants[0].file
        store = Store(self.home, GIB)
        store.save_manifest(old.sha256, old.manifest)
        (self.home.blobs / file.sha256).write_bytes(old.onnx)
        slot = Slot(
            model="digits",
            version=1,
            variant="fp32",
            sha256=file.sha256,
            manifest_sha256=old.sha256,
        )
        write_pointers(
            self.home.pointer,
            read_pointers(self.home.pointer).put(slot.model, Pointer(active=slot)),
        )

    def _write_pointers(self, path, pointers) -> None:
        self.fuse.burn()
        write_pointers(path, pointers)
        self.fuse.after()

    def start(self) -> None:
        self.wire.clear()
        self.runtime = Runtime(Windows())
        self.journal = Journal(self.home.journal, boot="0" * 32)
        commit = self.journal.commit

        def fused(*args, **kwargs) -> None:
            try:
                self.fuse.burn()
            except OSError as error:
                msg = "database or disk is full"
                raise JournalError(msg) from error
            commit(*args, **kwargs)
            self.fuse.after()

        self.journal.commit = fused
        identity = load_identity(self.home)
        ticks = itertools.count()
        device = Device(
            home=self.home,
            settings=RunSettings(),
            identity=identity,
            journal=self.journal,
            store=Store(self.home, GIB),
            metadata=MetadataClient(
                identity.root_json,
                cache=MetadataCache(self.home.metadata),
                floors=JournalFloors(self.journal, identity.record.device),
            ),
            runtime=self.runtime,
            clock=Clock(date=lambda: dt.datetime.now(dt.UTC), steady=lambda: 0.1 * next(ticks)),
            send=lambda need: self.wire.append(need) or True,
            inquire=lambda ask: self.wire.append(ask) or True,
            ask=lambda ask: self.wire.append(ask) or True,
            server_time=lambda: self.server_now,
        )
        self.problems = device.problems
        self.updater = Updater(device, post=self.wire.append)
        self.inbox = Inbox(device, self.updater)
        self.updater.boot()
        self.inbox.connected()

    def die(self) -> None:
        self.journal.close()

    def run(self, document: bytes, version: Release, inputs) -> None:
        """Go on until the execution is over."""
        with contextlib.suppress(JournalError):
            self.inbox.take(Down.DESIRED, document)
        for _ in range(500):
            if isinstance(self.updater.state, Ended) and not self.wire:
                return
            with contextlib.suppress(EdgeError, OSError):  # as the agent's loop does
                self.go_on(version, inputs)
        pytest.fail(f"stuck in {self.updater.state}")

    def go_on(self, version: Release, inputs) -> None:
        """One round of the agent's loop."""
        self.inbox.again()
        while self.wire:
            self.answer(self.wire.pop(0), version)
        if isinstance(self.updater.state, OnProbation):
            if self.updater.settled:
                assert self.serving() == 2
            with contextlib.suppress(InferenceError, NoModelError):
                self.runtime.predict(inputs, model="digits")
        self.updater.pump()
        self.inbox.pump()

    def answer(self, message, version: Release) -> None:
        if isinstance(message, TrialEnded):
            self.updater.trial_ended(message)
            return
        if isinstance(message, MetadataAsk):
            self.tell(message.name)
            return
        sha = message.sha256
        self.asked.append(message.kind)
        if message.kind == "manifest":
            reply = Reply(kind="manifest", sha256=sha, manifest=version.manifest.decode())
            self.inbox.reply(reply.model_dump_json().encode())
            return
        parts = blocks(version.files[sha])
        if message.kind == "leaves":
            reply = Reply(kind="leaves", sha256=sha, leaves=b"".join(leaves_of(parts)).hex())
            self.inbox.reply(reply.model_dump_json().encode())
            return
        for first, last in message.ranges:
            for index in range(first, last):
                chunk = Chunk(message.batch, index, tag_of(sha), parts[index])
                self.inbox.take(Down.CHUNK, encode_chunk(chunk))

    def tell(self, name: str) -> None:
        """Answer with a metadata file."""
        data = SIGNER.files.get(name)
        answer = MetadataAnswer(name=name, text=None if data is None else data.decode())
        self.inbox.take(Down.META, answer.model_dump_json().encode())

    def go_to(self, state: type) -> None:
        """Go on until the update is in a state."""
        for _ in range(300):
            if isinstance(self.updater.state, state):
                return
            while self.wire and not isinstance(self.updater.state, state):
                self.answer(self.wire.pop(0), NEW)
            self.updater.pump()
            self.inbox.pump()
        pytest.fail(f"stuck in {self.updater.state}")

    def serving(self) -> int | None:
        slot = self.runtime.slot("digits")
        return None if slot is None else slot.version

    def reports(self) -> list[ExecReport]:
        return [ExecReport.model_validate_json(w.body) for w in self.journal.waiting(1000)]


def document(
    bench: Bench,
    version: Release,
    *,
    probation: Probation = RULES,
    shadow: Shadow | None = None,
    device: str | None = None,
    sequence: int = 1,
    **pace: object,
) -> bytes:
    """An offer of a version, as the second, which is listed."""
    SIGNER.add(version.manifest, "digits", 2)
    device = device or bench.device
    wanted = assignment(device, version.manifest, version=2, probation=probation)
    wanted = wanted.model_copy(update={"shadow": shadow, **pace})
    return SIGNER.desired(wanted, sequence=sequence, length=len(version.manifest))
