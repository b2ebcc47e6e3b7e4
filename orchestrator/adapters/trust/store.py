"""The trust metadata of one platform: kept on disk, signed as far as the keys are here."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Self

from orchestrator.adapters.trust.acceptance import accept, files_of
from orchestrator.adapters.trust.assignments import AssignmentSigner
from orchestrator.adapters.trust.creation import (
    Offline,
    create,
    damaged,
    forget_legacy,
    upgrade,
)
from orchestrator.adapters.trust.documents import (
    SNAPSHOT,
    TIMESTAMP,
    role_of,
    split_name,
)
from orchestrator.adapters.trust.folder import MetadataFolder, Write
from orchestrator.adapters.trust.keys import Keyring, drop_keys, load_keys
from orchestrator.adapters.trust.planning import (
    Files,
    due_at,
    model_files,
    online_files,
    root_file,
    targets_file,
    versions_of,
)
from orchestrator.adapters.trust.state import State, digest, read_state
from orchestrator.adapters.trust.views import clock_is_behind, fault, view
from orchestrator.clock import utc_now
from orchestrator.errors import ArgosyError, Invalid, Unavailable
from orchestrator.home import write_atomic
from orchestrator.services.ports import Standing
from schemas.rollout import Assignment
from schemas.trust import (
    DIRECTOR_ROLE,
    MAX_METADATA_BYTES,
    MODELS_ROLE,
    ROOT_FILE,
    TrustView,
)

log = logging.getLogger(__name__)


class TrustStore:
    """``services.ports.Signer`` over ``HOME/trust``.

    Several processes may use one folder (the server and ``argosy trust``): each looks
    whether another wrote, and holds a lock while it writes.

    Args:
        folder: the files.
        clock: the time, in UTC.
    """

    def __init__(self, folder: MetadataFolder, clock: Callable[[], datetime]) -> None:
        self._folder = folder
        self._clock = clock
        self._lock = threading.RLock()
        self._assignments = AssignmentSigner()
        self._stands: frozenset[Standing] | None = None
        self._behind = False
        self._settled = False
        self._load()

    @classmethod
    def open_or_create(
        cls,
        path: Path,
        clock: Callable[[], datetime] = utc_now,
        *,
        offline: Offline | None = None,
        write: Write = write_atomic,
    ) -> Self:
        """Open a trust store, making it at the first call; an earlier layout is taken over.

        Args:
            path: its folder.
            clock: the time, in UTC.
            offline: where a new store's keys of root, targets and release go.
            write: replaces a file atomically.

        Raises:
            Unavailable: it is damaged, cannot be written or cannot be taken over.
        """
        folder = MetadataFolder(path, write)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with folder.locked():
            if not folder.exists():
                if (path / ROOT_FILE).exists():
                    upgrade(folder, clock())
                else:
                    create(folder, clock(), offline)
            forget_legacy(folder)
        return cls(folder, clock)

    @classmethod
    def open(cls, path: Path, clock: Callable[[], datetime] = utc_now) -> Self:
        """Open a trust store, checking it as a device will.

        Raises:
            Unavailable: it is not there, or damaged, or an online key is missing.
        """
        folder = MetadataFolder(path)
        if not folder.exists():
            raise damaged(folder, "it has no metadata")
        return cls(folder, clock)

    @property
    def keys_folder(self) -> Path:
        """Where the private keys are that the server has."""
        return self._folder.keys

    @property
    def state(self) -> State:
        """The metadata as it is published now."""
        self._refresh()
        return self._state

    @property
    def keyring(self) -> Keyring:
        """The private keys that are with the server."""
        self._refresh()
        return self._ring

    @property
    def root_json(self) -> str:
        """The newest root."""
        return self.state.roots[-1].decode()

    def root_sha256(self) -> str:
        """The SHA-256 of the newest root, in hex: what new join tokens pin."""
        return digest(self.state.roots[-1])

    def root_of(self, sha256: str) -> str | None:
        """A root by its SHA-256, of whatever version."""
        found = (raw for raw in self.state.roots if digest(raw) == sha256)
        return next((raw.decode() for raw in found), None)

    def metadata(self, name: str) -> bytes | None:
        """A metadata file by its name; None when there is none."""
        try:
            split_name(name)
        except Invalid:
            return None
        return self._folder.read(name)

    def publish(self, stands: Sequence[Standing]) -> None:
        """Bring the metadata to what stands, and sign anew what is about to expire.

        Files are written role first, timestamp last. While the clock is before the last
        signature nothing is signed: it would be expired for every device.

        Raises:
            Unavailable: the folder cannot be written; what devices verify is unchanged.
        """
        wanted = frozenset(stands)
        with self._lock:
            self._refresh()
            now = self._clock()
            self._behind = self._told_behind(now)
            self._settled = self._settled and wanted == self._stands
            self._stands = wanted
            if self._behind or (self._settled and now < self._due):
                return
            with self._folder.locked():
                self._refresh()
                self._publish(wanted, now)
            self._settled = True

    def renew_online(self) -> None:
        """Sign snapshot and timestamp anew, whatever the clock said before."""
        with self._lock, self._folder.locked():
            self._refresh()
            self._commit(online_files(self._state, {}, self._ring, self._clock(), anew=True))

    def published(self, model: str, version: int) -> bool:
        """Whether devices find a version in the metadata."""
        self._refresh()
        return (model, version) in self._found

    def releases(self) -> bool:
        """Whether versions are signed here, because the release keys are."""
        return self.keyring.can_sign(role_of(self._state.targets, MODELS_ROLE))

    def accept(self, files: Mapping[str, bytes], stands: Collection[Standing] | None) -> None:
        """Take metadata that was signed elsewhere, all of it or nothing.

        Args:
            files: by name; those that are there already change nothing.
            stands: the versions that may be listed; None where nothing listed changes.

        Raises:
            Invalid, Conflict, Forbidden: it is malformed, does not fit what is there, or
                is not signed as it must be.
            Unavailable: it cannot be written.
        """
        with self._lock, self._folder.locked():
            self._refresh()
            now = self._clock()
            found = accept(self._state, files, self._ring, now, stands)
            if found.root is None and not found.roles:
                return
            before = self._state.keyids()
            self._commit(files_of(self._state, found, self._ring, now))
            drop_keys(self._folder.keys, before - self._state.keyids())
            if stands is not None:
                self._stands = frozenset(stands)

    def status(self) -> TrustView:
        """What there is, what is unsigned, what somebody should look after."""
        with self._lock:
            self._refresh()
            stands = self._state.listed() if self._stands is None else self._stands
            return view(self._state, self._ring, stands, self._clock())

    def fault(self) -> str | None:
        """Why devices can install nothing any more; None while they can."""
        return fault(self.state, self._clock())

    def director_keys(self) -> tuple[str, ...]:
        """The ids of the keys that assignments are signed with."""
        return tuple(role_of(self.state.targets, DIRECTOR_ROLE).keyids)

    def sign_assignment(
        self, assignment: Assignment, manifest_size: int, sequence: int, expires: datetime
    ) -> bytes:
        """The director's document for one device: what it shall run.

        Args:
            assignment: carried in the target's ``custom`` field, floats as text.
            manifest_size: bytes of the manifest that the assignment names by its hash.
            sequence: the document's TUF version, which grows with every assignment.
            expires: after this the device does not install from it any more.
        """
        with self._lock:
            self._refresh()
            signers = self._ring.of(role_of(self._state.targets, DIRECTOR_ROLE))
            return self._assignments.sign(assignment, manifest_size, sequence, expires, signers)

    def _told_behind(self, now: datetime) -> bool:
        behind = clock_is_behind(self._state, now)
        if behind and not self._behind:
            log.error(
                "the clock says %s, before the last signature at %s: nothing is signed",
                now.isoformat(),
                self._state.signed_at.isoformat(),
            )
        return behind

    def _publish(self, wanted: frozenset[Standing], now: datetime) -> None:
        state, ring = self._state, self._ring
        roles = model_files(state, wanted, ring, now) | targets_file(state, ring, now)
        online = online_files(state, versions_of(roles), ring, now)
        self._commit(roles | online | root_file(state, ring, now))

    def _commit(self, files: Files) -> None:
        for name, raw in files.items():
            if len(raw) > MAX_METADATA_BYTES:
                # Once it is written nobody could read it any more, we no more than devices.
                msg = f"{name} would have {len(raw)} bytes; {MAX_METADATA_BYTES} can be sent"
                raise Unavailable(msg, hint="take versions out: argosy model gc, or revoke them")
        if files:
            self._folder.write(files)
            self._folder.prune()
            self._load()

    def _refresh(self) -> None:
        """Read again what another process wrote."""
        with self._lock:
            if self._folder.stamp() != self._stamp:
                self._load()

    def _load(self) -> None:
        stamp = self._folder.stamp()
        try:
            state = read_state(self._folder.read)
            ring = load_keys(self._folder.keys)
        except Unavailable:
            raise
        except ArgosyError as error:
            raise damaged(self._folder, error.detail) from error
        for role in (SNAPSHOT, TIMESTAMP, DIRECTOR_ROLE):
            delegator = state.targets if role == DIRECTOR_ROLE else state.root.signed
            if not ring.can_sign(role_of(delegator, role)):
                raise damaged(self._folder, f"the key of {role} is not in {self._folder.keys}")
        self._state, self._ring, self._stamp = state, ring, stamp
        self._due, self._settled = due_at(state, ring), False
        self._found = {(stand.model, stand.version) for stand in state.listed()}
