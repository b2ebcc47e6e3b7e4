"""The device does with every vector of tests/vectors/patch what its index says."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path

import pytest

from edge_client.errors import PatchError
from edge_client.patch import apply
from schemas.transfer import CHUNK_BYTES

FOLDER = Path(__file__).parent.parent / "vectors" / "patch"
CASES = json.loads((FOLDER / "index.json").read_text())["cases"]


@pytest.mark.parametrize("case", [pytest.param(one, id=one["name"]) for one in CASES])
def test_a_patch_makes_what_the_index_says(case):
    base, target, patch = (
        (FOLDER / case[part]).read_bytes() for part in ("base", "target", "patch")
    )
    made: dict[int, bool] = {}

    def write(index: int, data: bytes) -> bool:
        assert index not in made
        made[index] = data == target[index * CHUNK_BYTES :][:CHUNK_BYTES]
        return made[index]

    def run():
        return apply(io.BytesIO(patch), io.BytesIO(base), wanted=lambda _: True, write=write)

    if "error" in case:
        tracemalloc.start()
        try:
            with pytest.raises(PatchError, match=case["error"]):
                run()
            assert tracemalloc.get_traced_memory()[1] < 2 * 1024**2
        finally:
            tracemalloc.stop()
        assert all(made.values())  # nothing wrong was ever taken for right
        return
    done = run()
    assert list(made) == case["makes"]
    assert [index for index, right in made.items() if not right] == case.get("wrong", [])
    assert (done.made, done.wrong) == (sum(made.values()), len(made) - sum(made.values()))


def test_every_file_is_named_by_a_case():
    named = {case[part] for case in CASES for part in ("base", "target", "patch")}
    assert {path.name for path in FOLDER.glob("*.bin")} == named
    assert len(CASES) > 30


def test_a_chunk_that_is_not_wanted_is_not_made():
    case = next(one for one in CASES if one.get("makes") == [0, 2] and "wrong" not in one)
    patch, base = (io.BytesIO((FOLDER / case[part]).read_bytes()) for part in ("patch", "base"))
    asked = []
    apply(patch, base, wanted=lambda i: i == 2, write=lambda i, _: bool(asked.append(i) or True))
    assert asked == [2]
