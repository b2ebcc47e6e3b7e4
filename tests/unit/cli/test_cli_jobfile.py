from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.failures import Located
from orchestrator.cli.jobfile import load_job
from orchestrator.cli.yamlfile import MAX_BYTES
from orchestrator.errors import ArgosyError, Invalid

GOOD = "name: digits\ntask: a.b:C\nstop:\n  target: 0.9\n"


def faults(tmp_path: Path, text: str) -> list[tuple[str, str | None]]:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(Located) as caught:
        load_job(path)
    return [(detail.replace(str(path), "F"), hint) for detail, hint in caught.value.faults]


def test_a_whole_job_is_read(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(GOOD + "config: {lr: 1e-3, when: 2026-01-31, layers: [1, 2]}\n")
    spec = load_job(path).spec
    assert spec.config == {"lr": 0.001, "when": "2026-01-31", "layers": [1, 2]}


@pytest.mark.parametrize(
    ("text", "detail", "hint"),
    [
        (
            GOOD + "resources:\n  worker: 2\n",
            "F:6: there is no key 'resources.worker'",
            "'workers'",
        ),
        (GOOD + "max_epochs: 3\n", "F:5: there is no key 'max_epochs'", "'stop.max_epochs'"),
        (GOOD + "zzz: 3\n", "F:5: there is no key 'zzz'", "allowed here: name, task"),
        ("name: digits\nstop: {target: 1}\n", "F:1: either task, batch or onnx is needed", ""),
        ("task: a:B\nstop: {target: 1}\n", "F:1: the key 'name' is missing", "lower-case"),
        ("name: A\ntask: a:B\nstop: {target: 1}\n", "F:1: name cannot be 'A'", "lower-case"),
        ("name: a\ntask: a:B\n", "F:1: stop.target is needed unless", ""),
        (GOOD + "seed: many\n", "F:5: seed must be a whole number, not 'many'", ""),
        (GOOD + "seed: -1\n", "F:5: seed must be greater than or equal to 0, not -1", ""),
        (
            GOOD + "  metric: validation_loss\n",
            "F:5: stop.metric must be 'accuracy', not 'validation_loss'",
            "",
        ),
        (GOOD + "optimize: 3\n", "F:5: optimize must be a mapping, not 3", "its keys: int8"),
        (
            GOOD + "resources: {workers: 1,\n precision: fp8}\n",
            "F:6: resources.precision must be 'fp32' or 'bf16', not 'fp8'",
            "",
        ),
    ],
)
def test_a_fault_names_its_line_and_what_is_allowed(
    tmp_path: Path, text: str, detail: str, hint: str
) -> None:
    found = faults(tmp_path, text)
    assert len(found) == 1
    assert found[0][0].startswith(detail)
    assert hint in (found[0][1] or "")


def test_all_faults_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    found = faults(tmp_path, "nam: x\ntask: y\nstop: {target: 7}\nseed: -1\n")
    assert [detail.split(":")[1] for detail, _ in found] == ["1", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "1: not a mapping"),
        ("[1]", "1: not a mapping"),
        ("name: a\n\ttask: b", "2: not YAML"),
        ("name: a\nname: b", "2: 'name' is already set on line 1"),
        ("name: a\n---\nname: b", "2: not YAML"),
        (GOOD + "config: {x: .nan}", "5: .nan is not a finite number"),
        (GOOD + "config: {x: 1e999}", "5: 1e999 is not a finite number"),
        (GOOD + "config: {x: !!python/object:os.system y}", "5: tag:yaml.org,2002:python"),
        (GOOD + "config: {? [1] : 2}", "5: a key must be a word"),
        (GOOD + "config: " + "[" * 50 + "]" * 50, "5: more than"),
        ("x: &a [1,1,1,1,1,1,1,1]\n" + "".join(
            f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n" for p, c in zip("abcd", "bcde", strict=True)
        ), "more than"),
        ("x: &a [*a]", "more than"),
        ("x: " + "[" * 50_000, "more than"),
        ("a: " + "x" * MAX_BYTES, "larger than"),
    ],
)  # fmt: skip
def test_what_is_not_such_a_file_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(Invalid) as caught:
        load_job(path)
    assert words in caught.value.detail


def test_what_is_not_text_is_said_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(b"name: a\n\xff\xfe")
    with pytest.raises(Invalid, match=r"job\.yaml:2: not UTF-8"):
        load_job(path)


def test_a_folder_is_not_a_job_file(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot be read"):
        load_job(tmp_path)


@given(
    st.lists(
        st.sampled_from(
            ["name", "task", "stop", ":", "\n", "  ", "- ", "{", "}", "[", "]", "&a", "*a", "!x",
             "'", '"', "|", ">", "?", "#", "1e5", "~", "\t", "\x00", "é", "%", "@", "<<", ","]
        ),
        max_size=30,
    ).map("".join)
)  # fmt: skip
def test_no_text_ends_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "job.yaml"
    path.write_text(text)
    with pytest.raises(ArgosyError):
        load_job(path)
