"""The authorities of a platform on disk: one generation for each root.

``authority.json`` says which generations are trusted and which one issues; it is one file,
replaced at once, and all that depends on it (the bundle, the revocation list, the server's
certificate) is made from it anew. A generation's folder is renamed into its place when it is
whole, so that what a crash leaves behind is a folder which nothing names::

    authorities/1/root.pem root.key issuing.pem issuing.key [cross.pem]

``root.key`` may be moved away. ``cross.pem`` is the root as the one before signed it. Where
there is no ``issuing.pem``, the root issues itself: homes of early versions had one
self-signed authority, ``ca.pem`` and ``ca.key``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.adapters.authority.parts import (
    PEM,
    ROOT_PATH_LENGTH,
    cross_signed,
    new_issuing,
    new_root,
    path_length,
    pem_of,
    sha256_of,
)
from orchestrator.errors import Unavailable
from orchestrator.home import read_json, sync_folder, write_atomic, write_json

STATE = "authority.json"
FOLDER = "authorities"

Write = Callable[[Path, bytes, int], None]


@dataclass(frozen=True, slots=True)
class Generation:
    """A root and who issues below it.

    cross: the root as the one before signed it; None for the first, and where the one
    before could not. root_key: where the root's key lies, or lay.
    """

    number: int
    root: x509.Certificate
    issuing: x509.Certificate
    issuing_key: ec.EllipticCurvePrivateKey
    cross: x509.Certificate | None
    root_key: Path

    @property
    def sha256(self) -> str:
        """Of the root's DER form."""
        return sha256_of(self.root)

    def is_over(self, now: datetime) -> bool:
        """Whether it can issue no more."""
        return now >= self.issuing.not_valid_after_utc

    @property
    def issues_itself(self) -> bool:
        """Whether there is no authority between the root and its devices."""
        return self.issuing == self.root


@dataclass(frozen=True, slots=True)
class Generations:
    """All that are trusted; the last one issues."""

    trusted: tuple[Generation, ...]

    @property
    def active(self) -> Generation:
        """The one that issues to devices."""
        return self.trusted[-1]

    @property
    def anchor(self) -> Generation:
        """The one that the server's certificate is from, and that join tokens pin.

        While two are trusted there are devices that know only the older root. They can
        follow the newer one if the older signed it; else the older serves until it is retired.
        """
        if len(self.trusted) > 1 and self.active.cross is None:
            return self.trusted[0]
        return self.active

    def chain(self, generation: Generation) -> tuple[x509.Certificate, ...]:
        """The authorities between a certificate of a generation and a root.

        While the root before is trusted, its word for the new one goes with it.
        """
        below = () if generation.issues_itself else (generation.issuing,)
        follows = generation.cross is not None and generation is not self.trusted[0]
        return below + ((generation.cross,) if follows and generation.cross else ())

    def bundle(self) -> str:
        """The trusted roots, in PEM form, the newest first."""
        return pem_of(*(g.root for g in reversed(self.trusted)))


def load(folder: Path) -> Generations | None:
    """Read the authorities of a folder; None where there were never any.

    Raises:
        Unavailable: a file is missing or damaged.
    """
    path = folder / STATE
    if not path.exists():
        return None
    record = read_json(path) or {}
    numbers = record.get("trusted")
    if not isinstance(numbers, list) or not numbers or not all(type(n) is int for n in numbers):
        raise damaged(path)
    return Generations(tuple(_load_one(folder, n) for n in numbers))


def save(folder: Path, generations: Generations) -> None:
    """Make these the trusted ones; the last issues."""
    write_json(folder / STATE, {"trusted": [g.number for g in generations.trusted]})


