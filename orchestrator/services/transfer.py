"""Answers what devices need: manifests, chunk digests, chunks."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.services.models import ModelService
from orchestrator.services.ports import Artifacts
from schemas.transfer import Chunk, Need, Reply, chunk_count, encode_chunk, tag_of


class TransferService:
    """The server's side of the transfer; it keeps no state about any device.

    Args:
        models: the signed manifests, and which files devices may fetch.
        artifacts: the files.
    """

    def __init__(self, models: ModelService, artifacts: Artifacts) -> None:
        self._models = models
        self._artifacts = artifacts

    def reply(self, need: Need) -> Reply | None:
        """The answer to a request for a manifest or for leaves, or why there is none.

        None for chunks that exist: those are answered by ``chunks``.
        """
        if need.kind == "manifest":
            return self._manifest(need)
        # Only what a version that stands has for devices: neither code of jobs, nor what was
        # revoked since the device got its manifest.
        if not (self._models.serves(need.sha256) and self._artifacts.exists(need.sha256)):
            return _refused(need, "no version that is not revoked has such a file")
        if need.kind == "leaves":
            leaves = self._artifacts.leaves(need.sha256)
            return Reply(
                kind="leaves",
                sha256=need.sha256,
                leaves=b"".join(leaves).hex(),
                size=self._artifacts.size(need.sha256),
            )
        count = chunk_count(self._artifacts.size(need.sha256))
        if any(end > count for _, end in need.ranges):
            return _refused(need, f"the file has {count} chunks")
        return None

    def chunks(self, need: Need) -> Iterator[bytes]:
        """The messages that answer a request for chunks, in the order of its ranges."""
        tag = tag_of(need.sha256)
        for start, end in need.ranges:
            for index in range(start, end):
                data = self._artifacts.read_chunk(need.sha256, index)
                yield encode_chunk(Chunk(need.batch, index, tag, data))

    def _manifest(self, need: Need) -> Reply:
        found = self._models.signed_manifest(need.sha256)
        if found is None:
            return _refused(
                need, "there is no such manifest, or its version was revoked or collected"
            )
        manifest, signed = found
        return Reply(kind="manifest", sha256=need.sha256, manifest=manifest, signed=signed)


def _refused(need: Need, why: str) -> Reply:
    return Reply(kind=need.kind, sha256=need.sha256, error=why)
