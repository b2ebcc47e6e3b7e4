"""What ``argosy-edge enroll`` and ``argosy-edge key`` do.

The order of what is written: key and request, the server's word that it waits, (what the old
device had not sent goes,) the identity, and last the key and request go. Whatever is cut off in
between, the same command goes on from there with the same key, and the server knows it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from edge_client import certificates, requested
from edge_client.enroll import Pasted, Waiting, enroll, parse_pasted
from edge_client.errors import (
    AlreadyEnrolledError,
    NotAdmittedError,
    NotEnrolledError,
    UsageError,
)
from edge_client.files import disk_errors, read_limited, write_atomic
from edge_client.hardware import hardware
from edge_client.https import parse_server
from edge_client.identity import Identity, is_enrolled, load_identity, save_identity
from edge_client.lock import agent_lock
from edge_client.reenroll import change, drop, in_words
from edge_client.requested import EnrollmentNote
from edge_client.settings import Home
from schemas.enroll import EnrollPending, JoinToken
from schemas.errors import Code

MAX_KEY_BYTES = 16 * 1024
_OTHERS = 0o077


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Of the command. token: or the command in which it was shown. key: a file to take it from."""

    token: str
    server: str | None
    wait: float
    key: Path | None = None
    force: bool = False
    insecure_http: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """How the command speaks. pending: the device's id and its fingerprint, once."""

    say: Callable[[str], None]
    pending: Callable[[EnrollPending], None]


def enroll_device(home: Home, options: Options, voice: Voice) -> Identity:
    """Enroll, or go on with an enrollment that was cut off.

    Raises:
        EdgeError: what is wrong; nothing that worked before is lost.
    """
    pasted = parse_pasted(options.token)
    server = _server(pasted, options)
    with agent_lock(home):
        old = _present(home)
        done = _finished(home, pasted.token, old)
        if done is not None:
            voice.say("this enrollment was over already")
            return done
        if is_enrolled(home) and not options.force:
            msg = f"{home.root} is enrolled already"
            raise AlreadyEnrolledError(msg, hint="use another --home, or --force to replace it")
        key, note = _begin(home, pasted.token, server, options, voice)
        identity = _enroll(home, pasted.token, key, note, old, options, voice)
        requested.forget(home.enrollment)
        return identity


def _enroll(
    home: Home,
    token: JoinToken,
    key: ec.EllipticCurvePrivateKey,
    note: EnrollmentNote,
    old: Identity | None,
    options: Options,
    voice: Voice,
) -> Identity:
    def tell(pending: EnrollPending) -> None:
        update = {"device": pending.device, "fingerprint": pending.fingerprint}
        requested.amend(home.enrollment, note.model_copy(update=update))
        voice.pending(pending)

    try:
        new = enroll(
            token,
            note.server,
            key,
            note.csr_pem,
            hardware=hardware(),
            waiting=Waiting(seconds=options.wait, tell=tell),
        )
    except NotAdmittedError as error:
        if error.code is Code.REJECTED:
            requested.forget(home.enrollment)  # the server will not have this key again
        raise
    what = change(old, new)
    dropped = drop(home, what)
    identity = save_identity(home, new)
    for line in in_words(what, old, dropped):
        voice.say(line)
    return identity


def make_key(path: Path) -> tuple[str, bool]:
    """Make a private key in a file, or read the one that is there.

    Returns:
        The SHA-256 of its public half, for ``argosy token create --key``; whether it is new.

    Raises:
        EdgeError: the file is there and is no key, or cannot be written.
    """
    if path.exists():
        return certificates.spki_sha256(read_key_file(path)), False
    key = certificates.new_key()
    try:
        with disk_errors(f"a key in {path}"):
            write_atomic(path, certificates.key_pem(key), mode=0o600)
    except FileNotFoundError as error:
        msg = f"there is no folder {path.parent}"
        raise UsageError(msg) from error
    return certificates.spki_sha256(key), True


def read_key_file(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a private key that its owner keeps.

    Raises:
        UsageError: it cannot be read.
        CertificateError: it is no key that can be used.
    """
    try:
        pem = read_limited(path, MAX_KEY_BYTES)
    except OSError as error:
        msg = f"the key in {path} cannot be read: {error.strerror or error}"
        raise UsageError(msg, hint="make one with `argosy-edge key FILE`") from error
    return certificates.read_key(pem, str(path))


def _server(pasted: Pasted, options: Options) -> str:
    given, beside = options.server, pasted.server
    if given is not None and beside is not None and given.rstrip("/") != beside.rstrip("/"):
        msg = f"--server says {given}, and what was pasted says {beside}"
        raise UsageError(msg, hint="give the token alone, or leave --server out")
    url = given or beside
    if url is None:
        msg = "it is not known which server to call"
        raise UsageError(msg, hint="give --server URL, or $ARGOSY_SERVER")
    return parse_server(url, insecure_http=options.insecure_http)


def _present(home: Home) -> Identity | None:
    try:
        return load_identity(home)
    except NotEnrolledError:
        return None


def _finished(home: Home, token: JoinToken, old: Identity | None) -> Identity | None:
    """The identity, if this very enrollment was cut off only after it was written."""
    note = requested.kept_note(home.enrollment, EnrollmentNote)
    if note is None or old is None or note.token_sha256 != _digest(token):
        return None
    kept = requested.kept(home.enrollment, EnrollmentNote)
    if kept is None or certificates.key_pem(kept[0]) != old.key.read_bytes():
        return None
    requested.forget(home.enrollment)
    return old


def _begin(
    home: Home, token: JoinToken, server: str, options: Options, voice: Voice
) -> tuple[ec.EllipticCurvePrivateKey, EnrollmentNote]:
    """The key of an enrollment with this token that was cut off, or a new one."""
    given = None if options.key is None else read_key_file(options.key)
    if options.key is not None and options.key.stat().st_mode & _OTHERS:
        voice.say(f"warning: others may read {options.key}; do: chmod 600 {options.key}")
    kept = requested.kept(home.enrollment, EnrollmentNote)
    if kept is not None and kept[1].token_sha256 == _digest(token):
        key, note = kept
        if given is None or certificates.key_pem(given) == certificates.key_pem(key):
            if note.server != server:
                note = note.model_copy(update={"server": server})
                requested.amend(home.enrollment, note)
            voice.say("going on with the enrollment that was begun before")
            return key, note
    if kept is not None:
        voice.say("an enrollment that was begun with another token or key is dropped")
    key = certificates.new_key() if given is None else given
    note = EnrollmentNote(
        csr_pem=certificates.request(key),
        began=dt.datetime.now(dt.UTC),
        token=token.id,
        token_sha256=_digest(token),
        server=server,
    )
    requested.keep(home.enrollment, key, note)
    return key, note


def _digest(token: JoinToken) -> str:
    return hashlib.sha256(str(token).encode()).hexdigest()
