"""One loaded model: checked inputs in, finite outputs out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_client.checks import Feed, Inputs, compile_check, compile_finite
from edge_client.classify import Array
from edge_client.errors import InferenceError, LoadError
from edge_client.graph_sides import apart, batched, compare
from edge_client.opened import first_line, open_session, says_no_memory
from edge_client.prediction import Prediction
from edge_client.providers import CPU
from edge_client.sessions import SessionSettings
from edge_client.slots import Slot
from schemas.dataset import Feature
from schemas.model import Manifest, Variant
from schemas.onnx_guard import UnsafeModelError, check_model
from schemas.signature import Signature, TensorSpec

__all__ = [
    "Array",
    "Inputs",
    "Loaded",
    "Model",
    "Prediction",
    "load_model",
    "refuse_unsafe",
    "says_no_memory",
]


class Model:
    """A session with its signature. Safe to use from many threads at once.

    Attributes:
        check: inputs to arrays by name, as the session takes them: of the signature's dtypes,
            shapes and ranges, finite, in C order. What fits is passed on, not copied. Raises
            InputError with what does not fit, what was wanted, and what to do.
        finite: raw outputs are looked at before they are given away. Raises InferenceError where
            one holds NaN or an infinity.
        provider: the execution provider in use.
        wanted: the one that was asked for, where that is another; else "".
        nodes: how many nodes of the graph each provider runs, where there are several.
        apart: samples of several requests may go into one run.
        session: ONNX Runtime's own, for what is not offered here.
    """

    check: Callable[[Inputs], Feed]
    finite: Callable[[list[Array]], None]

    def __init__(
        self,
        onnx: bytes,
        *,
        signature: Signature,
        variant: Variant,
        labels: tuple[str, ...] = (),
        settings: SessionSettings | None = None,
        profile_in: Path | None = None,
    ) -> None:
        """Load.

        Args:
            onnx: the file's bytes, already verified.
            signature: what goes in and out, checked against the file.
            variant: its requirements name the execution providers to use.
            labels: names of the classes.
            settings: of the session; those for small machines when left out.
            profile_in: count the nodes of every provider, by a profile in a folder there.

        Raises:
            LoadError: it cannot be loaded here, or is not what the signature says.
        """
        refuse_unsafe(onnx)
        self.signature, self.labels = signature, labels
        self.settings = settings or SessionSettings()
        required = variant.requires.providers
        self._open(onnx, self.settings, required, profile_in)
        if self.nodes and self.provider not in self.nodes and self.provider != CPU:
            self._without_nodes(onnx, profile_in)

    def _open(
        self,
        onnx: bytes,
        settings: SessionSettings,
        required: tuple[str, ...],
        profile_in: Path | None,
    ) -> None:
        opened = open_session(onnx, settings, required, profile_in=profile_in)
        self.provider, self.wanted = opened.provider, opened.wanted
        self.nodes: dict[str, int] = {}
        self.session, self._run = opened.session, opened.session.run
        try:
            inputs = opened.session.get_inputs()
            compare("input", self.signature.inputs, inputs)
            outputs = opened.session.get_outputs()
            compare("output", self.signature.outputs, outputs)
        except LoadError:
            if opened.profile is not None:
                opened.profile.drop()
            raise
        self._names = [spec.name for spec in self.signature.outputs]
        self._one = self._names[0] if len(self._names) == 1 else None
        self.finite = compile_finite(self.signature.outputs)
        self.check = compile_check(self.signature.inputs, batched(inputs))
        self.apart = apart(inputs, [one for one in outputs if one.name in self._names])
        if opened.profile is not None:
            self.warm_up(runs=1)
            self.nodes = opened.profile.nodes(opened.session)

    def _without_nodes(self, onnx: bytes, profile_in: Path | None) -> None:
        """The provider was started and took nothing: in truth this is CPU."""
        idle = self.provider
        if not self.settings.fallback:
            msg = f"{idle} was asked for and runs no node of this model"
            raise LoadError(msg, hint="use a variant made for it, or --provider-fallback")
        self._open(
            onnx,
            SessionSettings(
                threads=self.settings.threads,
                spinning=self.settings.spinning,
                arena=self.settings.arena,
                provider=CPU,
            ),
            (CPU,),
            profile_in,
        )
        self.wanted = idle

    def predict(self, inputs: Inputs) -> Prediction:
        """Check a batch, run it, and look whether the answer is finite.

        Raises:
            InputError: ``check`` says no.
            InferenceError: onnxruntime failed, or an output is not finite.
        """
        feed = self.check(inputs)
        raw = self.run(feed)
        self.finite(raw)
        return self.answer(raw, self.size(feed))

    def run(self, feed: Mapping[str, Array]) -> list[Array]:
        """The outputs, in the signature's order, for a feed that ``check`` gave.

        Raises:
            InferenceError: onnxruntime failed.
        """
        try:
            found: list[Array] = self._run(self._names, feed)
        except Exception as error:  # onnxruntime's exceptions share no other base
            msg = f"the model failed: {first_line(error)}"
            raise InferenceError(msg) from error
        return found

    def answer(self, raw: list[Array], n: int, slot: Slot | None = None) -> Prediction:
        """Outputs by name."""
        if self._one is not None:
            return Prediction({self._one: raw[0]}, n, self.labels, slot)
        return Prediction(dict(zip(self._names, raw, strict=True)), n, self.labels, slot)

    @staticmethod
    def size(feed: Mapping[str, Array]) -> int:
        """How many samples a feed holds: the first axis of its first input."""
        for first in feed.values():
            return first.shape[0] if first.ndim else 1
        return 0

    def warm_up(self, golden: Mapping[str, Array] | None = None, *, runs: int = 2) -> None:
        """Run before the first request does: memory is taken and kernels are chosen by it.

        Args:
            golden: inputs by name, of which one batch is run; zeros where there are none,
                which a model may refuse: it is then warmed up by its first request.
            runs: some kernels grow at the second.

        Raises:
            InputError: the golden inputs do not fit.
            InferenceError: the model fails on them.
        """
        specs = self.signature.inputs
        if golden is None:
            feed = {spec.name: _blank(spec) for spec in specs}
            with suppress(InferenceError):
                for _ in range(runs):
                    self.run(feed)
            return
        feed = self.check({spec.name: _one_batch(spec, golden[spec.name]) for spec in specs})
        for _ in range(runs):
            self.finite(self.run(feed))


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A model in its slot, ready to serve, with what telemetry needs of its manifest.

    features: the input statistics of the baseline, in its order. classes: how many the first
    output tells apart; 0 where it is no scores, or as many as it likes.
    """

    slot: Slot
    model: Model
    manifest: Manifest
    features: tuple[Feature, ...] = field(init=False, default=())
    classes: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        baseline, first = self.manifest.baseline, self.manifest.signature.outputs[0]
        if baseline is not None:
            object.__setattr__(self, "features", baseline.features)
        if len(first.shape) == 2 and first.dtype.startswith("float"):  # noqa: PLR2004 - [n, classes]
            object.__setattr__(self, "classes", max(0, first.shape[1], len(self.manifest.labels)))


