"""Rows a second over a file: ``argosy-edge batch`` and the loop that one would write by hand."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

from benchmarks._inference_nets import loaded
from edge_client.batch_command import Voice, Wish, run_batch
from edge_client.sessions import SessionSettings
from edge_client.settings import Home
from edge_client.slots import Pointer, Pointers, Slot, write_pointers
from schemas.measure import Golden, ModelFile

BATCH = 32


class Rows:
    """A net on a device, and a file of rows for it."""

    def __init__(self, folder: Path, net: str, rows: int) -> None:
        self._folder, self._net, self._rows = folder, net, rows
        self._numbers = itertools.count()
        self.data, one, x = loaded(net)
        self._x = folder / "x.npy"
        np.save(self._x, np.repeat(x, rows, axis=0))
        self._home = Home(folder / "home")
        self._home.create()
        packed = io.BytesIO()
        np.savez(packed, in_0=x, out_0=one.model.predict(x).outputs["y"])
        golden = hashlib.sha256(packed.getvalue()).hexdigest()
        file = ModelFile(
            path="golden.npz",
            size=len(packed.getvalue()),
            sha256=golden,
            leaves_sha256="0" * 64,
        )
        variant = one.manifest.variants[0].model_copy(
            update={"golden": Golden(file=file, samples=1, tolerance=1e-3)}
        )
        text = one.manifest.model_copy(update={"variants": (variant,)}).model_dump_json().encode()
        manifest = hashlib.sha256(text).hexdigest()
        (self._home.blobs / one.slot.sha256).write_bytes(self.data)
        (self._home.blobs / golden).write_bytes(packed.getvalue())
        (self._home.manifests / f"{manifest}.json").write_bytes(text)
        slot = Slot(
            model=net,
            version=1,
            variant=variant.id,
            sha256=one.slot.sha256,
            manifest_sha256=manifest,
        )
        write_pointers(self._home.pointer, Pointers(models={net: Pointer(active=slot)}))

    def ours(self) -> float:
        """Rows a second: loading, checks, telemetry, parts on the disk and all."""
        out = self._folder / f"ours-{next(self._numbers)}.csv"
        wish = Wish(model=self._net, source=self._x, out=out, size=BATCH)
        start = time.perf_counter()
        done, _ = run_batch(self._home, wish, Voice(print))
        seconds = time.perf_counter() - start
        assert done.answered == self._rows
        return self._rows / seconds

    def by_hand(self) -> float:
        """Rows a second of the plain loop: nothing is checked, nothing outlives a kill."""
        out = self._folder / f"plain-{next(self._numbers)}.csv"
        start = time.perf_counter()
        session = ort.InferenceSession(
            self.data, SessionSettings().options(), ["CPUExecutionProvider"]
        )
        x = np.load(self._x, mmap_mode="r")
        with out.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["row", "class", "confidence"])
            for at in range(0, len(x), BATCH):
                y = session.run(["y"], {"x": x[at : at + BATCH]})[0]
                classes, best = y.argmax(axis=1), y.max(axis=1)
                rows = range(at, at + len(y))
                writer.writerows(zip(rows, classes.tolist(), best.tolist(), strict=True))
        return self._rows / (time.perf_counter() - start)
