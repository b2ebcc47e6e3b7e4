"""A bucket through boto3: its few calls, and what went wrong in words.

boto3 is Amazon's own client: retries with backoff, every kind of credentials and every
checksum are its business. Only an extra installs it: ``artifact_place`` imports this module
where a bucket is asked for, and nothing else does.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from orchestrator.artifact_url import Bucket
from orchestrator.errors import NotFound, Unavailable

MULTIPART_BYTES = 64 * 1024**2
_PART_BYTES = 16 * 1024**2
_READS = 2  # the client repeats requests, but not the reading of an answer that broke off
_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_NO_BUCKET = frozenset({"NoSuchBucket"})
_REFUSED = frozenset(
    {
        "401",
        "403",
        "AccessDenied",
        "AllAccessDisabled",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
    }
)
_FULL = frozenset({"507", "XMinioStorageFull", "QuotaExceeded", "InsufficientStorage"})
_KEYS_HINT = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys that may list, read, write and "
    "delete there"
)
PROBE = "probe-"
"""What the objects begin with by which a bucket is tried."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object. at: when it was written, in UTC."""

    key: str
    size: int
    at: datetime


class S3Client:
    """The objects of one bucket below one prefix; keys here are relative to it.

    Args:
        place: which bucket.
        session: boto3's, which is slow to make; clients may share one.
        patient: try up to 5 times, with backoff; else once and not for long, as befits
            a call that others wait for.
    """

    def __init__(
        self, place: Bucket, session: boto3.session.Session | None = None, *, patient: bool = True
    ) -> None:
        self._place = place
        self._bucket = place.bucket
        self._prefix = f"{place.prefix}/" if place.prefix else ""
        config = Config(
            connect_timeout=3,
            read_timeout=30 if patient else 4,
            retries={"mode": "standard", "total_max_attempts": 5 if patient else 1},
            max_pool_connections=16,
            # Services other than Amazon's know neither its checksums nor a name per bucket.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if place.endpoint else "auto"},
        )
        with self._told():
            self._s3: Any = (session or boto3.session.Session()).client(
                "s3",
                endpoint_url=place.endpoint,
                region_name=place.region or ("us-east-1" if place.endpoint else None),
                config=config,
            )

    def probe(self) -> None:
        """See that objects can be listed, written, read and deleted.

        Raises:
            Unavailable: they cannot; the message says why.
        """
        key, data = PROBE + secrets.token_hex(8), secrets.token_bytes(16)
        next(self.ls(), None)
        self.put(key, data)
        same = self.get(key) == data
        self.delete(key)
        if not same:
            msg = f"{self._place.name} gives back other bytes than were written"
            raise Unavailable(msg)

    def head(self, key: str) -> Found:
        """What there is under a key; raises NotFound."""
        with self._told(key):
            answer = self._s3.head_object(Bucket=self._bucket, Key=self._prefix + key)
        return Found(key, int(answer["ContentLength"]), answer["LastModified"])

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """An object's bytes, or some of them by a range; raises NotFound."""
        span = {} if length is None else {"Range": f"bytes={start}-{start + length - 1}"}
        where = {"Bucket": self._bucket, "Key": self._prefix + key, **span}
        with self._told(key):
            for _ in range(_READS - 1):
                with contextlib.suppress(BotoCoreError):
                    return self._read(where)
            return self._read(where)

    def _read(self, where: dict[str, str]) -> bytes:
        answer = self._s3.get_object(**where)
        data: bytes = answer["Body"].read()
        return data

    def put(self, key: str, data: bytes) -> None:
        """Write a small object."""
        with self._told(key):
            self._s3.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data)

    def upload(self, key: str, path: Path, sha256: str) -> None:
        """Write a file as an object, which appears whole or not at all.

        Up to 64 MiB the service itself checks the SHA-256; beyond, that of every part.
        """
        where = {"Bucket": self._bucket, "Key": self._prefix + key}
        with self._told(key):
            if path.stat().st_size <= MULTIPART_BYTES:
                checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
                with path.open("rb") as file:
                    self._s3.put_object(Body=file, ChecksumSHA256=checksum, **where)
                return
            config = TransferConfig(
                multipart_threshold=MULTIPART_BYTES,
                multipart_chunksize=_PART_BYTES,
                max_concurrency=4,
            )
            extra = {"ChecksumAlgorithm": "SHA256"}
            self._s3.upload_file(Filename=str(path), ExtraArgs=extra, Config=config, **where)

    def delete(self, key: str) -> None:
        """Remove an object; that there is none is no fault."""
        with self._told(key):
            self._s3.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    def ls(self) -> Iterator[Found]:
        """Every object, in the order of the keys."""
        pages = self._s3.get_paginator("list_objects_v2")
        with self._told():
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
                for item in page.get("Contents", ()):
                    key = item["Key"].removeprefix(self._prefix)
                    yield Found(key, int(item["Size"]), item["LastModified"])

    def abort_uploads(self, before: datetime) -> None:
        """Give up the parts of uploads that were begun before then and never completed."""
        pages = self._s3.get_paginator("list_multipart_uploads")
        with self._told():
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
                for item in page.get("Uploads", ()):
                    if item["Initiated"] < before:
                        self._s3.abort_multipart_upload(
                            Bucket=self._bucket, Key=item["Key"], UploadId=item["UploadId"]
                        )

    @contextlib.contextmanager
    def _told(self, key: str = "") -> Iterator[None]:
        """Errors of boto3 as ours, in one line."""
        try:
            yield
        except ClientError as error:
            raise self._answered(error, key) from error
        except S3UploadFailedError as error:
            cause = error.__context__
            if isinstance(cause, ClientError):
                raise self._answered(cause, key) from error
            raise self._unreachable(error) from error
        except NoCredentialsError as error:
            msg = f"there are no credentials for {self._place.name}"
            raise Unavailable(msg, hint=_KEYS_HINT) from error
        except BotoCoreError as error:
            raise self._unreachable(error) from error

    def _answered(self, error: Any, key: str) -> NotFound | Unavailable:
        code = str(error.response.get("Error", {}).get("Code", "")) or "no code"
        name = self._place.name
        if code in _NO_BUCKET or (code in _MISSING and not key):
            msg = f"there is no bucket {self._bucket!r}"
            return Unavailable(msg, hint="make it first, or correct ARGOSY_ARTIFACTS")
        if code in _MISSING:
            return NotFound(f"there is no {key} in {name}")
        if code in _REFUSED:
            return Unavailable(f"{name} refuses these credentials: {code}", hint=_KEYS_HINT)
        if code in _FULL:
            return Unavailable(f"{name} is full: {code}", hint="make room there")
        said = str(error.response.get("Error", {}).get("Message", "")).partition("\n")[0][:200]
        return Unavailable(f"{name} answers with {code}: {said}")

    def _unreachable(self, error: Exception) -> Unavailable:
        said = str(error).partition("\n")[0][:300]
        hint = "check the endpoint and the region in ARGOSY_ARTIFACTS, and that it is reachable"
        return Unavailable(f"{self._place.name} does not answer: {said}", hint=hint)
