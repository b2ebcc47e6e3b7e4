"""A real S3 service over HTTP in a process of its own, for every test that needs a bucket."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import boto3
import httpx

from orchestrator.artifact_url import Bucket, parse

KEYS = {"AWS_ACCESS_KEY_ID": "ada", "AWS_SECRET_ACCESS_KEY": "secret"}
_START_SECONDS = 60


@dataclass(frozen=True)
class S3Server:
    """The service's address, and what a test asks of it behind the program's back."""

    endpoint: str

    @cached_property
    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="ada",
            aws_secret_access_key="secret",
        )

    def bucket(self, name: str) -> Bucket:
        """A new, empty bucket, as a setting would name it."""
        self.client.create_bucket(Bucket=name)
        place = parse(self.url(name), "test")
        assert isinstance(place, Bucket)
        return place

    def url(self, name: str) -> str:
        return f"s3://{name}/models?endpoint={self.endpoint}&cache_mb=64"

    def keys(self, name: str) -> list[str]:
        found = self.client.list_objects_v2(Bucket=name)
        return [item["Key"] for item in found.get("Contents", ())]


@contextlib.contextmanager
def running() -> Iterator[S3Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    process = subprocess.Popen(
        [sys.executable, "-c", server],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **KEYS},
    )
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _wait(process, endpoint)
        yield S3Server(endpoint)
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], endpoint: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            httpx.get(endpoint, timeout=5)
        except httpx.TransportError:
            assert process.poll() is None, "the S3 server ended"
            assert time.monotonic() < deadline, "the S3 server does not answer"
            time.sleep(0.05)
        else:
            return
