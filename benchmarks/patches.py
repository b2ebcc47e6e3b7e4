"""Patches between versions of a net: bytes and time, ours against other ways to say a difference.

A trained net is fine-tuned on its own data with frozen batch norms: the last layer alone, and
all of it, for one epoch. Base and result are exported, and turned into INT8 and FP16, by what a
job uses. Ours is what the server makes and the device applies, which is checked. Against it:
zstd with the base as dictionary (``--patch-from``), the whole file by zstd, and bsdiff where
ARGOSY_PEERS_PYTHON names a Python that has bsdiff4.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from backports import zstd
from torch import Tensor, nn

from benchmarks._harness import ROOT, Figure, Options, Report, main, note
from benchmarks._optimize_nets import NETS, QUICK, Net, trained, within
from edge_client.patch import apply
from orchestrator.adapters.artifacts import ArtifactStore
from orchestrator.adapters.patch_maker import FilePatchMaker
from schemas.signature import Signature, TensorSpec
from schemas.transfer import CHUNK_BYTES
from workers.inspection.stream import Stream
from workers.optimization.exporting.export import export
from workers.optimization.pipeline import training_of
from workers.optimization.quantizing.quantizer import quantize, to_fp16
from workers.task import Task

WHAT = "patches: ours against zstd --patch-from, in bytes and seconds"
PEER_SECONDS = 600
CALIBRATION = 256
BATCH = 64
UPDATES = {"head": 0.01, "all": 0.001}
"""What is fine-tuned, and how fast."""

FORMS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class Said:
    """A difference that was written down. bytes: how long it is."""

    bytes: int
    seconds: float


def measure(options: Options) -> Report:
    """One net and its two updates, in three forms each."""
    net = QUICK if options.quick else NETS["mobilenet"]
    cache = ROOT / "build" / "benchmarks"
    figures: dict[str, Figure] = {}
    details: dict[str, Any] = {}
    with TemporaryDirectory(prefix="argosy-bench-") as folder:
        files = _files(net, cache / "nets", Path(folder))
        for update in UPDATES:
            for form in FORMS:
                base, target = (files[one, form].read_bytes() for one in ("base", update))
                moved = target[:200] + b"a version with a longer name" + target[200:]
                for name, new in ((f"{update}_{form}", target), (f"{update}_{form}_moved", moved)):
                    rounds = [_sides(base, new, Path(folder)) for _ in range(options.rounds)]
                    figures |= _figures(name, rounds)
                    details[name] = _row(len(new), rounds)
                    note(f"{name}: {details[name]}")
    return Report(figures, details)


def _files(net: Net, kept: Path, folder: Path) -> dict[tuple[str, str], Path]:
    """The net before and after each update, in every form."""
    found: dict[tuple[str, str], Path] = {}
    with within(net) as task:
        weights = training_of(trained(net, task, kept), net.epochs).weights
        calibration = Stream(task, task.splits().train, "train").spaced(CALIBRATION).x
        for which in ("base", *UPDATES):
            model = task.model()
            model.load_state_dict(weights)
            if which in UPDATES:
                note(f"fine-tuning {which}")
                _tune(model, task, head=which == "head", rate=UPDATES[which])
            paths = {form: folder / f"{which}-{form}.onnx" for form in FORMS}
            export(model, _signature(task), calibration[:8], paths["fp32"])
            to_fp16(paths["fp32"], paths["fp16"])
            quantize(paths["fp32"], paths["int8"], "u8s8-7bit", calibration)
            found |= {(which, form): path for form, path in paths.items()}
    return found


def _signature(task: Task) -> Signature:
    outputs = TensorSpec(name="probabilities", dtype="float32", shape=(-1, len(task.labels)))
    return Signature(inputs=(task.input_spec,), outputs=(outputs,))


def _tune(model: nn.Module, task: Task, *, head: bool, rate: float) -> None:
    """One epoch of SGD; batch norms stay as they are, for the export folds them into weights."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    optimizer = torch.optim.SGD((layers[-1] if head else model).parameters(), rate, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    x, y = _tensors(task.splits().train)
    model.eval()
    for rows in torch.split(torch.randperm(len(x), generator=generator), BATCH):
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch ships it so
        optimizer.step()


