"""What was measured of a variant: accuracy, latency, memory, energy, agreement."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from schemas.base import UtcTime, VersionNo, Wire
from schemas.ids import DeviceId, Name, Sha256

# Bounded by what a broker passes on at once (1 MiB): the chunk digests of a file travel in
# one reply.
MAX_FILE_BYTES = 512 * 1024**2

Milliseconds = Annotated[float, Field(ge=0, le=1e9)]


class ModelFile(Wire):
    """A file of a version.

    sha256: of the whole. leaves_sha256: of the concatenated SHA-256 digests of its
    64 KiB chunks, so that a device can check each chunk as it arrives.
    """

    path: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    size: Annotated[int, Field(gt=0, le=MAX_FILE_BYTES)]
    sha256: Sha256
    leaves_sha256: Sha256


class Accuracy(Wire):
    """A metric over ``n`` labelled samples of the split with hash ``set_sha256``.

    low and high bound the 95 % Wilson interval. outcomes: which samples were right, packed
    as in ``schemas.paired.Outcomes``, so that any two versions can be compared in pairs.
    """

    metric: str = "accuracy"
    value: Annotated[float, Field(ge=0, le=1)]
    n: Annotated[int, Field(ge=1)]
    low: Annotated[float, Field(ge=0, le=1)]
    high: Annotated[float, Field(ge=0, le=1)]
    split: str
    set_sha256: Sha256
    outcomes: ModelFile | None = None


class Energy(Wire):
    """Energy of one inference. method: rapl, meter, or cpu_time, which is an estimate.

    watts: assumed of one busy core, where estimated.
    """

    millijoules: Annotated[float, Field(ge=0)]
    method: Literal["rapl", "meter", "cpu_time"]
    watts: float | None = None

    @property
    def estimated(self) -> bool:
        """Whether no meter was read."""
        return self.method == "cpu_time"


class Benchmark(Wire):
    """Latency in milliseconds of single runs, measured where ``host`` says.

    batch: samples per run. runs: that were counted, after ``warm_up`` others. cpu_ms: median
    CPU time of the thread. load_ms: to open the file; first_ms: the first run after it.
    rss_mb: peak of a process that loads and runs it, MiB; rss_growth_mb: of that, what the
    model added. nodes: how many nodes of the graph each execution provider runs.
    device_class: of the device that measured; None on the machine that made the variant.
    """

    host: Annotated[str, StringConstraints(max_length=300)]
    arch: Annotated[str, StringConstraints(max_length=32)] | None = None
    provider: Annotated[str, StringConstraints(max_length=100)]
    threads: Annotated[int, Field(ge=1, le=4096)] = 1
    batch: Annotated[int, Field(ge=1, le=65_536)]
    runs: Annotated[int, Field(ge=1)]
    warm_up: Annotated[int, Field(ge=0)] = 0
    p50_ms: Milliseconds
    p95_ms: Milliseconds
    p99_ms: Milliseconds
    cpu_ms: Milliseconds | None = None
    load_ms: Milliseconds
    first_ms: Milliseconds | None = None
    rss_mb: float | None = None
    rss_growth_mb: float | None = None
    energy: Energy | None = None
    nodes: Annotated[dict[str, int], Field(max_length=16)] = Field(default_factory=dict)
    ort: Annotated[str, StringConstraints(max_length=32)] | None = None
    device_class: Name | None = None


class Golden(Wire):
    """Inputs with the outputs they must give, as an npz artifact.

    The archive holds ``in_<i>``/``out_<i>`` arrays in the signature's order.
    tolerance: the largest absolute difference allowed on an output.
    """

    file: ModelFile
    samples: int
    tolerance: Annotated[float, Field(gt=0)]


class BenchReport(Wire):
    """A device says how an installed variant runs on it, on ``up/bench``.

    sha256: of the variant's file. The newest per device, variant and batch size counts.
    """

    model: Name
    version: VersionNo
    variant: Name
    sha256: Sha256
    benchmarks: Annotated[tuple[Benchmark, ...], Field(min_length=1, max_length=8)]
    at: UtcTime


class MeasuredVariant(Wire):
    """What a class of devices measured of a variant, as the registry keeps it.

    devices: that measured. p50_ms, cpu_ms, rss_mb: medians over the newest of them, for
    batches of one. device: of the only one.
    """

    variant: Name
    device_class: Name
    devices: Annotated[int, Field(ge=1)]
    p50_ms: float
    p95_ms: float
    cpu_ms: float | None = None
    load_ms: float
    rss_growth_mb: float | None = None
    millijoules: float | None = None
    device: DeviceId | None = None
    at: UtcTime
