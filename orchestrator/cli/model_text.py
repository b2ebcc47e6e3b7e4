"""The parts of a model version as words: accuracy, what a variant needs, how it compares."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.cli import console
from schemas.measure import Accuracy, Benchmark
from schemas.model import Lineage, ModelVersionView, Requires, Variant
from schemas.paired import Paired
from schemas.signature import TensorSpec

_SHORT = 12
_CPU = "CPUExecutionProvider"
_PROVIDER = "ExecutionProvider"


def figure(variant: Variant, *splits: str) -> Accuracy | None:
    """A variant's accuracy on the first of ``splits`` it was measured on, else its last.

    None where nothing was measured: of a model that was imported without data.
    """
    by_split = {accuracy.split: accuracy for accuracy in variant.accuracy}
    last = variant.accuracy[-1] if variant.accuracy else None
    return next((by_split[s] for s in splits if s in by_split), last)


def single(variant: Variant) -> Benchmark | None:
    """What single runs cost on the machine that made the variant."""
    own = (b for b in variant.benchmarks if b.batch == 1 and b.device_class is None)
    return next(own, None)


def points(share: float) -> str:
    """A difference of accuracies in percentage points, as in ``0.4``."""
    text = f"{100 * share:.1f}"
    return "0.0" if text == "-0.0" else text


def interval(accuracy: Accuracy | None) -> str:
    """The 95 % interval in percent, as in ``96.1-98.3``."""
    return console.NONE if accuracy is None else f"{points(accuracy.low)}-{points(accuracy.high)}"


def drop(paired: Paired | None) -> str:
    """The drop against FP32 in points, with its limits: ``0.4 (-0.2 to 1.1)``."""
    if paired is None:
        return console.NONE
    return f"{points(paired.drop)} ({points(paired.low)} to {points(paired.high)})"


def paired_sentence(a: str, b: str, paired: Paired, split: str) -> str:
    """How much worse b is than a, for people.

    As in ``B is 0.4 points worse than A on test (95 %: -0.2 to 1.1), n=401: …``.
    """
    name_a, name_b = console.clean(a), console.clean(b)
    if paired.drop == 0:
        how = f"{name_b} is as accurate as {name_a}"
    else:
        word = "worse" if paired.drop > 0 else "better"
        how = f"{name_b} is {points(abs(paired.drop))} points {word} than {name_a}"
    # Of a better one the limits are told as gains, so that figure and limits agree.
    limits = (paired.low, paired.high) if paired.drop >= 0 else (-paired.high, -paired.low)
    level = f"{100 * (2 * paired.confidence - 1):.3g} %"
    span = f"({level}: {points(limits[0])} to {points(limits[1])})"
    return f"{how} on {console.clean(split)} {span}, n={paired.n}: {_verdict(paired)}"


def _verdict(paired: Paired) -> str:
    if paired.low > 0:
        return "more than chance"
    if paired.high < 0:
        return "more than chance"
    if not paired.lost and not paired.won:
        return "right and wrong on the same samples"
    return "it may be chance"


def precision(variant: Variant) -> str:
    """Precision with the scheme behind it, as in ``int8 u8s8``."""
    scheme = console.clean(variant.scheme)
    return (
        variant.precision
        if scheme in {"none", variant.precision}
        else f"{variant.precision} {scheme}"
    )


def pruned(variant: Variant) -> str:
    """The share of channels that was taken out."""
    return f"{100 * variant.pruned:.0f} %" if variant.pruned else console.NONE


def needs(requires: Requires) -> str:
    """What a device must have, as in ``x86_64, vnni, 64 MB``; nothing beyond a CPU is ``-``."""
    other = [p.removesuffix(_PROVIDER) for p in requires.providers if p != _CPU]
    parts = [
        "|".join(requires.arch),
        *requires.isa,
        f"{requires.ram_mb} MB RAM" if requires.ram_mb else "",
        *other,
        f"ORT {requires.ort}" if requires.ort else "",
    ]
    return console.clean(", ".join(part for part in parts if part)) or console.NONE


def tensors(specs: tuple[TensorSpec, ...]) -> str:
    """Tensors, as in ``image uint8[n x 8 x 8]``."""
    shown = (
        f"{s.name} {s.dtype}[{'x'.join('n' if d < 0 else str(d) for d in s.shape)}]" for s in specs
    )
    return console.clean(", ".join(shown))


def lineage_facts(lineage: Lineage) -> Iterator[tuple[str, str]]:
    """Where a version came from, label by label; what is not known is left out."""
    attempt = f", attempt {lineage.attempt}" if (lineage.attempt or 1) > 1 else ""
    code = lineage.code.git_commit if lineage.code else None
    dirty = ", with changes" if lineage.code and lineage.code.git_dirty else ""
    commit = f", commit {code[:_SHORT]}{dirty}" if code else ""
    parity = lineage.parity_max_abs
    facts = (
        ("job", f"{lineage.job}{attempt}" if lineage.job else None),
        ("parent", lineage.parent),
        ("source", lineage.source),
        ("source file", _digest(lineage.source_sha256)),
        ("task", lineage.task),
        ("code", f"{_digest(lineage.code_sha256)}{commit}" if lineage.code_sha256 else None),
        ("data", _digest(lineage.dataset_sha256)),
        ("seed", None if lineage.seed is None else str(lineage.seed)),
        ("epochs", None if lineage.epochs is None else str(lineage.epochs)),
        ("swept", " ".join(f"{k}={v}" for k, v in lineage.parameters.items()) or None),
        ("parity", None if parity is None else f"{parity:.2g} at most from torch"),
    )
    return ((label, console.clean(text)) for label, text in facts if text)


def _digest(sha256: str | None) -> str | None:
    return None if sha256 is None else sha256[:_SHORT]


def state(view: ModelVersionView) -> str:
    """ACTIVE, REVOKED or PURGED."""
    if view.revoked:
        return "REVOKED"
    return "PURGED" if view.purged else "ACTIVE"