def load_model(
    onnx: bytes,
    manifest: Manifest,
    variant_id: str,
    *,
    settings: SessionSettings | None = None,
    profile_in: Path | None = None,
) -> Model:
    """Load a variant of a manifest. settings, profile_in: as for ``Model``.

    Raises:
        LoadError: it cannot be loaded here.
    """
    variant = manifest.variant(variant_id)
    if variant is None:
        msg = f"the manifest has no variant {variant_id}"
        raise LoadError(msg)
    return Model(
        onnx,
        signature=manifest.signature,
        variant=variant,
        labels=manifest.labels,
        settings=settings,
        profile_in=profile_in,
    )


def refuse_unsafe(onnx: bytes) -> None:
    """Check a file before onnxruntime sees it.

    Raises:
        LoadError: the guard refuses it.
    """
    try:
        check_model(onnx)
    except UnsafeModelError as error:
        raise LoadError(str(error)) from error


def _blank(spec: TensorSpec) -> Array:
    """A batch of one of zeros, or of what is nearest to zero in the input's range."""
    shape = tuple(max(1, side) for side in spec.shape)
    low, high = spec.range or (0.0, 0.0)
    return np.full(shape, min(max(0.0, low), high), dtype=spec.dtype)


def _one_batch(spec: TensorSpec, golden: Array) -> Array:
    """The first sample, or as many as the graph insists on."""
    return golden[: max(1, spec.shape[0])] if spec.shape else golden
