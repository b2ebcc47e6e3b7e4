"""The certificate authorities: looked at, rotated, retired."""

from __future__ import annotations

from orchestrator.client.resources import Resource
from schemas.authority import AuthorityView, RetireRequest


class CertificateAuthority(Resource):
    """Who vouches for devices and for the server."""

    def get(self) -> AuthorityView:
        """The roots that are trusted, and how many devices know which."""
        return self._transport.get("/v1/authority", AuthorityView)

    def rotate(self) -> AuthorityView:
        """Make a new root; the old one is trusted until it is retired.

        Raises:
            Conflict: a rotation is under way already.
        """
        return self._transport.post("/v1/authority/rotate", AuthorityView)

    def retire(self, *, force: bool = False) -> AuthorityView:
        """Trust the old root no more. force: although devices are lost by it.

        Raises:
            Conflict: there is no old root, or devices would be lost.
        """
        return self._transport.post(
            "/v1/authority/retire", AuthorityView, RetireRequest(force=force)
        )
