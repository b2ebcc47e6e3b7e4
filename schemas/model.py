"""The model package: one manifest, its variants, their files and figures."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from schemas.base import Authored, Line, PlainText, UtcTime, VersionNo, Wire
from schemas.budget import Budget
from schemas.dataset import Baseline
from schemas.ids import JobId, Name, Sha256
from schemas.lineage import Choice, Code, ModelRef
from schemas.measure import Accuracy, Benchmark, Golden, MeasuredVariant, ModelFile
from schemas.ops import Postprocess, Preprocess
from schemas.paired import Paired
from schemas.signature import Signature

# A manifest travels in one reply, which a broker passes on up to 1 MiB.
MAX_MANIFEST_BYTES = 512 * 1024
MAX_TAGS = 64


class Requires(Wire):
    """What a device must have to run a variant; empty tuples mean anything.

    isa: instruction sets, as ``Hardware.isa`` names them. ort: the oldest ONNX Runtime.
    """

    arch: tuple[str, ...] = ()
    isa: tuple[str, ...] = ()
    ram_mb: int | None = None
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    ort: Annotated[str, StringConstraints(pattern=r"^\d{1,4}(\.\d{1,6}){0,2}$")] | None = None


class Variant(Wire):
    """One runnable form of the model.

    Which one a device gets is decided by what it requires, by the budget of the device's
    class and by what was measured there; the order here, best first, decides where nothing
    was. sizes: compressed_bytes of the file by zstd. pruned: the share of channels that was
    taken out. float_nodes: operators that stayed in float though their kind is quantized.
    paired: against the FP32 variant, on the validation split. front: nothing else is better
    in every respect.
    """

    id: Name
    precision: Literal["fp32", "fp16", "int8"]
    scheme: str
    opset: int
    file: ModelFile
    compressed_bytes: int | None = None
    pruned: Annotated[float, Field(ge=0, lt=1)] = 0.0
    float_nodes: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    requires: Requires = Requires()
    accuracy: tuple[Accuracy, ...] = ()
    paired: Paired | None = None
    benchmarks: tuple[Benchmark, ...] = ()
    golden: Golden
    front: bool = True

    def accuracy_on(self, split: str) -> Accuracy | None:
        """What was measured on a split."""
        return next((a for a in self.accuracy if a.split == split), None)


class RejectedVariant(Wire):
    """A variant that was made and not kept, with the reason.

    size, p50_ms, paired: as far as they were measured.
    """

    id: Name
    reason: Line
    size: int | None = None
    p50_ms: float | None = None
    paired: Paired | None = None


class ExportedFile(Wire):
    """The model for another runtime. parity_max_abs: against torch, on ``samples`` inputs."""

    format: Literal["torch-export", "litert"]
    file: ModelFile
    parity_max_abs: float
    samples: int


class Lineage(Wire):
    """Where a version came from.

    code_sha256: of the packed code folder, or of the file of a task that is installed.
    parameters: what a sweep chose. parent: the version whose weights were the beginning.
    source: the name of a file that was made elsewhere, source_sha256: its digest.
    """

    job: JobId | None = None
    attempt: int | None = None
    task: str | None = None
    code_sha256: Sha256 | None = None
    code: Code | None = None
    parameters: dict[str, Choice] = Field(default_factory=dict)
    dataset_sha256: Sha256 | None = None
    seed: int | None = None
    epochs: int | None = None
    parent: ModelRef | None = None
    source: str | None = None
    source_sha256: Sha256 | None = None
    parity_max_abs: float | None = None
    environment: dict[str, str] = Field(default_factory=dict)
    passes: tuple[Pass, ...] = ()


class Pass(Wire):
    """One step from trained weights to a variant, with hashes of both sides.

    variant: that it led to; None where it led to several.
    """

    name: str
    parameters: dict[str, str | int | float | bool] = Field(default_factory=dict)
    input_sha256: Sha256
    output_sha256: Sha256
    variant: Name | None = None


class Manifest(Wire):
    """A model version, whole. Immutable; its JSON is a signed target.

    budgets: per device class, that the search was held to. exports: for other runtimes.
    weights: the trained net's state, from which a later job can go on; no device needs it.
    """

    schema_version: Literal[1] = 1
    model: Name
    signature: Signature
    labels: Annotated[tuple[str, ...], Field(max_length=100_000)] = ()
    preprocess: Annotated[tuple[Preprocess, ...], Field(max_length=16)] = ()
    postprocess: Annotated[tuple[Postprocess, ...], Field(max_length=16)] = ()
    variants: Annotated[tuple[Variant, ...], Field(min_length=1, max_length=64)]
    rejected: Annotated[tuple[RejectedVariant, ...], Field(max_length=200)] = ()
    budgets: Annotated[dict[Name, Budget], Field(max_length=32)] = Field(default_factory=dict)
    exports: Annotated[tuple[ExportedFile, ...], Field(max_length=8)] = ()
    weights: ModelFile | None = None
    lineage: Lineage = Lineage()
    baseline: Baseline | None = None

    def variant(self, variant_id: str) -> Variant | None:
        """The variant of that id, or None."""
        return next((v for v in self.variants if v.id == variant_id), None)

    def files(self) -> tuple[ModelFile, ...]:
        """Every file the version needs, those that no device needs included."""
        served = [f for v in self.variants for f in (v.file, v.golden.file)]
        outcomes = [a.outcomes for v in self.variants for a in v.accuracy if a.outcomes]
        other = [e.file for e in self.exports] + ([self.weights] if self.weights else [])
        return (*served, *outcomes, *other)


class VersionNote(Authored):
    """What people write on a version: tags are short and unique, a note is free text."""

    tags: Annotated[tuple[Name, ...], Field(max_length=MAX_TAGS)] = ()
    note: Annotated[PlainText, StringConstraints(max_length=10_000)] = ""

    @field_validator("tags")
    @classmethod
    def _unique(cls, tags: tuple[Name, ...]) -> tuple[Name, ...]:
        if len(set(tags)) < len(tags):
            msg = "tags repeat"
            raise ValueError(msg)
        return tags


class ModelVersionView(Wire):
    """A registered version, as the API shows it.

    measured: on devices, by class. purged: its files were collected; only the record is left.
    """

    model: Name
    version: int
    manifest: Manifest
    manifest_sha256: Sha256
    aliases: tuple[Name, ...] = ()
    revoked: bool = False
    revoked_reason: str | None = None
    purged: bool = False
    tags: tuple[Name, ...] = ()
    note: str = ""
    measured: tuple[MeasuredVariant, ...] = ()
    created_at: UtcTime


class ModelView(Wire):
    """A model and the numbers of its versions, newest first."""

    name: Name
    versions: tuple[int, ...]
    aliases: dict[Name, int] = Field(default_factory=dict)


class AliasRequest(Authored):
    """Move an alias. expected: the version it must be at now; None: whatever it is at."""

    version: VersionNo
    expected: VersionNo | None = None


class RevokeRequest(Authored):
    """Take a version back: it is offered to no device any more, and no alias stays on it.

    rollback: devices that serve it get another one, by whatever rollout they got it. to: that
    version; None: each what it served before.
    """

    reason: Annotated[PlainText, StringConstraints(min_length=1, max_length=2000)]
    rollback: bool = False
    to: VersionNo | None = None

    @model_validator(mode="after")
    def _to_of_rollback(self) -> Self:
        if self.to is not None and not self.rollback:
            msg = "the version to go back to belongs to a rollback, which was not asked for"
            raise ValueError(msg)
        return self


class ComparedVariant(Wire):
    """One side of a comparison."""

    model: Name
    version: VersionNo
    variant: Variant
    measured: tuple[MeasuredVariant, ...] = ()


class Comparison(Wire):
    """Two versions side by side. paired: b against a on the same samples of ``split``.

    unpaired: why there is no paired figure, in words.
    """

    a: ComparedVariant
    b: ComparedVariant
    split: str
    paired: Paired | None = None
    unpaired: str | None = None


class CollectRequest(Authored):
    """Collect files that nothing needs. keep_last: versions per model. dry_run: only say."""

    dry_run: bool = True
    keep_last: Annotated[int, Field(ge=1, le=10_000)] = 3
    older_than_days: Annotated[float, Field(ge=0, le=36_500)] = 30


class CollectReport(Wire):
    """What was, or would be, collected. purged: versions as ``name@number``."""

    dry_run: bool
    purged: tuple[str, ...]
    artifacts: int
    bytes: int


class AliasChange(Wire):
    """One move of an alias. version: None when it was removed. by: a job, or an operator."""

    alias: Name
    version: VersionNo | None
    before: VersionNo | None = None
    by: str
    at: UtcTime


class VersionNumber(Wire):
    """The answer to a registration."""

    model: Name
    version: int
    created: bool


Lineage.model_rebuild()
