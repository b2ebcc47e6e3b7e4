"""Answers what devices ask before they fetch: metadata, manifests, chunk digests, the ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.errors import Unavailable
from orchestrator.services.models import ModelService
from orchestrator.services.ports import Artifacts, Broadcasting, Links, Patches, Signer
from schemas.transfer import Ask, Reply, Way
from schemas.trust import MAX_METADATA_BYTES, MetadataAnswer, MetadataAsk


class TransferService:
    """The server's side of the transfer but for the chunks.

    Args:
        models: the manifests, and which files devices may fetch.
        artifacts: the files.
        signer: the trust metadata.
        serves: whether devices may fetch a file; by default those of versions.
        patches: offers patches; None offers none, and so on.
        links: offers HTTPS.
        broadcasts: offers rounds, and counts who asks.
    """

    def __init__(
        self,
        models: ModelService,
        artifacts: Artifacts,
        signer: Signer,
        *,
        serves: Callable[[str], bool] | None = None,
        patches: Patches | None = None,
        links: Links | None = None,
        broadcasts: Broadcasting | None = None,
    ) -> None:
        self._models = models
        self._artifacts = artifacts
        self._signer = signer
        self._serves = serves or models.serves
        self._patches = patches
        self._links = links
        self._broadcasts = broadcasts

    def metadata(self, ask: MetadataAsk) -> MetadataAnswer:
        """A metadata file; neither text nor error when there is none of that name."""
        try:
            raw = self._signer.metadata(ask.name)
        except Unavailable as error:
            return MetadataAnswer(name=ask.name, error=error.detail)
        if raw is not None and len(raw) > MAX_METADATA_BYTES:
            return MetadataAnswer(name=ask.name, error="the file is too large to be sent")
        return MetadataAnswer(name=ask.name, text=None if raw is None else raw.decode())

    def reply(self, device: str, ask: Ask) -> Reply:
        """The manifest, or the leaves and the ways to the file, or why there are none.

        Raises:
            Unavailable: the database or the store does not answer.
        """
        return self._manifest(ask) if ask.kind == "manifest" else self._leaves(device, ask)

    def _manifest(self, ask: Ask) -> Reply:
        manifest = self._models.manifest(ask.sha256)
        if manifest is None:
            why = "there is no such manifest, or its version was revoked or collected"
            return Reply(kind="manifest", sha256=ask.sha256, error=why)
        return Reply(kind="manifest", sha256=ask.sha256, manifest=manifest)

    def _leaves(self, device: str, ask: Ask) -> Reply:
        # Only what a version that stands has for devices: neither code of jobs, nor what was
        # revoked since the device got its manifest.
        if not (self._serves(ask.sha256) and self._artifacts.exists(ask.sha256)):
            why = "no version that is not revoked has such a file"
            return Reply(kind="leaves", sha256=ask.sha256, error=why)
        size = self._artifacts.size(ask.sha256)
        return Reply(
            kind="leaves",
            sha256=ask.sha256,
            leaves=b"".join(self._artifacts.leaves(ask.sha256)).hex(),
            size=size,
            **self._ways(device, ask, size),
        )

    def _ways(self, device: str, ask: Ask, size: int) -> dict[str, Any]:
        """What is offered of what the device takes; who gets it otherwise waits for no round."""
        ways: dict[str, Any] = {}
        if self._patches is not None and Way.PATCH in ask.takes and ask.held:
            patch = self._patches.offer(ask.sha256, ask.held)
            if isinstance(patch, int | float):
                ways["retry_in"] = patch
            elif patch is not None:
                ways["patch"] = patch
        if self._links is not None and Way.HTTPS in ask.takes:
            ways["https"] = self._links.offer(device, ask.sha256)
        if self._broadcasts is not None and Way.BROADCAST in ask.takes and not any(ways.values()):
            ways["broadcast"] = self._broadcasts.asked(device, ask.sha256, size)
        return ways
