from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import Exit
from workers.cli import config_of
from workers.errors import UsageError


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "workers.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **env},
    )


def test_help_imports_neither_ray_nor_torch() -> None:
    code = (
        "import sys; sys.argv = ['argosy-worker', '--help']\n"
        "from workers.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "print([m for m in ('ray', 'torch', 'onnx', 'sklearn', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_split_is_written_whole_and_the_same_each_time(tmp_path: Path) -> None:
    outs = [tmp_path / "one.npz", tmp_path / "two.npz"]
    for out in outs:
        done = run("export-split", "workers.recipes.digits:Digits", "test", str(out))
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
    assert outs[0].read_bytes() == outs[1].read_bytes()
    with np.load(outs[0]) as data:
        assert data["x"].shape == (401, 1, 8, 8)
        assert data["x"].dtype == np.uint8
        assert data["y"].dtype == np.int64
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.npz", "two.npz"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("export-split", "nowhere:T", "test", "o.npz"), Exit.USAGE, "no module 'nowhere'"),
        (("run-local", "/no/such.yaml", "--out", "o"), Exit.USAGE, "cannot read /no/such.yaml"),
        (("agent", "--home", "/no/such/home", "--embedded"), Exit.USAGE, "cannot read"),
        (("agent", "--slots", "0"), Exit.USAGE, "slots"),
        (("fly",), Exit.USAGE, "fly"),
    ],
)
def test_errors_are_short_and_have_their_exit_code(arguments, code, says) -> None:
    done = run(*arguments, COLUMNS="200", RAY_ADDRESS="")
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_an_agent_without_a_cluster_says_what_to_set(tmp_path: Path) -> None:
    done = run("agent", "--home", str(tmp_path), RAY_ADDRESS="")
    assert done.returncode == Exit.USAGE
    assert "set RAY_ADDRESS" in done.stderr


def test_config_values_are_typed() -> None:
    assert config_of(("a=1", "b=0.5", "c=x=y", "d=[1, 2]")) == {
        "a": 1,
        "b": 0.5,
        "c": "x=y",
        "d": [1, 2],
    }
    for bad in ("a", "=1", "a=[1"):
        with pytest.raises(UsageError):
            config_of((bad,))
