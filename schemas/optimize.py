"""What is done to a trained net, or to one that was made elsewhere."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from schemas.base import Authored, PlainText
from schemas.budget import Budget
from schemas.ids import Name, Sha256
from schemas.measure import MAX_FILE_BYTES
from schemas.place import Place
from schemas.signature import Signature

Share = Annotated[float, Field(gt=0, lt=1)]


class Optimize(Authored):
    """What is done to the trained model: the variants that are tried, and their limits.

    int8, fp16: make such variants. prune: shares of the channels to take out, one trial
    each (``[0.5, 0.75]``); after it the net is trained for ``finetune_epochs``, with
    ``distill`` as the weight of the unpruned net's answers in the loss.
    qat_epochs: of training with quantization in the loop, when the budget is missed
    otherwise; 0: never.
    max_accuracy_drop: the largest loss of accuracy (0..1) against the unpruned FP32 net, on
    the validation split, at which a variant is kept. ``confidence`` is how sure that must
    be, by a paired test. budget: of every variant; classes: of device classes, which fill
    what they leave open from ``budget``. The search ends with ``max_trials``.
    calibration_samples: inputs, from the training split, that set the quantization ranges.
    formats: files for other runtimes to make besides, from the unpruned net.
    """

    int8: bool = True
    fp16: bool = False
    prune: Annotated[tuple[Share, ...], Field(max_length=8)] = ()
    finetune_epochs: Annotated[int, Field(ge=0, le=1000)] = 5
    distill: Annotated[float, Field(ge=0, le=1)] = 0.0
    qat_epochs: Annotated[int, Field(ge=0, le=1000)] = 0
    max_accuracy_drop: Annotated[float, Field(ge=0, le=1)] = 0.02
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    budget: Budget = Budget()
    classes: Annotated[dict[Name, Budget], Field(max_length=32)] = Field(default_factory=dict)
    max_trials: Annotated[int, Field(ge=1, le=200)] = 24
    calibration_samples: Annotated[int, Field(ge=8, le=100_000)] = 256
    formats: Annotated[tuple[Literal["torch-export", "litert"], ...], Field(max_length=2)] = ()


class OnnxSource(Authored):
    """A model made elsewhere, to be checked, measured, optimized and registered.

    file: the ONNX file; in a job file its path. size: in bytes. name: the file's own, for
    people. signature: of its input and output; where it is left out, what the file says.
    data: an npz archive with ``x`` (inputs) and ``y`` (class numbers): without it nothing
    can be said of accuracy, and nothing is quantized but by ``dynamic``. labels: of the
    classes. dynamic: quantize weights alone, which needs no data.
    """

    file: Sha256
    size: Annotated[int, Field(gt=0, le=MAX_FILE_BYTES)]
    name: Annotated[PlainText, StringConstraints(max_length=200)] = "model.onnx"
    signature: Signature | None = None
    labels: Annotated[tuple[PlainText, ...], Field(max_length=100_000)] = ()
    data: Place | None = None
    dynamic: bool = False
