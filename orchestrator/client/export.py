"""A variant as a folder for other tools: plain files, or what MLflow loads.

The folder appears whole or not at all. For the form of MLflow's see
https://mlflow.org/docs/latest/ml/model/ (MLmodel, signature, environment files); MLflow
itself is not needed here.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import yaml

from orchestrator.client.artifacts import Artifacts, write_atomically
from orchestrator.errors import Conflict, Invalid
from schemas.model import ModelVersionView, Variant
from schemas.signature import TensorSpec

Format = Literal["mlflow", "folder"]

MODEL, GOLDEN, MANIFEST = "model.onnx", "golden.npz", "manifest.json"
_MLFLOW = "mlflow>=2.10"
_PYTHON = "3.11"
_RUNTIME = ("onnx", "onnxruntime", "numpy")
"""Of the packages that made the version, those that running it needs."""


def export(
    artifacts: Artifacts,
    view: ModelVersionView,
    variant: Variant,
    folder: Path,
    form: Format,
    told: Callable[[int], None] = lambda _count: None,
) -> None:
    """Write a variant with its golden vectors, manifest and signature.

    Args:
        artifacts: where the files come from.
        view: the version.
        variant: of it.
        folder: to make; an empty one may be there.
        form: ``folder`` for plain files, ``mlflow`` for what ``mlflow.onnx.load_model`` and
            ``mlflow.pyfunc.load_model`` take.
        told: called with the number of bytes, as they come.

    Raises:
        Conflict: the folder has something in it.
        DigestMismatch: a file is not what the manifest says.
        Invalid: it cannot be written.
    """
    texts = mlflow_files(view, variant) if form == "mlflow" else plain_files(view)
    with _appearing(folder) as inside:
        artifacts.save(variant.file, inside / MODEL, told)
        artifacts.save(variant.golden.file, inside / GOLDEN, told)
        for name, text in {**texts, MANIFEST: manifest_text(view)}.items():
            write_atomically(inside / name, text.encode())


def manifest_text(view: ModelVersionView) -> str:
    """The manifest as it was registered and signed."""
    return view.manifest.model_dump_json()


def signature_text(view: ModelVersionView) -> str:
    """The signature as a person would write it, and as ``model register --signature`` reads."""
    value = view.manifest.signature.model_dump(mode="json", exclude_none=True)
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def plain_files(view: ModelVersionView) -> dict[str, str]:
    """What stands beside the model in a plain folder, by file name."""
    found = {"signature.yaml": signature_text(view)}
    if view.manifest.labels:
        found["labels.txt"] = "".join(f"{label}\n" for label in view.manifest.labels)
    return found


def mlflow_files(view: ModelVersionView, variant: Variant) -> dict[str, str]:
    """The files that make an MLflow model of a folder with the ONNX file, by name."""
    known = view.manifest.lineage.environment
    python = known.get("python", _PYTHON)
    needed = [f"{name}=={known[name]}" if name in known else name for name in _RUNTIME]
    pinned = [_MLFLOW, *needed]
    conda = {
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": pinned}],
        "name": "mlflow-env",
    }
    environment = {
        "python": python,
        "build_dependencies": ["pip", "setuptools", "wheel"],
        "dependencies": ["-r requirements.txt"],
    }
    return {
        **plain_files(view),
        "MLmodel": _yaml(_mlmodel(view, variant, python)),
        "conda.yaml": _yaml(conda),
        "python_env.yaml": _yaml(environment),
        "requirements.txt": "".join(f"{one}\n" for one in pinned),
    }


def _mlmodel(view: ModelVersionView, variant: Variant, python: str) -> dict[str, Any]:
    signature = view.manifest.signature
    runtime = {"data": MODEL, "providers": list(variant.requires.providers), "code": None}
    version = view.manifest.lineage.environment.get("onnx")
    return {
        "flavors": {
            "onnx": {**runtime, **({"onnx_version": version} if version else {})},
            "python_function": {
                "data": MODEL,
                "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                "loader_module": "mlflow.onnx",
                "python_version": python,
            },
        },
        "metadata": {
            "argosy_version": f"{view.model}@{view.version}",
            "argosy_variant": variant.id,
            "argosy_manifest_sha256": view.manifest_sha256,
            "sha256": variant.file.sha256,
        },
        "model_size_bytes": variant.file.size,
        "model_uuid": variant.file.sha256[:32],
        "signature": {
            "inputs": json.dumps([_tensor(spec) for spec in signature.inputs]),
            "outputs": json.dumps([_tensor(spec) for spec in signature.outputs]),
            "params": None,
        },
        "utc_time_created": f"{view.created_at:%Y-%m-%d %H:%M:%S.%f}",
    }


def _tensor(spec: TensorSpec) -> Mapping[str, Any]:
    """A tensor in MLflow's form (``mlflow.types.TensorSpec.to_dict``)."""
    inner = {"dtype": spec.dtype, "shape": list(spec.shape)}
    return {"name": spec.name, "type": "tensor", "tensor-spec": inner}


def _yaml(value: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True)


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes its name once all went well."""
    beside = folder.absolute().with_name(f".{folder.absolute().name}.{secrets.token_hex(6)}")
    try:
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            detail = f"{folder} is there already"
            raise Conflict(detail, hint="name a folder that is not, or that is empty")
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        beside.mkdir()
        try:
            yield beside
            if folder.is_dir():
                folder.rmdir()
            beside.rename(folder)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
    except OSError as error:
        detail = f"{folder} cannot be written: {(error.strerror or str(error)).lower()}"
        raise Invalid(detail, hint="see the folder's rights and its free space") from error
