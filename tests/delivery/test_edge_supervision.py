"""What starts an agent on a device: the systemd units, and the loop for where there is none."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_client.cli import cli
from edge_client.cli_run import run
from tests.conftest import ROOT

FOLDER = ROOT / "examples" / "systemd"
UNITS = ["argosy-edge.service", "argosy-edge-enroll.service"]
ANALYZE = shutil.which("systemd-analyze")


def read(name: str) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read_string((FOLDER / name).read_text())
    return unit


@pytest.mark.skipif(ANALYZE is None, reason="systemd is not installed")
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    for name in UNITS:
        text = (FOLDER / name).read_text().replace("/opt/argosy/bin/argosy-edge", "/bin/true")
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [ANALYZE, "verify", "--man=no", *(tmp_path / name for name in UNITS)],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    newer = ("RestartSteps", "RestartMaxDelaySec", "RestartMode")
    wrong = [
        line
        for line in done.stderr.splitlines()
        if str(tmp_path) in line and not any(key in line for key in newer)
    ]
    assert (done.returncode, wrong) == (0, []), done.stderr


@pytest.mark.parametrize("name", UNITS)
def test_the_commands_of_the_units_are_commands(name: str) -> None:
    words = read(name)["Service"]["ExecStart"].split()
    assert Path(words[0]).name == "argosy-edge"
    known = CliRunner().invoke(cli, [words[1], "--help"]).output
    assert known
    for option in (word for word in words if word.startswith("--")):
        assert option in known


def test_the_outer_watchdog_is_slower_than_the_inner_one() -> None:
    service = read("argosy-edge.service")["Service"]
    (inner,) = (one.default for one in run.params if one.name == "hang_seconds")
    assert int(service["WatchdogSec"]) > 2 * inner
    assert (service["Type"], service["Restart"]) == ("notify", "always")
    assert service["OOMPolicy"] == "continue"


def test_the_loop_starts_it_again_until_that_cannot_help(tmp_path: Path) -> None:
    fake = tmp_path / "argosy-edge"
    fake.write_text(
        '#!/bin/sh\necho "$@" >>"$COUNT"\ntest "$(wc -l <"$COUNT")" -lt 2 && exit 70\nexit 2\n'
    )
    fake.chmod(0o755)
    count = tmp_path / "count"
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "COUNT": str(count)}
    done = subprocess.run(
        [FOLDER / "supervise.sh", "--rate", "3"],
        check=False, capture_output=True, text=True, timeout=30, env=env,
    )  # fmt: skip
    assert done.returncode == 2
    assert count.read_text() == "run --rate 3\nrun --rate 3\n"
    assert "ended with 70" in done.stderr


def test_the_loop_ends_with_its_agent(tmp_path: Path) -> None:
    fake = tmp_path / "argosy-edge"
    script = 'trap "echo bye; exit 0" TERM\necho up\nwhile :; do sleep 0.1; done\n'
    fake.write_text(f"#!/bin/sh\n{script}")
    fake.chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        [FOLDER / "supervise.sh"], env=env, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.terminate()
    assert process.stdout.readline() == "bye\n"
    assert process.wait(10) == 0
