"""The artifact store in a bucket, with the same names as in a folder.

An upload is spooled to the local disk, where its digest is checked before a byte leaves:
so nothing wrong, too large or half is ever sent, and every call to the bucket can be
repeated. The leaves go first and the object last; an object appears whole or not at all, so
what is named is there. Reading goes by blocks of 4 MiB through a bounded cache, checked
by the leaves: a fleet that fetches the same file costs the bucket one read.
"""

from __future__ import annotations

import errno
import hashlib
import secrets
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3

from orchestrator.adapters.artifact_stream import (
    DIGEST,
    DIGEST_BYTES,
    LEAVES,
    check_chunk,
    check_digest,
    copy,
    cut,
    missing,
)
from orchestrator.adapters.block_cache import BlockCache
from orchestrator.adapters.known_artifacts import Known
from orchestrator.adapters.s3_client import PROBE, Found, S3Client
from orchestrator.artifact_url import Bucket
from orchestrator.domain.collect import Artifact
from orchestrator.errors import DigestMismatch, NotFound, Unavailable
from schemas.api import Stored
from schemas.transfer import CHUNK_BYTES, chunk_count, leaves_of

_BLOCK_CHUNKS = 64
_FRESH = timedelta(hours=1)
_LOCKS = 32


class S3ArtifactStore:
    """Artifacts in a bucket. Every method may be called from any thread.

    Args:
        place: the bucket, which no other platform shares.
        folder: of this machine, for uploads under way and for the cache.
    """

    def __init__(self, place: Bucket, folder: Path) -> None:
        session = boto3.session.Session()
        self._s3 = S3Client(place, session)
        self._brief = S3Client(place, session, patient=False)
        self._name = place.name
        self._temporary = folder / "tmp"
        self._temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._temporary.iterdir():
            left.unlink(missing_ok=True)
        self._cache = BlockCache(folder / "cache", place.cache_bytes)
        self._per_block = _BLOCK_CHUNKS if place.cache_bytes else 1
        self._changing = threading.Condition()
        self._storing: Counter[str] = Counter()
        self._deleting: set[str] = set()
        self._known = Known()
        self._fetching = [threading.Lock() for _ in range(_LOCKS)]

    def put(self, stream: Iterable[bytes], sha256: str, max_size: int) -> Stored:
        """Store a stream under its digest. Storing the same bytes again changes nothing.

        Args:
            stream: the bytes, in pieces of any size.
            sha256: what they must hash to, in hex.
            max_size: the most bytes that are taken.

        Raises:
            Invalid: ``sha256`` is not a digest.
            DigestMismatch: they hash to something else; nothing is kept.
            TooLarge: they are more than ``max_size``; nothing is kept.
            Unavailable: the local disk or the bucket is full, or it does not answer.
        """
        key = _key(sha256)
        temporary = self._temporary / secrets.token_hex(16)
        try:
            with temporary.open("xb") as file:
                size, leaves = copy(stream, file, sha256, max_size)
            with self._stored_by_us(sha256):
                found = self._head(sha256)
                fresh = found is not None and found.at > datetime.now(UTC) - _FRESH
                if not fresh:
                    # Also over an old one: it then counts as stored now, and is not collected.
                    self._s3.put(key + LEAVES, leaves)
                    self._s3.upload(key, temporary, sha256)
                self._known.learn(sha256, size, self._known.epoch)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise
            msg = "the disk that uploads pass through is full"
            raise Unavailable(msg, hint=f"make room below {self._temporary}") from error
        finally:
            temporary.unlink(missing_ok=True)
        return Stored(sha256=sha256, size=size, created=found is None)

    def exists(self, sha256: str, *, anew: bool = False) -> bool:
        """Whether it is stored; what is remembered is a minute old at most, or not used."""
        if anew:
            self._known.doubt(sha256)
        try:
            self.size(sha256)
        except NotFound:
            return False
        return True

    def size(self, sha256: str) -> int:
        """Its length in bytes; raises NotFound."""
        check_digest(sha256)
        size = self._known.size(sha256)
        if size is not None:
            return size
        epoch = self._known.epoch
        found = self._head(sha256)
        if found is None:
            raise missing(sha256)
        self._known.learn(sha256, found.size, epoch)
        return found.size

    def read_chunk(self, sha256: str, index: int) -> bytes:
        """Its chunk number ``index`` (64 KiB; the last may be shorter).

        Raises:
            NotFound: there is no such artifact, or it has fewer chunks.
            DigestMismatch: the stored bytes are damaged.
            Unavailable: the bucket does not answer.
        """
        size = self.size(sha256)
        check_chunk(sha256, size, index)
        block, within = divmod(index, self._per_block)
        length = min(CHUNK_BYTES, size - index * CHUNK_BYTES)
        name, offset = f"{sha256}.{block}", within * CHUNK_BYTES
        data = self._cache.read(name, offset, length)
        if data is None:
            # One reader fetches a block; those that want it too wait for that one.
            with self._fetching[hash(name) % _LOCKS]:
                data = self._cache.read(name, offset, length)
                if data is None:
                    whole = self._fetch(sha256, block, size)
                    self._cache.put(name, whole)
                    data = whole[offset : offset + length]
        return data

    def read_into(self, sha256: str, index: int, into: memoryview) -> int:
        """Read a chunk into 64 KiB of the caller's; its length. Raises as ``read_chunk``."""
        data = self.read_chunk(sha256, index)
        into[: len(data)] = data
        return len(data)

    def leaves(self, sha256: str) -> list[bytes]:
        """The SHA-256 digests of its chunks, 32 bytes each.

        They were written when it was stored; were they lost, they are computed again
        from bytes that still have the artifact's digest.

        Raises:
            NotFound: there is no such artifact.
            DigestMismatch: the stored bytes are damaged.
        """
        size = self.size(sha256)
        flat = self._known.leaves(sha256)
        if flat is None:
            try:
                flat = self._s3.get(_key(sha256) + LEAVES)
            except NotFound:
                flat = b""
            if len(flat) != chunk_count(size) * DIGEST_BYTES:
                flat = self._recompute(sha256, size)
            self._known.learn_leaves(sha256, flat)
        return cut(flat)

    def stored(self) -> Iterator[Artifact]:
        """Every artifact, in no order."""
        for found in self._s3.ls():
            sha256 = found.key[3:]
            if DIGEST.fullmatch(sha256) and found.key == _key(sha256):
                yield Artifact(sha256, found.size, found.at)

    def delete(self, sha256: str, before: datetime) -> bool:
        """Delete it, unless it was stored, or stored again, since ``before``.

        Answers whether it is gone by this call.
        """
        with self._changing:
            if self._storing[sha256] or sha256 in self._deleting:
                return False
            self._deleting.add(sha256)
        try:
            try:
                found = self._brief.head(_key(sha256))
            except NotFound:
                return False
            if found.at >= before:
                return False
            # Leaves without their object would be litter; an object without leaves heals.
            self._forget(sha256)
            self._brief.delete(_key(sha256) + LEAVES)
            self._brief.delete(_key(sha256))
            self._forget(sha256)
        finally:
            with self._changing:
                self._deleting.discard(sha256)
                self._changing.notify_all()
        return True

    def sweep(self, before: datetime) -> None:
        """Remove what killed uploads have left since before then."""
        self._s3.abort_uploads(before)
        keys, litter = set(), []
        for found in self._s3.ls():
            keys.add(found.key)
            if found.key.endswith(LEAVES) or found.key.startswith(PROBE):
                litter.append(found)
        for found in litter:
            if found.at < before and found.key.removesuffix(LEAVES) not in keys - {found.key}:
                self._s3.delete(found.key)

    @contextmanager
    def _stored_by_us(self, sha256: str) -> Iterator[None]:
        """While it is being stored it is not deleted, and the other way round."""
        with self._changing:
            # Counted before it waits, so that no further deletion begins meanwhile.
            self._storing[sha256] += 1
        try:
            with self._changing:
                self._changing.wait_for(lambda: sha256 not in self._deleting)
            yield
        finally:
            with self._changing:
                self._storing[sha256] -= 1
                if not self._storing[sha256]:
                    del self._storing[sha256]

    def _head(self, sha256: str) -> Found | None:
        try:
            return self._s3.head(_key(sha256))
        except NotFound:
            return None

    def _fetch(self, sha256: str, block: int, size: int) -> bytes:
        first = block * self._per_block
        start = first * CHUNK_BYTES
        length = min(self._per_block * CHUNK_BYTES, size - start)
        leaves = self.leaves(sha256)[first : first + self._per_block]
        try:
            data = self._s3.get(_key(sha256), start, length)
        except NotFound:
            self._forget(sha256)
            raise missing(sha256) from None
        cuts = (data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES))
        if leaves_of(cuts) != leaves:
            raise self._damaged(sha256)
        return data

    def _recompute(self, sha256: str, size: int) -> bytes:
        whole, step = hashlib.sha256(), _BLOCK_CHUNKS * CHUNK_BYTES
        leaves: list[bytes] = []
        for start in range(0, size, step):
            data = self._s3.get(_key(sha256), start, min(step, size - start))
            whole.update(data)
            leaves += leaves_of(data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES))
        if whole.hexdigest() != sha256:
            raise self._damaged(sha256)
        flat = b"".join(leaves)
        self._s3.put(_key(sha256) + LEAVES, flat)
        return flat

    def _damaged(self, sha256: str) -> DigestMismatch:
        msg = f"artifact {sha256} is damaged in {self._name}"
        return DigestMismatch(msg, hint="upload it again from where it was made")

    def _forget(self, sha256: str) -> None:
        self._known.forget(sha256)
        self._cache.drop(sha256)


def _key(sha256: str) -> str:
    return f"{check_digest(sha256)[:2]}/{sha256}"
