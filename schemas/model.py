"""The model package: one manifest, its variants, their files and figures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from schemas.base import UtcTime, Wire
from schemas.dataset import Baseline
from schemas.ids import JobId, Name, Sha256
from schemas.jobfile import Choice, Code

# Both are bounded by what a broker passes on at once (1 MiB): a manifest, and the chunk
# digests of a file, each travel in one reply.
MAX_FILE_BYTES = 512 * 1024**2
MAX_MANIFEST_BYTES = 512 * 1024

DType = Literal["uint8", "int8", "int32", "int64", "float16", "float32", "float64", "bool"]


class TensorSpec(Wire):
    """A named tensor. ``shape`` holds -1 for the batch; ``range`` is inclusive."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    dtype: DType
    shape: Annotated[tuple[int, ...], Field(max_length=8)]
    layout: Annotated[str, StringConstraints(max_length=16)] | None = None
    range: tuple[float, float] | None = None
    meaning: Annotated[str, StringConstraints(max_length=500)] | None = None


class Signature(Wire):
    """What goes in and what comes out."""

    inputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1, max_length=32)]
    outputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1, max_length=32)]


class ModelFile(Wire):
    """A file of a variant.

    sha256: of the whole. leaves_sha256: of the concatenated SHA-256 digests of its
    64 KiB chunks, so that a device can check each chunk as it arrives.
    """

    path: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    size: Annotated[int, Field(gt=0, le=MAX_FILE_BYTES)]
    sha256: Sha256
    leaves_sha256: Sha256


class Requires(Wire):
    """What a device must have to run a variant; empty tuples mean anything."""

    arch: tuple[str, ...] = ()
    ram_mb: int | None = None
    providers: tuple[str, ...] = ("CPUExecutionProvider",)


class Accuracy(Wire):
    """A metric over ``n`` labelled samples of the split with hash ``set_sha256``.

    low and high bound the 95 % Wilson interval.
    """

    metric: str = "accuracy"
    value: Annotated[float, Field(ge=0, le=1)]
    n: Annotated[int, Field(ge=1)]
    low: Annotated[float, Field(ge=0, le=1)]
    high: Annotated[float, Field(ge=0, le=1)]
    split: str
    set_sha256: Sha256


class Benchmark(Wire):
    """Latency in milliseconds of single inferences, measured where ``host`` says."""

    host: str
    provider: str
    batch: int
    runs: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    load_ms: float
    rss_mb: float | None = None


class Golden(Wire):
    """Inputs with the outputs they must give, as an npz artifact.

    The archive holds ``in_<i>``/``out_<i>`` arrays in the signature's order.
    tolerance: the largest absolute difference allowed on an output.
    """

    file: ModelFile
    samples: int
    tolerance: Annotated[float, Field(gt=0)]


class Variant(Wire):
    """One runnable form of the model. The first that fits a device is offered."""

    id: Name
    precision: Literal["fp32", "fp16", "int8"]
    scheme: str
    opset: int
    file: ModelFile
    requires: Requires = Requires()
    accuracy: tuple[Accuracy, ...]
    benchmarks: tuple[Benchmark, ...] = ()
    golden: Golden


class RejectedVariant(Wire):
    """A variant that was made and not kept, with the reason."""

    id: Name
    reason: str


class Lineage(Wire):
    """Where a version came from.

    code_sha256: of the packed code folder, or of the file of a task that is installed.
    parameters: what a sweep chose.
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
    parity_max_abs: float | None = None
    environment: dict[str, str] = Field(default_factory=dict)
    passes: tuple[Pass, ...] = ()


class Pass(Wire):
    """One step from trained weights to a variant, with hashes of both sides."""

    name: str
    parameters: dict[str, str | int | float | bool] = Field(default_factory=dict)
    input_sha256: Sha256
    output_sha256: Sha256


class Manifest(Wire):
    """A model version, whole. Immutable; its JSON is a signed target."""

    schema_version: Literal[1] = 1
    model: Name
    signature: Signature
    labels: Annotated[tuple[str, ...], Field(max_length=100_000)] = ()
    variants: Annotated[tuple[Variant, ...], Field(min_length=1, max_length=64)]
    rejected: tuple[RejectedVariant, ...] = ()
    lineage: Lineage = Lineage()
    baseline: Baseline | None = None

    def variant(self, variant_id: str) -> Variant | None:
        """The variant of that id, or None."""
        return next((v for v in self.variants if v.id == variant_id), None)

    def files(self) -> tuple[ModelFile, ...]:
        """Every file the version needs, golden vectors included."""
        return tuple(f for v in self.variants for f in (v.file, v.golden.file))


class ModelVersionView(Wire):
    """A registered version, as the API shows it."""

    model: Name
    version: int
    manifest: Manifest
    manifest_sha256: Sha256
    aliases: tuple[Name, ...] = ()
    revoked: bool = False
    created_at: UtcTime


class ModelView(Wire):
    """A model and the numbers of its versions, newest first."""

    name: Name
    versions: tuple[int, ...]
    aliases: dict[Name, int] = Field(default_factory=dict)


class VersionNumber(Wire):
    """The answer to a registration."""

    model: Name
    version: int
    created: bool


Lineage.model_rebuild()
