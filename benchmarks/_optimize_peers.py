"""What other tools make of the same model by their defaults: ``optimize``'s baselines.

``python benchmarks/_optimize_peers.py RECIPE MODEL.onnx CALIBRATION.npz OUT.onnx``, by a Python
that has the tool; it needs nothing of ours. Each recipe is what the tool's own documentation
begins with, without a search of ours for better settings.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

BATCH = 1


def calibration(model: Path, archive: Path) -> list[dict[str, Any]]:
    """Feeds of real training inputs, one sample each."""
    name = onnx.load(model).graph.input[0].name
    with np.load(archive) as found:
        x = found["x"]
    return [{name: x[i : i + BATCH]} for i in range(0, len(x), BATCH)]


def ort_static(model: Path, archive: Path, out: Path) -> None:
    """``onnxruntime.quantization.quantize_static`` with nothing but its required arguments."""
    from onnxruntime.quantization import (  # noqa: PLC0415 - only by a Python that has it
        CalibrationDataReader,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    class Reader(CalibrationDataReader):  # type: ignore[misc] # comes without types
        def __init__(self) -> None:
            self._feeds = iter(calibration(model, archive))

        def get_next(self) -> dict[str, Any] | None:
            return next(self._feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(model), str(prepared))
        quantize_static(str(prepared), str(out), Reader())


def ort_dynamic(model: Path, archive: Path, out: Path) -> None:
    """``onnxruntime.quantization.quantize_dynamic`` with nothing but its required arguments."""
    del archive
    from onnxruntime.quantization import quantize_dynamic  # noqa: PLC0415 - see ort_static

    loaded = onnx.load(model)
    loaded.graph.ClearField("value_info")  # it cannot work with what torch's exporter leaves
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        onnx.save(loaded, plain)
        quantize_dynamic(str(plain), str(out))


def nncf(model: Path, archive: Path, out: Path) -> None:
    """``nncf.quantize`` of an ONNX model with its default settings (subset of 300)."""
    import nncf as tool  # noqa: PLC0415 - see ort_static

    data = tool.Dataset(calibration(model, archive), lambda feed: feed)
    onnx.save(tool.quantize(onnx.load(model), data), out)


def olive(model: Path, archive: Path, out: Path) -> None:
    """Olive's ``OnnxStaticQuantization`` pass with nothing set but the data."""
    import torch  # noqa: PLC0415 - see ort_static
    from olive.data.component.dataset import BaseDataset  # noqa: PLC0415, F401 - fills the registry
    from olive.data.config import DataComponentConfig, DataConfig  # noqa: PLC0415
    from olive.data.registry import Registry  # noqa: PLC0415
    from olive.model import ONNXModelHandler  # noqa: PLC0415
    from olive.passes.olive_pass import create_pass_from_dict  # noqa: PLC0415
    from olive.passes.onnx.quantization import OnnxStaticQuantization  # noqa: PLC0415

    feeds = calibration(model, archive)

    class Inputs(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(feeds)

        def __getitem__(self, i: int) -> tuple[dict[str, Any], int]:
            return {name: value[0] for name, value in feeds[i].items()}, 0

    @Registry.register_dataset("argosy_inputs")  # type: ignore[untyped-decorator]
    def inputs(**_: Any) -> Inputs:
        return Inputs()

    config = DataConfig(
        name="calibration",
        load_dataset_config=DataComponentConfig(type="argosy_inputs"),
        pre_process_data_config=DataComponentConfig(type="skip_pre_process"),
        post_process_data_config=DataComponentConfig(type="skip_post_process"),
    )
    found = create_pass_from_dict(
        OnnxStaticQuantization, {"data_config": config}, disable_search=True
    )
    with tempfile.TemporaryDirectory() as folder:
        made = found.run(ONNXModelHandler(model_path=str(model)), str(Path(folder) / "olive"))
        onnx.save(onnx.load(made.model_path), out)


RECIPES: dict[str, Callable[[Path, Path, Path], None]] = {
    "ort-static": ort_static,
    "ort-dynamic": ort_dynamic,
    "nncf": nncf,
    "olive": olive,
}

if __name__ == "__main__":
    logging.disable(logging.WARNING)
    RECIPES[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
