"""The trust metadata: looked at, fetched, uploaded."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.client.errors import AnswerError, NotFound
from orchestrator.client.resources import Resource, segment
from schemas.trust import MAX_METADATA_BYTES, MetadataUpload, TrustView


class Trust(Resource):
    """The TUF metadata of a platform."""

    def get(self) -> TrustView:
        """Roles, what is unsigned, and what somebody should look after."""
        return self._transport.get("/v1/trust", TrustView)

    def metadata(self, name: str) -> bytes | None:
        """A metadata file by its name, as in ``3.models.json``; None when there is none."""
        try:
            raw = self._transport.raw(f"/v1/trust/metadata/{segment(name)}")
        except NotFound:
            return None
        if len(raw) > MAX_METADATA_BYTES:
            detail = f"the metadata file {name} is larger than {MAX_METADATA_BYTES} bytes"
            raise AnswerError(detail)
        return raw

    def upload(self, files: Mapping[str, bytes]) -> TrustView:
        """Publish metadata that was signed here: all of it is taken, or nothing.

        Raises:
            Invalid, Conflict, Forbidden: it does not fit what is there, or is not signed as
                it must be.
        """
        request = MetadataUpload(files={name: raw.decode() for name, raw in files.items()})
        return self._transport.post("/v1/trust/metadata", TrustView, request)