def make(
    folder: Path, now: datetime, *, previous: Generation | None, write: Write = write_atomic
) -> Generation:
    """Make a generation. Nothing trusts it before ``save`` names it.

    Args:
        folder: of the authorities.
        now: from when it is valid.
        previous: the one that is to sign the new root, if its key is there and it may.
        write: writes a file; for tests.
    """
    root_key, issuing_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = new_root(root_key, now)
    files = {
        "root.key": key_pem(root_key),
        "issuing.key": key_pem(issuing_key),
        "root.pem": pem_of(root).encode(),
        "issuing.pem": pem_of(new_issuing(issuing_key, root, root_key, now)).encode(),
    }
    old_key = None if previous is None else signing_key(previous, now)
    if previous is not None and old_key is not None:
        files["cross.pem"] = pem_of(cross_signed(root, previous.root, old_key)).encode()
    number = 1 if previous is None else previous.number + 1
    _place(folder, number, files, write)
    return _load_one(folder, number)


def adopt(folder: Path, certificate: bytes, key: bytes) -> Generation:
    """Take the self-signed authority of an early version for the first generation."""
    _place(folder, 1, {"root.key": key, "root.pem": certificate}, write_atomic)
    return _load_one(folder, 1)


def first_generation(folder: Path, now: datetime) -> Generation:
    """The first authority of a folder: a new one, or that of an early version.

    Raises:
        Unavailable: what an early version left here is not whole.
    """
    certificate, key = folder / "ca.pem", folder / "ca.key"
    if not certificate.exists():
        return make(folder, now, previous=None)
    if (folder / FOLDER / "1").exists() and not key.exists():
        raise damaged(folder / STATE)
    if load_key(key).public_key() != (load_certificate(certificate).public_key()):
        msg = f"{folder}: ca.key is not the key of ca.pem"
        raise Unavailable(msg, hint="restore both from the same backup")
    return adopt(folder, certificate.read_bytes(), key.read_bytes())


def signing_key(generation: Generation, now: datetime) -> ec.EllipticCurvePrivateKey | None:
    """The root's key, if it is there and the root may sign another yet; else None."""
    length = path_length(generation.root)
    if length is not None and length < ROOT_PATH_LENGTH:
        return None
    if now >= generation.root.not_valid_after_utc:
        return None
    try:
        key = load_key(generation.root_key)
    except Unavailable:
        return None
    return key if key.public_key() == generation.root.public_key() else None


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key in PEM form, without a passphrase."""
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read an EC key.

    Raises:
        Unavailable: it is missing or damaged.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise damaged(path) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise damaged(path)
    return key


def load_certificate(path: Path) -> x509.Certificate:
    """Read a certificate; raises as ``load_key`` does."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise damaged(path) from error


def damaged(path: Path) -> Unavailable:
    """One of the authority's files cannot be used."""
    msg = f"{path} is missing or damaged"
    return Unavailable(msg, hint="restore it from a backup; devices trust this CA and no other")


def _load_one(folder: Path, number: int) -> Generation:
    place = folder / FOLDER / str(number)
    root = load_certificate(place / "root.pem")
    own = (place / "issuing.pem").exists() or (place / "issuing.key").exists()
    issuing = load_certificate(place / "issuing.pem") if own else root
    key_path = place / ("issuing.key" if own else "root.key")
    key = load_key(key_path)
    if issuing.public_key() != key.public_key():
        msg = f"{key_path} is not the key of the certificate beside it"
        raise Unavailable(msg, hint="restore both from the same backup")
    cross = place / "cross.pem"
    return Generation(
        number,
        root,
        issuing,
        key,
        load_certificate(cross) if cross.exists() else None,
        place / "root.key",
    )


def _place(folder: Path, number: int, files: dict[str, bytes], write: Write) -> None:
    """Fill a folder beside its place and rename it into it."""
    parent = folder / FOLDER
    parent.mkdir(mode=0o700, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".new-", dir=parent))
    try:
        for name, data in files.items():
            write(draft / name, data, 0o600 if name.endswith(".key") else 0o644)
        place = parent / str(number)
        if place.exists():
            # A crash came between this and the state: nothing names what lies there.
            shutil.rmtree(place)
        os.replace(draft, place)  # noqa: PTH105 - a folder onto a free name
        sync_folder(parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
