"""The fleet and the join tokens that let devices into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.client.resources import Resource, segment
from orchestrator.client.transport import Params
from schemas.device import DeviceState, DeviceView
from schemas.device_why import DeviceWhy
from schemas.enroll import RevokeDevice, TokenCreated, TokenRequest, TokenView
from schemas.fleet import DeviceTags, TagChange, TagMany, TagsChanged


class Devices(Resource):
    """The fleet."""

    def list(
        self,
        states: Sequence[DeviceState] = (),
        *,
        model: str | None = None,
        version: int | None = None,
        where: str | None = None,
    ) -> Iterator[DeviceView]:
        """Every device, newest first.

        Args:
            states: only those in one of them; all when there are none.
            model: only those that serve this model.
            version: only those that serve this version of it.
            where: only those that this selector matches.
        """
        params: Params = {
            "state": tuple(states),
            "model": model,
            "version": version,
            "where": where,
        }
        return self._pages("/v1/devices", DeviceView, params)

    def get(self, device: str) -> DeviceView:
        """One device."""
        return self._transport.get(f"/v1/devices/{segment(device)}", DeviceView)

    def why(self, device: str) -> DeviceWhy:
        """Why a device serves what it serves, and not something newer."""
        return self._transport.get(f"/v1/devices/{segment(device)}/why", DeviceWhy)

    def tag(self, device: str, tags: Sequence[str]) -> DeviceView:
        """Give a device exactly these tags."""
        path = f"/v1/devices/{segment(device)}/tags"
        return self._transport.replace(path, DeviceView, DeviceTags(tags=tuple(tags)))

    def retag(self, device: str, add: Sequence[str] = (), remove: Sequence[str] = ()) -> DeviceView:
        """Give a device tags and take others away; the rest stays."""
        path = f"/v1/devices/{segment(device)}/tags"
        change = TagChange(add=tuple(add), remove=tuple(remove))
        return self._transport.patch(path, DeviceView, change)

    def retag_all(
        self,
        where: str,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        *,
        dry_run: bool = False,
        at_most: int | None = None,
    ) -> TagsChanged:
        """Give tags to every device that a selector matches, and take others away.

        Args:
            where: the selector.
            add: tags to be given.
            remove: tags to be taken away.
            dry_run: only count.
            at_most: refuse where more devices than that would change.

        Raises:
            Conflict: more would change.
        """
        asked = TagMany(
            where=where, add=tuple(add), remove=tuple(remove), dry_run=dry_run, at_most=at_most
        )
        return self._transport.patch("/v1/devices/tags", TagsChanged, asked)

    def approve(self, device: str) -> DeviceView:
        """Let a device in that waits for approval."""
        return self._act(device, "approve")

    def reject(self, device: str) -> DeviceView:
        """Turn a device away that waits for approval."""
        return self._act(device, "reject")

    def revoke(self, device: str, reason: str = "") -> DeviceView:
        """Shut a device out, for good; a repeat changes nothing."""
        path = f"/v1/devices/{segment(device)}/revoke"
        return self._transport.post(path, DeviceView, RevokeDevice(reason=reason))

    def clear_alert(self, device: str) -> DeviceView:
        """Say that a suspected clone was looked into."""
        return self._act(device, "clear-alert")

    def _act(self, device: str, action: str) -> DeviceView:
        return self._transport.post(f"/v1/devices/{segment(device)}/{action}", DeviceView)


class Tokens(Resource):
    """Join tokens."""

    def create(self, request: TokenRequest | None = None) -> TokenCreated:
        """Make a token. Its text is in this answer and nowhere else."""
        return self._transport.post("/v1/tokens", TokenCreated, request or TokenRequest())

    def list(self) -> Iterator[TokenView]:
        """Every token, newest first, without its secret."""
        return self._pages("/v1/tokens", TokenView)

    def revoke(self, token: str) -> TokenView:
        """Let nobody else in by a token; a repeat changes nothing."""
        return self._transport.post(f"/v1/tokens/{segment(token)}/revoke", TokenView)