def _tensors(data: Any) -> tuple[Tensor, Tensor]:
    """All samples and labels of a split."""
    samples = [data[i] for i in range(len(data))]
    return torch.stack([x for x, _ in samples]), torch.tensor([int(y) for _, y in samples])


def _sides(base: bytes, target: bytes, folder: Path) -> dict[str, Said]:
    """Every way once; a side that is not there is left out."""
    found = {"ours": _ours(base, target, folder)}
    for name, dictionary in (("patch_from", base), ("zstd", b"")):
        began = time.perf_counter()
        size = len(_zstd(target, dictionary))
        found[name] = Said(size, time.perf_counter() - began)
    peer = _bsdiff(base, target, folder)
    return found if peer is None else {**found, "bsdiff": peer}


def _ours(base: bytes, target: bytes, folder: Path) -> Said:
    """By the server's maker, from its store; then by the device, which must get the target."""
    store = ArtifactStore(folder / "artifacts")
    names = [hashlib.sha256(data).hexdigest() for data in (base, target)]
    for name, data in zip(names, (base, target), strict=True):
        store.put([data], name, len(data))
    maker = FilePatchMaker(store, folder / "patches")
    began = time.perf_counter()
    with maker.make(names[0], names[1], lambda: True) as made:
        seconds = time.perf_counter() - began
        patch = b"" if made is None else b"".join(made.pieces())
    if made is None:
        return Said(len(target), seconds)
    pulled = len(target) - _applied(patch, base, target)
    return Said(len(patch) + pulled, seconds)


def _applied(patch: bytes, base: bytes, target: bytes) -> int:
    """Bytes of the target that the device makes; those that no frame makes it pulls."""
    made = 0

    def write(index: int, data: bytes) -> bool:
        nonlocal made
        if data != target[index * CHUNK_BYTES :][:CHUNK_BYTES]:
            msg = f"chunk {index} was made wrong"
            raise AssertionError(msg)
        made += len(data)
        return True

    apply(io.BytesIO(patch), io.BytesIO(base), wanted=lambda _: True, write=write)
    return made


def _zstd(target: bytes, dictionary: bytes) -> bytes:
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: 19,
        zstd.CompressionParameter.window_log: 27,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    raw = zstd.ZstdDict(dictionary, is_raw=True).as_prefix if dictionary else None
    return zstd.compress(target, options=options, zstd_dict=raw)


_BSDIFF = """
import sys, time, bsdiff4
base, target = (open(path, "rb").read() for path in sys.argv[1:])
began = time.perf_counter()
size = len(bsdiff4.diff(base, target))
print(size, time.perf_counter() - began)
"""


def _bsdiff(base: bytes, target: bytes, folder: Path) -> Said | None:
    python = os.environ.get("ARGOSY_PEERS_PYTHON", sys.executable)
    paths = folder / "one", folder / "other"
    for path, data in zip(paths, (base, target), strict=True):
        path.write_bytes(data)
    command = [python, "-c", _BSDIFF, *map(str, paths)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PEER_SECONDS, check=True
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
    size, seconds = done.stdout.split()
    return Said(int(size), float(seconds))


def _figures(name: str, rounds: list[dict[str, Said]]) -> dict[str, Figure]:
    ours, peer = ([one[side] for one in rounds] for side in ("ours", "patch_from"))
    bytes_ = Figure("B", tuple(float(s.bytes) for s in ours), tuple(float(s.bytes) for s in peer))
    seconds = Figure("s", tuple(s.seconds for s in ours), tuple(s.seconds for s in peer))
    return {f"{name}_bytes": bytes_, f"{name}_seconds": seconds}


def _row(size: int, rounds: list[dict[str, Said]]) -> Mapping[str, float]:
    """Each side's share of the whole file, and its median time."""
    row: dict[str, float] = {"bytes": size}
    for side in rounds[0]:
        row[side] = round(rounds[0][side].bytes / size, 5)
        row[f"{side}_s"] = round(float(np.median([one[side].seconds for one in rounds])), 3)
    return row


if __name__ == "__main__":
    main(measure, what=WHAT, rounds=3)
