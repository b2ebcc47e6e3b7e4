from __future__ import annotations

import platform

import onnxruntime as ort
import pytest

from edge_client.errors import TrustError
from edge_client.hardware import board, cpu_name, free_mb, hardware, isa, ram_mb
from edge_client.manifests import _require_fit
from schemas.errors import DeviceCause
from schemas.model import Manifest, Requires, Variant
from tests.fakes.edge_models import linear_onnx, release


def test_a_device_says_what_it_is():
    found = hardware()
    assert found.arch == platform.machine()
    assert found.ort == ort.__version__
    assert "CPUExecutionProvider" in found.providers
    assert found.isa == isa()
    assert 1 <= free_mb() <= found.ram_mb
    if found.arch == "x86_64":
        assert ("vnni" in found.isa) == bool({"avx_vnni", "avx512_vnni"} & set(found.isa))


def test_the_board_is_named_by_the_device_tree_or_by_dmi(tmp_path):
    tree, dmi = tmp_path / "model", tmp_path / "dmi"
    assert board(tree, dmi) is None
    dmi.mkdir()
    (dmi / "sys_vendor").write_text("To Be Filled By O.E.M.\n")
    (dmi / "product_name").write_text("System Product Name\n")
    assert board(tree, dmi) is None
    (dmi / "sys_vendor").write_text("ACME\n")
    (dmi / "product_name").write_text("Box 9\n")
    assert board(tree, dmi) == "ACME Box 9"
    tree.write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    assert board(tree, dmi) == "Raspberry Pi 5 Model B Rev 1.0"
    tree.write_bytes(b"x" * 500)
    assert len(board(tree, dmi)) == 100


def test_what_cannot_be_read_is_left_out(tmp_path):
    absent = tmp_path / "absent"
    assert isa(absent) == ()
    assert cpu_name(absent) == platform.machine()
    assert free_mb(absent) is None
    assert ram_mb(absent) == 1
    absent.write_text("MemTotal: lots\nMemAvailable:\n")
    assert (ram_mb(absent), free_mb(absent)) == (1, None)


def test_a_variant_that_needs_what_the_processor_lacks_is_refused():
    def variant(*names: str) -> Variant:
        made = Manifest.model_validate_json(release(linear_onnx(1)).manifest).variants[0]
        return made.model_copy(update={"requires": Requires(isa=names)})

    _require_fit(variant(*isa()))
    with pytest.raises(TrustError, match="needs i9000, which this processor lacks") as refused:
        _require_fit(variant(*isa(), "i9000"))
    assert refused.value.cause is DeviceCause.LOAD_FAILED
