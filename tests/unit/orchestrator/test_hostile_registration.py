"""Hostile models at the registry: uploaded like any file, and refused when they are named."""

from __future__ import annotations

import re

from tests.fakes.hostile_onnx import GUARDED, plain

NOT_EMPTY = [case for case in GUARDED if case.name != "nothing"]
"""A manifest names no file without bytes."""


def holding(platform, data: bytes):
    manifest = platform.manifest("fp32")
    variant = manifest.variants[0]
    file = platform.file("model.onnx", data)
    return manifest.model_copy(
        update={"variants": (variant.model_copy(update={"file": file}),)}
    ).model_dump(mode="json")


def test_no_hostile_model_gets_a_number(platform, admin):
    for case in NOT_EMPTY:
        answer = admin.post("/v1/models/digits/versions", json=holding(platform, case.build()))
        assert answer.status_code == 422, case.name
        (fault,) = answer.json()["errors"]
        assert fault["field"] == "file model.onnx"
        assert re.search(case.says, fault["message"]), (case.name, fault)
    assert admin.get("/v1/models/digits").status_code == 404


def test_an_honest_one_does(platform, admin):
    answer = admin.post("/v1/models/digits/versions", json=holding(platform, plain()))
    assert answer.status_code == 201
