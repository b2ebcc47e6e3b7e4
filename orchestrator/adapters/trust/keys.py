"""Private keys in a folder: Ed25519, one file each, found by what they are, not by their name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Role

from orchestrator.errors import Invalid, Unavailable
from orchestrator.home import sync_folder, write_atomic

MAX_KEYS = 256
_MAX_BYTES = 16 * 1024
SHORT = 8
"""Characters of a key's id that people are shown."""


@dataclass(frozen=True, slots=True)
class Keyring:
    """Private keys by their id. files: where each was found."""

    signers: Mapping[str, CryptoSigner] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)

    def __or__(self, other: Keyring) -> Keyring:
        return Keyring({**self.signers, **other.signers}, {**self.files, **other.files})

    def of(self, role: Role) -> list[CryptoSigner]:
        """Those that may sign for a role."""
        return [self.signers[keyid] for keyid in role.keyids if keyid in self.signers]

    def can_sign(self, role: Role) -> bool:
        """Whether there are enough of them for a role's threshold."""
        return len(self.of(role)) >= role.threshold


def ring_of(signers: Iterable[CryptoSigner]) -> Keyring:
    """A keyring of signers that are not in any folder."""
    return Keyring({signer.public_key.keyid: signer for signer in signers})


def load_keys(folder: Path) -> Keyring:
    """Every ``*.pem`` in a folder.

    Raises:
        Invalid: the folder is not there, or a file holds no Ed25519 private key.
        Unavailable: a file cannot be read.
    """
    if not folder.is_dir():
        msg = f"there is no folder {folder} with keys"
        raise Invalid(msg, hint="name the folder that holds the .pem files")
    paths = sorted(folder.glob("*.pem"))
    if len(paths) > MAX_KEYS:
        msg = f"{folder} has more than {MAX_KEYS} .pem files"
        raise Invalid(msg, hint="keep the keys in a folder of their own")
    signers: dict[str, CryptoSigner] = {}
    files: dict[str, Path] = {}
    for path in paths:
        signer = _load(path)
        signers[signer.public_key.keyid] = signer
        files[signer.public_key.keyid] = path
    return Keyring(signers, files)


def make_keys(folder: Path, role: str, count: int = 1) -> list[CryptoSigner]:
    """Make keys for a role and write each to ``<role>-<start of its id>.pem`` (0600).

    Raises:
        Unavailable: the folder cannot be made or written.
    """
    made = [CryptoSigner.generate_ed25519() for _ in range(count)]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for signer in made:
            name = f"{role}-{signer.public_key.keyid[:SHORT]}.pem"
            write_atomic(folder / name, signer.private_bytes)
    except OSError as error:
        msg = f"cannot write keys to {folder}: {error.strerror or error}"
        raise Unavailable(msg, hint="name a folder that you can write") from error
    return made


def drop_keys(folder: Path, keyids: Iterable[str]) -> list[Path]:
    """Delete the files of keys that sign nothing any more."""
    files = load_keys(folder).files
    gone = [files[keyid] for keyid in keyids if keyid in files]
    for path in gone:
        path.unlink(missing_ok=True)
    if gone:
        sync_folder(folder)
    return gone


def _load(path: Path) -> CryptoSigner:
    try:
        with path.open("rb") as file:
            private = load_pem_private_key(file.read(_MAX_BYTES), password=None)
    except OSError as error:
        msg = f"cannot read the key {path}: {error.strerror}"
        raise Unavailable(msg, hint="see to it that this user may read the file") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        msg = f"{path} holds no private key, or one with a passphrase"
        raise Invalid(msg, hint="keep only unencrypted Ed25519 keys in that folder") from error
    if not isinstance(private, Ed25519PrivateKey):
        msg = f"{path} is not an Ed25519 key"
        raise Invalid(msg, hint="keep only keys that `argosy trust` made in that folder")
    return CryptoSigner(private)
