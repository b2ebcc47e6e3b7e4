"""People's tokens and the audit log, as resources."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from orchestrator.client.errors import AnswerError
from orchestrator.client.resources import Resource, segment
from orchestrator.client.transport import Params
from schemas.access import ApiTokenCreated, ApiTokenRequest, ApiTokenView, AuditEntry
from schemas.api import Page

_PAGE = 1000


class ApiTokens(Resource):
    """Tokens of people."""

    def create(self, request: ApiTokenRequest) -> ApiTokenCreated:
        """Make a token. Its text is in this answer and nowhere else."""
        return self._transport.post("/v1/api-tokens", ApiTokenCreated, request)

    def list(self) -> Iterator[ApiTokenView]:
        """Every token of people and agents, without its secret."""
        return self._pages("/v1/api-tokens", ApiTokenView)

    def revoke(self, token: str, *, force: bool = False) -> ApiTokenView:
        """End a token and its sessions. force: also the one that is used for this."""
        query = "?force=true" if force else ""
        return self._transport.post(f"/v1/api-tokens/{segment(token)}/revoke{query}", ApiTokenView)


class AuditLog(Resource):
    """What was done, and by whom."""

    def last(
        self,
        count: int,
        *,
        actor: str | None = None,
        action: str | None = None,
        since: datetime | None = None,
    ) -> tuple[AuditEntry, ...]:
        """The newest entries, oldest of them first; at most 1000."""
        params: Params = {
            "tail": count,
            "actor": actor,
            "action": action,
            "since": since.isoformat() if since else None,
        }
        return self._transport.get("/v1/audit", Page[AuditEntry], params).items

    def raw(self) -> Iterator[dict[str, Any]]:
        """Every entry from the first on, as the platform gives it: for ``audit_chain``."""
        after = "0"
        while True:
            params: Params = {"after": after, "limit": _PAGE}
            page = self._transport.get("/v1/audit", Page[dict[str, Any]], params)
            yield from page.items
            if page.next is None:
                return
            if not page.next.isdigit() or int(page.next) <= int(after):
                detail = "the audit log does not move past its cursor"
                raise AnswerError(detail)
            after = page.next
