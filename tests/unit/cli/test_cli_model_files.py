"""A version's files on this machine: downloaded, gone on with, exported."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from argosy_fake_platform import State, model_file, variant, version_view


def test_downloading_a_version(argosy: Any, fake: State, tmp_path: Path) -> None:
    view = version_view(fake, 1, weights=model_file(fake, "weights.pt", b"w"))
    out = tmp_path / "a" / "out"
    answer = argosy("model", "download", "digits@1", str(out))
    assert answer.err == f"digits@1: 3 files, all right, in {out}\n"
    names = {path.name for path in out.iterdir()}
    assert names == {
        "fp32.onnx", "golden-fp32.npz", "weights.pt", "manifest.json", "signature.yaml",
        "labels.txt",
    }  # fmt: skip
    assert hashlib.sha256((out / "manifest.json").read_bytes()).hexdigest() == view.manifest_sha256
    (out / "fp32.onnx").write_bytes(b"damaged")
    answer = argosy("model", "download", "digits@1", str(out))
    assert answer.err.endswith(", 2 were there\n")
    assert (out / "fp32.onnx").read_bytes() == b"fp32" * 1000


def test_one_variant_alone_is_downloaded(argosy: Any, fake: State, tmp_path: Path) -> None:
    version_view(fake, 1, variants=(variant(fake), variant(fake, "int8")))
    assert argosy("model", "download", "digits@1", str(tmp_path), "--variant", "int8").code == 0
    assert (tmp_path / "int8.onnx").exists()
    assert not (tmp_path / "fp32.onnx").exists()
    answer = argosy("model", "download", "digits@1", str(tmp_path), "--variant", "x")
    assert (answer.code, "it has fp32, int8" in answer.err) == (5, True)


def test_files_of_one_name_do_not_hide_each_other(argosy: Any, fake: State, tmp_path: Path) -> None:
    one = variant(fake, file=model_file(fake, "model.onnx", b"one"))
    two = variant(fake, "int8", file=model_file(fake, "model.onnx", b"two"))
    ours = variant(fake, "fp16", file=model_file(fake, "manifest.json", b"not the manifest"))
    version_view(fake, 1, variants=(one, two, ours))
    assert argosy("model", "download", "digits@1", str(tmp_path)).code == 0
    found = {path.read_bytes() for path in tmp_path.iterdir()}
    assert {b"one", b"two", b"not the manifest"} <= found
    assert (tmp_path / "manifest.json").read_bytes().startswith(b'{"schema_version"')


def test_other_bytes_than_the_manifests_end_a_download(
    argosy: Any, fake: State, tmp_path: Path
) -> None:
    view = version_view(fake, 1)
    file = view.manifest.variants[0].file
    fake.served[file.sha256] = b"x" * file.size
    answer = argosy("model", "download", "digits@1", str(tmp_path))
    assert answer.code == 1
    assert "fp32.onnx: 4000 bytes with SHA-256" in answer.err
    assert not (tmp_path / "manifest.json").exists()


def test_exporting_plain_files(argosy: Any, fake: State, tmp_path: Path) -> None:
    version_view(fake, 1, preprocess=({"op": "decode", "mode": "L"},))
    answer = argosy("model", "export", "digits@1", str(tmp_path / "out"))
    assert answer.code == 0
    assert "up to whoever runs it: decode" in answer.err
    assert (tmp_path / "out" / "labels.txt").read_text().splitlines() == list("0123456789")
    assert argosy("model", "export", "digits@1", str(tmp_path / "out")).code == 6
    version_view(fake, 2, purged=True)
    answer = argosy("model", "export", "digits@2", str(tmp_path / "b"), "--format", "mlflow")
    assert (answer.code, "were collected" in answer.err) == (6, True)
