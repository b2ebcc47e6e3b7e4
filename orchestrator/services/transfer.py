"""Answers what devices need: metadata, manifests, chunk digests, chunks."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.errors import Unavailable
from orchestrator.services.models import ModelService
from orchestrator.services.ports import Artifacts, Signer
from schemas.transfer import Ask, Chunk, Need, Reply, chunk_count, encode_chunk, tag_of
from schemas.trust import MAX_METADATA_BYTES, MetadataAnswer, MetadataAsk


class TransferService:
    """The server's side of the transfer; it keeps no state about any device.

    Args:
        models: the manifests, and which files devices may fetch.
        artifacts: the files.
        signer: the trust metadata.
    """

    def __init__(self, models: ModelService, artifacts: Artifacts, signer: Signer) -> None:
        self._models = models
        self._artifacts = artifacts
        self._signer = signer

    def metadata(self, ask: MetadataAsk) -> MetadataAnswer:
        """A metadata file; neither text nor error when there is none of that name."""
        try:
            raw = self._signer.metadata(ask.name)
        except Unavailable as error:
            return MetadataAnswer(name=ask.name, error=error.detail)
        if raw is not None and len(raw) > MAX_METADATA_BYTES:
            return MetadataAnswer(name=ask.name, error="the file is too large to be sent")
        return MetadataAnswer(name=ask.name, text=None if raw is None else raw.decode())

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

    def answer(self, device: str, ask: Ask) -> Reply:  # noqa: ARG002 - the ways will need it
        """The manifest or the leaves that a device asks for, or why there are none."""
        reply = self.reply(Need(kind=ask.kind, sha256=ask.sha256))
        return reply or _refused(Need(kind=ask.kind, sha256=ask.sha256), "there is no answer")

    def chunks(self, need: Need) -> Iterator[bytes]:
        """The messages that answer a request for chunks, in the order of its ranges."""
        tag = tag_of(need.sha256)
        for start, end in need.ranges:
            for index in range(start, end):
                data = self._artifacts.read_chunk(need.sha256, index)
                yield encode_chunk(Chunk(need.batch, index, tag, data))

    def _manifest(self, need: Need) -> Reply:
        manifest = self._models.manifest(need.sha256)
        if manifest is None:
            return _refused(
                need, "there is no such manifest, or its version was revoked or collected"
            )
        return Reply(kind="manifest", sha256=need.sha256, manifest=manifest)


def _refused(need: Need, why: str) -> Reply:
    return Reply(kind=need.kind, sha256=need.sha256, error=why)
