"""The registry: models, their versions, aliases and files; classes of devices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.client.artifacts import Artifacts, digest_of
from orchestrator.client.resources import Resource, segment
from orchestrator.client.transport import Transport
from schemas.budget import DeviceClassSpec, DeviceClassView
from schemas.model import (
    AliasChange,
    AliasRequest,
    CollectReport,
    CollectRequest,
    Comparison,
    ModelVersionView,
    ModelView,
    RevokeRequest,
    VersionNote,
)
from schemas.optimize import OnnxSource
from schemas.place import Place
from schemas.signature import Signature


class Models(Resource):
    """The registry."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport)
        self._artifacts = Artifacts(transport)

    def list(self) -> Iterator[ModelView]:
        """Every model."""
        return self._pages("/v1/models", ModelView)

    def get(self, name: str) -> ModelView:
        """One model with the numbers of its versions."""
        return self._transport.get(f"/v1/models/{segment(name)}", ModelView)

    def version(self, name: str, version: int) -> ModelVersionView:
        """One version with its manifest."""
        return self._transport.get(_version(name, version), ModelVersionView)

    def annotate(self, name: str, version: int, note: VersionNote) -> ModelVersionView:
        """Replace the tags and the note of a version, both."""
        return self._transport.replace(f"{_version(name, version)}/note", ModelVersionView, note)

    def revoke(
        self,
        name: str,
        version: int,
        reason: str,
        *,
        rollback: bool = False,
        to: int | None = None,
    ) -> ModelVersionView:
        """Take a version back for good: no device is offered it, no alias stays on it.

        Args:
            name: of the model.
            version: its number.
            reason: why; it stays with the version.
            rollback: devices that serve it get another one.
            to: that one; None: each what it served before.
        """
        path = f"{_version(name, version)}/revoke"
        request = RevokeRequest(reason=reason, rollback=rollback, to=to)
        return self._transport.post(path, ModelVersionView, request)

    def compare(
        self,
        name: str,
        a: int,
        b: int,
        *,
        variant_a: str | None = None,
        variant_b: str | None = None,
        split: str | None = None,
    ) -> Comparison:
        """Two versions side by side, with the paired drop of accuracy from a to b.

        Args:
            name: of the model.
            a: the reference's number.
            b: the other's.
            variant_a: of a; None for its first.
            variant_b: of b; None for its first.
            split: on which both were measured; None for what the platform prefers.
        """
        query = {"a": a, "b": b, "variant_a": variant_a, "variant_b": variant_b, "split": split}
        return self._transport.get(f"/v1/models/{segment(name)}/compare", Comparison, query)

    def set_alias(
        self, name: str, alias: str, version: int, expected: int | None = None
    ) -> ModelView:
        """Move an alias to a version.

        Args:
            name: of the model.
            alias: the alias.
            version: where it goes.
            expected: the version that it must be at now; None: wherever it is.

        Raises:
            Conflict: it is elsewhere.
        """
        request = AliasRequest(version=version, expected=expected)
        return self._transport.replace(_alias(name, alias), ModelView, request)

    def remove_alias(self, name: str, alias: str) -> ModelView:
        """Take an alias away; the version stays."""
        view = self._transport.delete(_alias(name, alias), ModelView)
        return view if view is not None else self.get(name)

    def alias_history(self, name: str, alias: str) -> Iterator[AliasChange]:
        """Where an alias was, newest first."""
        return self._pages(f"{_alias(name, alias)}/history", AliasChange)

    def collect(self, request: CollectRequest | None = None) -> CollectReport:
        """Collect files that nothing needs; unless the request says otherwise, only tell."""
        path = "/v1/artifacts/collect"
        return self._transport.post(path, CollectReport, request or CollectRequest())

    def import_onnx(
        self,
        file: Path,
        *,
        signature: Signature | None = None,
        labels: Sequence[str] = (),
        data: Place | None = None,
        dynamic: bool = False,
    ) -> OnnxSource:
        """Upload an ONNX file that was made elsewhere.

        Args:
            file: on this machine.
            signature: of its input and output; None: what the file says.
            labels: of the classes.
            data: an npz with ``x`` and ``y`` that the cluster sees.
            dynamic: quantize weights alone.

        Returns:
            What a job needs to import it: ``JobSpec(name=…, onnx=…)``.
        """
        sha256, size = digest_of(file)
        source = OnnxSource(
            file=sha256,
            size=size,
            name=file.name,
            signature=signature,
            labels=tuple(labels),
            data=data,
            dynamic=dynamic,
        )
        self._artifacts.put(file)
        return source


class DeviceClasses(Resource):
    """Classes of devices, with their budgets."""

    def list(self) -> Iterator[DeviceClassView]:
        """Every class that was set, or that a device is of."""
        return self._pages("/v1/device-classes", DeviceClassView)

    def get(self, name: str) -> DeviceClassView:
        """One class."""
        return self._transport.get(_device_class(name), DeviceClassView)

    def set(self, name: str, spec: DeviceClassSpec) -> DeviceClassView:
        """Make a class, or replace what was said of it."""
        return self._transport.replace(_device_class(name), DeviceClassView, spec)

    def remove(self, name: str) -> None:
        """Forget a class.

        Raises:
            Conflict: devices are in it.
        """
        self._transport.delete(_device_class(name), DeviceClassView)


def _version(name: str, version: int) -> str:
    return f"/v1/models/{segment(name)}/versions/{segment(version)}"


def _alias(name: str, alias: str) -> str:
    return f"/v1/models/{segment(name)}/aliases/{segment(alias)}"


def _device_class(name: str) -> str:
    return f"/v1/device-classes/{segment(name)}"
