"""``argosy simulate``: profiles, and the lines in which their faults are told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from orchestrator.cli.main import run
from orchestrator.cli.simulate_run import read_profile
from orchestrator.errors import Invalid
from orchestrator.simulator.builtin import BUILT_IN
from orchestrator.simulator.identity import LOCK
from schemas.errors import Exit


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_what_show_prints_is_the_same_profile(name, tmp_path, capsys):
    assert run(["simulate", "--profile", name, "--show"]) == 0
    file = tmp_path / "profile.yaml"
    file.write_text(capsys.readouterr().out)
    assert read_profile(str(file)) == BUILT_IN[name]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("classes:\n  - name: a\n    shar: 2\n", ":3: classes.0.shar"),
        ("faults:\n  - kind: slow\n    share: 0.1\n    factor: 0\n", ":4: faults.0.factor"),
        ("faults:\n  - {kind: lazy, share: 1}\n", ":2: faults.0"),
        ("faults:\n  - {share: 1}\n", ":2: faults.0"),
        ("versions:\n  - device_class: b\n", ":1: there is no class 'b'"),
        ("classes:\n  - name: a\n    traffic: {labels: [0, 0]}\n", ":3: classes.0.traffic"),
        ("classes: []\n", ":1: classes"),
        ("pull: 2\nseed: 3\n", "(and 1 more)"),
        ("pull: .nan\n", ":1:"),
        ("- a\n", ":1: not a mapping"),
    ],
)  # fmt: skip
def test_a_fault_in_a_profile_is_told_with_its_line(tmp_path, text, says):
    file = tmp_path / "profile.yaml"
    file.write_text(text)
    with pytest.raises(Invalid) as error:
        read_profile(str(file))
    assert says in error.value.detail
    assert "\n" not in error.value.detail


def test_a_profile_that_is_not_there_names_those_that_are(capsys):
    assert run(["simulate", "--profile", "nowhere"]) == Exit.USAGE
    said = capsys.readouterr().err
    assert "nowhere" in said
    assert "mixed" in said


def test_without_the_extra_one_line_says_what_to_install(monkeypatch, capsys):
    real = sys.modules["orchestrator.cli.simulate_run"].find_spec
    hidden = lambda name: None if name == "numpy" else real(name)  # noqa: E731 - as short as it is
    monkeypatch.setattr("orchestrator.cli.simulate_run.find_spec", hidden)
    assert run(["simulate", "--show"]) == Exit.FAILED
    said = capsys.readouterr().err
    assert "numpy" in said
    assert "argosy[server]" in said


def test_a_damaged_token_is_refused_before_anything_is_asked(tmp_path, capsys):
    argv = ["simulate", "--token", "aj1.x", "--server", "http://127.0.0.1:1", "--devices", "1"]
    assert run([*argv, "--state", str(tmp_path)]) == Exit.USAGE
    assert "not a join token" in capsys.readouterr().err
    assert [one.name for one in Path(tmp_path).iterdir()] == [LOCK]


def test_a_platform_that_is_not_there_is_one_line(tmp_path, capsys):
    token = "aj1.tok_01jqz3k5m7n9p1r8." + ".".join(["s" * 43] * 3)
    argv = ["simulate", "--token", token, "--server", "http://127.0.0.1:1", "--devices", "1"]
    assert run([*argv, "--state", str(tmp_path)]) == Exit.FAILED
    assert "no platform answers at http://127.0.0.1:1" in capsys.readouterr().err


def test_the_documented_profile_is_one():
    page = (Path(__file__).parents[3] / "docs" / "simulator.md").read_text()
    blocks = [part.split("```")[0] for part in page.split("```yaml\n")[1:]]
    assert blocks
    for block in blocks:
        content = yaml.safe_load(block)
        from orchestrator.simulator.profile import Profile

        Profile.model_validate(content)
