"""The trust metadata, kept to what the registry says."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.errors import NotFound
from orchestrator.services.ports import Signer, Standing, UnitOfWork
from schemas.trust import TrustView


class TrustService:
    """What the control loop and the API do with the trust metadata.

    Args:
        uow: opens transactions; none is open while something is signed.
        signer: the metadata and its keys.
    """

    def __init__(self, uow: UnitOfWork, signer: Signer) -> None:
        self._uow = uow
        self._signer = signer

    def tick(self) -> None:
        """Sign what is new, take out what was revoked or purged, renew what expires."""
        self._signer.publish(self._standing())

    def view(self) -> TrustView:
        """Roles, what is unsigned, and what somebody should look after."""
        return self._signer.status()

    def root(self, sha256: str | None = None) -> str:
        """The newest root, or the one of that SHA-256.

        Raises:
            NotFound: no root has that hash.
        """
        found = self._signer.root_json if sha256 is None else self._signer.root_of(sha256)
        if found is None:
            msg = f"no root of this platform has the SHA-256 {sha256}"
            raise NotFound(msg, hint="make a new join token: argosy token create")
        return found

    def metadata(self, name: str) -> bytes | None:
        """A metadata file by its name; None when there is none."""
        return self._signer.metadata(name)

    def upload(self, files: Mapping[str, str]) -> TrustView:
        """Take metadata that was signed elsewhere, all of it or nothing.

        Args:
            files: the text of each file by its name.

        Raises:
            Invalid, Conflict, Forbidden: it is malformed, does not fit what is there, or is
                not signed as it must be.
        """
        raw = {name: text.encode() for name, text in files.items()}
        self._signer.accept(raw, self._standing())
        with self._uow() as tx:
            tx.audit.add("trust.sign", self._signer.root_sha256(), {"files": sorted(files)})
        self._signer.publish(self._standing())
        return self._signer.status()

    def _standing(self) -> list[Standing]:
        with self._uow.read() as tx:
            return list(tx.models.standing())
