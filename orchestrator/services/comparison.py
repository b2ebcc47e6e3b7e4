"""Two versions of a model side by side."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.errors import DigestMismatch, Invalid, NotFound
from orchestrator.services import outcomes
from orchestrator.services.ports import Artifacts, Transaction, UnitOfWork
from orchestrator.services.records import VersionRecord
from orchestrator.services.versions import found
from schemas import paired
from schemas.errors import FieldError
from schemas.measure import Accuracy
from schemas.model import ComparedVariant, Comparison, Manifest, Variant
from schemas.paired import Paired

METRIC = "accuracy"
TWO_SIDED = 0.975
"""So that the interval is one of 95 %."""


class Unpaired(Exception):  # noqa: N818 - an answer, not a failure
    """Why two variants cannot be compared on the same samples, in words."""


@dataclass(frozen=True, slots=True)
class _Side:
    record: VersionRecord
    variant: Variant
    shown: ComparedVariant

    def __str__(self) -> str:
        return f"{self.record.model}@{self.record.version} {self.variant.id}"


class ComparisonService:
    """Compares versions.

    Args:
        uow: opens transactions.
        artifacts: where the outcomes are.
    """

    def __init__(self, uow: UnitOfWork, artifacts: Artifacts) -> None:
        self._uow = uow
        self._artifacts = artifacts

    def compare(
        self,
        name: str,
        a: int,
        b: int,
        *,
        variant_a: str | None = None,
        variant_b: str | None = None,
        split: str = "test",
    ) -> Comparison:
        """Version b held against version a; the first variant of each, unless named.

        Revoked and purged versions are compared as far as what is left allows.

        Raises:
            NotFound: there is no such version.
            Invalid: it has no such variant.
        """
        with self._uow.read() as tx:
            left = _side(tx, name, a, variant_a, "variant_a")
            right = _side(tx, name, b, variant_b, "variant_b")
        result = Comparison(a=left.shown, b=right.shown, split=split)
        try:
            figures = self._paired(left, right, split)
        except Unpaired as why:
            return result.model_copy(update={"unpaired": str(why)})
        return result.model_copy(update={"paired": figures})

    def _paired(self, left: _Side, right: _Side, split: str) -> Paired:
        first, second = _accuracy(left, split), _accuracy(right, split)
        if first.set_sha256 != second.set_sha256:
            msg = (
                f"they were measured on different samples: set {first.set_sha256[:12]} "
                f"({first.n}) and set {second.set_sha256[:12]} ({second.n})"
            )
            raise Unpaired(msg)
        reference, candidate = self._outcomes(left, first), self._outcomes(right, second)
        try:
            return paired.compare(reference, candidate, TWO_SIDED)
        except ValueError as error:
            raise Unpaired(str(error)) from error

    def _outcomes(self, side: _Side, accuracy: Accuracy) -> paired.Outcomes:
        if accuracy.outcomes is not None and side.record.purged:
            msg = f"the files of {side.record.model}@{side.record.version} were collected"
            raise Unpaired(msg)
        try:
            return outcomes.read(accuracy, self._artifacts)
        except (ValueError, NotFound, DigestMismatch) as error:
            msg = f"of {side} it is not known which samples were right: {error}"
            raise Unpaired(msg) from error


def _side(tx: Transaction, name: str, version: int, wanted: str | None, field: str) -> _Side:
    record = found(tx, name, version)
    manifest = Manifest.model_validate_json(record.manifest)
    variant = manifest.variants[0] if wanted is None else manifest.variant(wanted)
    if variant is None:
        there = ", ".join(one.id for one in manifest.variants)
        text = f"{name}@{version} has no variant {wanted!r}; it has {there}"
        msg = f"{field}: {text}"
        raise Invalid(msg, fields=[FieldError(field=field, message=text)])
    measured = [m for m in tx.measured.of_version(name, version) if m.variant == variant.id]
    shown = ComparedVariant(model=name, version=version, variant=variant, measured=tuple(measured))
    return _Side(record, variant, shown)


def _accuracy(side: _Side, split: str) -> Accuracy:
    measured = [one for one in side.variant.accuracy if one.metric == METRIC]
    chosen = next((one for one in measured if one.split == split), None)
    if chosen is None:
        there = ", ".join(one.split for one in measured) or "no split"
        msg = f"{side} has no accuracy on the {split} split; it was measured on {there}"
        raise Unpaired(msg)
    return chosen
