"""What must not leave the user's machine inside of code: keys, tokens, passwords."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

MAX_SCANNED = 1024 * 1024
"""Bytes; larger files are data, and are judged by their names alone."""

_NAMES = {
    ".env": "environment variables",
    ".netrc": "passwords",
    "_netrc": "passwords",
    ".pypirc": "passwords of a package index",
    ".pgpass": "passwords of a database",
    ".htpasswd": "passwords",
    ".git-credentials": "passwords",
    "credentials.json": "credentials",
    "kubeconfig": "credentials of a cluster",
    ".vault-token": "a token",
    "id_rsa": "a private key",
    "id_dsa": "a private key",
    "id_ecdsa": "a private key",
    "id_ed25519": "a private key",
}
_LIKE = {
    ".env.*": "environment variables",
    "*.kubeconfig": "credentials of a cluster",
    "*.p12": "a key store",
    "*.pfx": "a key store",
    "*.jks": "a key store",
    "*.keystore": "a key store",
    "*/.aws/credentials": "credentials of a cloud",
    "*/.kube/config": "credentials of a cluster",
    "*/.docker/config.json": "credentials of a registry",
}
_SAMPLES = frozenset({".env.example", ".env.sample", ".env.template", ".env.dist"})

_CONTENTS = (
    (re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"), "a private key"),
    # The one that Amazon's own documentation uses is no secret.
    (re.compile(rb"\b(?:AKIA|ASIA)(?![0-9A-Z]{9}EXAMPLE)[0-9A-Z]{16}\b"), "an AWS access key"),
    (re.compile(rb"\barg_key_[0-9a-z]{16}_[A-Za-z0-9_-]{43}"), "an Argosy token"),
    (re.compile(rb"\bgh[pousr]_[A-Za-z0-9]{36,}"), "a GitHub token"),
    (re.compile(rb"\bgithub_pat_[A-Za-z0-9_]{36,}"), "a GitHub token"),
    (re.compile(rb"\bhf_[A-Za-z0-9]{30,}\b"), "a Hugging Face token"),
)


@dataclass(frozen=True, slots=True)
class Secret:
    """Something found. where: the file, and its line if it was found inside of it."""

    where: str
    what: str


def secret_name(name: str) -> Secret | None:
    """What a file is known for by its name.

    Args:
        name: its path in the folder, with slashes.
    """
    last = PurePosixPath(name).name
    if last in _SAMPLES:
        return None
    what = _NAMES.get(last)
    for like, kind in _LIKE.items():
        if fnmatchcase(f"/{name}" if "/" in like else last, like):
            what = what or kind
    return None if what is None else Secret(name, f"a file that usually holds {what}")


def secrets_in(name: str, content: bytes) -> Iterator[Secret]:
    """The secrets in a file, one for each kind: the first, with its line."""
    for pattern, what in _CONTENTS:
        found = pattern.search(content)
        if found is not None:
            line = content.count(b"\n", 0, found.start()) + 1
            yield Secret(f"{name}:{line}", what)
