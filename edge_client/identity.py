"""A device's identity on disk: who it is, its keys, and what it trusts.

``identity.json`` names a *generation*: the folder ``gen-<n>`` with a key, its certificate, the
roots to trust beside it, and the trust root that the join token pinned. A new generation
is written whole beside the old one; replacing the record is the switch. So an enrollment, a
renewal or a fall-back either happened or did not, wherever a device is killed.

``gen-0`` is the folder itself: so it was before there were generations.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from edge_client import certificates
from edge_client.certificates import Life
from edge_client.errors import AlreadyEnrolledError, EdgeError, NotEnrolledError
from edge_client.files import disk_errors, fsync_folder, read_limited, write_atomic
from edge_client.settings import Home
from schemas.base import UtcTime, Wire
from schemas.device import CertificateSeen
from schemas.enroll import BrokerAddress
from schemas.ids import DeviceId, Name, TokenId

_RECORD = "identity.json"
_KEY, _CERTIFICATE, _CA = "key.pem", "certificate.pem", "ca.pem"
_ROOT = "root.json"
_FILES = (_KEY, _CERTIFICATE, _CA, _ROOT, "targets.json")
"""Of gen-0; the last one held delegations, which come with the trust metadata now."""

_LIMIT = 4 * 1024**2


class IdentityRecord(Wire):
    """``identity.json``.

    generation: which one counts. fallback: the one before, until the present one has been
    tried. serial, expires_at: of the certificate, for whoever looks. token: the join token.
    """

    device: DeviceId
    device_class: Name
    broker: BrokerAddress
    heartbeat_seconds: float
    server: str
    generation: int = Field(default=0, ge=0)
    fallback: int | None = Field(default=None, ge=0)
    serial: str = ""
    expires_at: UtcTime | None = None
    token: TokenId | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """What a device is; the paths are those of its PEM files.

    certificate: the device's, then those between it and a root. ca: all roots.
    """

    record: IdentityRecord
    key: Path
    certificate: Path
    ca: Path
    root_json: bytes
    seen: CertificateSeen
    life: Life

    @property
    def unproven(self) -> bool:
        """Whether nobody has accepted this certificate yet, and there is one before it."""
        return self.record.fallback is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """A key with its certificate, and the roots to trust beside it."""

    key_pem: bytes
    certificate_pem: bytes
    ca_pem: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewIdentity:
    """What enrollment yields, before it is on disk."""

    record: IdentityRecord
    key_pem: bytes
    certificate_pem: bytes
    ca_pem: bytes
    root_json: bytes


def is_enrolled(home: Home) -> bool:
    """Whether the home holds a whole identity."""
    return (home.identity / _RECORD).is_file()


def refuse_if_enrolled(home: Home) -> None:
    """Guard an identity against being replaced by mistake.

    Raises:
        AlreadyEnrolledError: there is one.
    """
    if is_enrolled(home):
        msg = f"{home.root} is enrolled already"
        raise AlreadyEnrolledError(msg, hint="use another --home, or --force to replace it")


def load_identity(home: Home) -> Identity:
    """Read the identity; of two generations the newer one, if it is whole.

    Raises:
        NotEnrolledError: there is none, or it is damaged.
    """
    if not is_enrolled(home):
        msg = f"{home.root} is not enrolled"
        hint = "run `argosy-edge enroll TOKEN --server URL` first"
        raise NotEnrolledError(msg, hint=hint)
    try:
        record = _record(home)
        try:
            return _generation(home, record)
        except (EdgeError, OSError):
            if record.fallback is None:
                raise
            older = record.model_copy(update={"generation": record.fallback, "fallback": None})
            return _generation(home, older)
    except (EdgeError, ValidationError, OSError) as error:
        msg = f"the identity in {home.identity} cannot be read: {str(error).splitlines()[0]}"
        hint = "enroll again with --force and a new join token"
        raise NotEnrolledError(msg, hint=hint) from error


def save_identity(home: Home, new: NewIdentity) -> Identity:
    """Write an identity so that it is there whole or not at all, and counts from now on.

    Raises:
        DiskFullError: there is no room; what was there goes on.
    """
    home.create()
    contents = {
        _KEY: new.key_pem,
        _CERTIFICATE: new.certificate_pem,
        _CA: new.ca_pem,
        _ROOT: new.root_json,
    }
    with disk_errors("the identity"):
        number = _write_generation(home, contents)
        record = new.record.model_copy(update={"generation": number, "fallback": None})
        identity = _switch(home, record)
    _sweep(home, record)
    return identity


def add_generation(home: Home, present: Identity, new: Material) -> Identity:
    """Write a renewed certificate beside the present one, and switch to it.

    The present one becomes the fallback until ``settle``.

    Raises:
        DiskFullError: there is no room; the present one goes on.
    """
    contents = {
        _KEY: new.key_pem,
        _CERTIFICATE: new.certificate_pem,
        _CA: new.ca_pem,
        _ROOT: present.root_json,
    }
    with disk_errors("a new certificate"):
        number = _write_generation(home, contents)
        update = {"generation": number, "fallback": present.record.generation}
        identity = _switch(home, present.record.model_copy(update=update))
    _sweep(home, identity.record)
    return identity


def settle(home: Home, present: Identity) -> Identity:
    """Forget the certificate before this one: somebody has accepted this one."""
    return _settled(home, present.record.generation, present.record)


def fall_back(home: Home, present: Identity) -> Identity:
    """Return to the certificate before this one, which nobody accepts."""
    older = present.record.fallback
    return present if older is None else _settled(home, older, present.record)


def read_back(home: Home, generation: int, record: IdentityRecord) -> Identity:
    """Another generation, without making it count.

    Raises:
        EdgeError, OSError: it is damaged, or gone.
    """
    return _generation(home, record.model_copy(update={"generation": generation}))


def _settled(home: Home, generation: int, record: IdentityRecord) -> Identity:
    with disk_errors("which certificate counts"):
        update = {"generation": generation, "fallback": None}
        identity = _switch(home, record.model_copy(update=update))
    _sweep(home, identity.record)
    return identity


def _switch(home: Home, record: IdentityRecord) -> Identity:
    """Make a generation count, once it has been read back."""
    identity = _generation(home, record)
    facts = {"serial": identity.seen.serial, "expires_at": identity.life.end}
    record = record.model_copy(update=facts)
    text = record.model_dump_json(indent=1).encode()
    write_atomic(home.identity / _RECORD, text, mode=0o600)
    return _generation(home, record)


def _record(home: Home) -> IdentityRecord:
    return IdentityRecord.model_validate_json(read_limited(home.identity / _RECORD, _LIMIT))


def _folder(home: Home, generation: int) -> Path:
    return home.identity / f"gen-{generation}" if generation else home.identity


def _generation(home: Home, record: IdentityRecord) -> Identity:
    folder = _folder(home, record.generation)
    pem = read_limited(folder / _CERTIFICATE, _LIMIT)
    leaf = certificates.read_certificates(pem, str(folder / _CERTIFICATE))[0]
    roots = certificates.read_certificates(read_limited(folder / _CA, _LIMIT), str(folder / _CA))
    read_limited(folder / _KEY, _LIMIT)
    return Identity(
        record=record,
        key=folder / _KEY,
        certificate=folder / _CERTIFICATE,
        ca=folder / _CA,
        root_json=read_limited(folder / _ROOT, _LIMIT),
        seen=certificates.seen(leaf, roots),
        life=certificates.life_of(leaf),
    )


def _write_generation(home: Home, contents: dict[str, bytes]) -> int:
    """Write a generation under the next free number."""
    folder = home.identity
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    fsync_folder(home.root)
    number = 1 + max((_number(path) for path in folder.glob("gen-*")), default=0)
    draft = folder / f".gen-{secrets.token_hex(4)}"
    try:
        draft.mkdir(mode=0o700)
        for name, data in contents.items():
            write_atomic(draft / name, data, mode=0o600)
        os.replace(draft, _folder(home, number))  # noqa: PTH105 - a folder onto a free name
        fsync_folder(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return number


def _number(path: Path) -> int:
    digits = path.name.removeprefix("gen-")
    return int(digits) if digits.isdecimal() else 0


def _sweep(home: Home, record: IdentityRecord) -> None:
    """Remove generations that do not count any more, and what a kill left behind."""
    used = {_folder(home, n) for n in (record.generation, record.fallback) if n is not None}
    for path in (*home.identity.glob("gen-*"), *home.identity.glob(".gen-*")):
        if path not in used:
            shutil.rmtree(path, ignore_errors=True)
    if home.identity not in used:
        for name in _FILES:
            with contextlib.suppress(OSError):
                (home.identity / name).unlink(missing_ok=True)
