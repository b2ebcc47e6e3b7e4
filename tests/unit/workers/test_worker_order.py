"""What user code is given of the environment, and what it may ask to be installed."""

from __future__ import annotations

import pytest

from schemas.job import JobCause
from workers.agent.scrub import harmless
from workers.environment import requirements
from workers.environment.requirements import (
    check,
    constraints,
    explain,
    is_network,
    key_of,
    read,
    resolved,
)
from workers.errors import JobFailed

BASE = {"numpy": "2.4.6", "torch": "2.13.0+cpu", "ray": "2.60.0"}


def test_only_what_is_known_to_be_harmless_passes() -> None:
    env = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "RAY_DEDUP_LOGS": "0",
        "ARGOSY_TREE": "mark",
        "PIP_INDEX_URL": "https://index.example/simple",
        "https_proxy": "http://proxy:3128",
    }
    secret = {
        "ARGOSY_TOKEN": "x",
        "ARGOSY_DATABASE_URL": "x",
        "ARGOSY_HOME": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "RAY_AUTH_TOKEN": "x",
        "UV_PUBLISH_TOKEN": "x",
        "PIP_EXTRA_INDEX_URL": "https://me:pass@index.example/simple",
        "HTTP_PROXY": "http://me:pass@proxy:3128",
        "DATABASE_URL": "x",
        "WHATEVER": "x",
    }
    assert harmless({**env, **secret}) == env
    assert harmless({**env, **secret}, ["WHATEVER"]) == {**env, "WHATEVER": "x"}


def test_what_the_platform_has_is_met_or_refused_by_name() -> None:
    fits = b"numpy>=2\ntorch==2.13.0  # same but for the build\nother==1; python_version < '3'\n"
    check(read(fits), BASE)
    for text, says in {
        b"\n\nnumpy<2": "line 3: numpy<2 is not what the platform has, which is numpy 2.4.6",
        b"Torch==2.0": "which is Torch 2.13.0[+]cpu",
        b"ray @ https://example.org/ray.whl": "a job cannot replace it",
    }.items():
        with pytest.raises(JobFailed, match=says) as caught:
            check(read(text), BASE)
        assert caught.value.cause is JobCause.ENVIRONMENT
    check(read(b"numpy<2; python_version < '3'"), BASE)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"\xff\xfe", "not UTF-8"),
        (b"x" * 300_000, "bytes, more than"),
        (b"a\n" * 2001, "lines, more than"),
        (b"ok\n-e ./lib", "line 2: -e ./lib: nothing can be installed as editable"),
        (b"two words", "line 1: 'two words' is no requirement"),
        (b"pkg==", "line 1: 'pkg==' is no requirement"),
    ],
)
def test_files_that_are_refused(text, says) -> None:
    with pytest.raises(JobFailed, match=says):
        read(text)


def test_comments_options_and_continued_lines_are_understood() -> None:
    text = b"# all\n--no-index\na==1 \\\n  --hash=sha256:00\n\nb [x] >= 2 # why\n./c\n-r more.txt\n"
    lines = read(text)
    assert [line.text.split()[0] for line in lines] == ["--no-index", "a==1", "b", "./c", "-r"]
    assert [str(line.requirement) for line in lines if line.requirement] == ["a==1", "b[x]>=2"]


def test_an_environment_is_named_by_all_it_follows_from() -> None:
    def key(text=b"a==1", base=("x-1",), python="311", code="c1"):
        return key_of(text, base, python, code)

    assert key() == key(code="c2"), "the same packages for other code"
    others = [key(b"a==2"), key(base=("x-2",)), key(python="312"), key(b"./lib"), key(b"-r b.txt")]
    assert len({key(), *others}) == 6
    assert key(b"./lib", code="c1") != key(b"./lib", code="c2"), "what it leads to is in the code"
    assert key(base=("a", "b")) == key(base=("b", "a"))


def one(name: str, version: str, info: dict[str, object]) -> dict[str, object]:
    return {"metadata": {"name": name, "version": version}, "download_info": info}


def test_exactly_what_was_resolved_is_installed_and_never_the_platforms() -> None:
    lines = read(b"--find-links /wheels\nappdirs\n")
    found = [
        one("appdirs", "1", {"url": "u1", "archive_info": {"hashes": {"sha256": "00"}}}),
        one("mine", "2", {"url": "u2", "vcs_info": {"vcs": "git", "commit_id": "ab"}}),
        one("local", "3", {"url": "file:///c", "dir_info": {}}),
    ]
    assert resolved({"install": found}, lines, BASE).splitlines() == [
        "--find-links /wheels",
        "appdirs @ u1#sha256=00",
        "mine @ git+u2@ab",
        "local @ file:///c",
    ]
    with pytest.raises(JobFailed, match=r"NumPy 1.0 would replace the platform's NumPy 2.4.6"):
        resolved({"install": [one("NumPy", "1.0", {"url": "u"})]}, lines, BASE)
    assert constraints(BASE).splitlines()[0] == "numpy==2.4.6"


CONFLICT = """
ERROR: Cannot install -r r.txt (line 1) because these versions conflict.

The conflict is caused by:
    old 1.0 depends on numpy<2
    The user requested (constraint) numpy==2.4.6

To fix this you could try to:
1. loosen the range of package versions you've specified
ERROR: ResolutionImpossible: for help visit https://pip.pypa.io/
"""


@pytest.mark.parametrize(
    ("output", "line", "network"),
    [
        (
            CONFLICT,
            "conflict: old 1.0 depends on numpy<2; the platform has numpy==2.4.6",
            False,
        ),
        (
            "ERROR: Nothing fits\nERROR: No matching distribution found for nothing==9\n",
            "No matching distribution found for nothing==9",
            False,
        ),
        (
            "Retrying after connection broken by 'x'\nERROR: No matching distribution found for a",
            "No matching distribution found for a",
            True,
        ),
        ("", "pip said nothing", False),
        ("Collecting a\nKilled", "Killed", False),
    ],
)
def test_pips_failures_are_told_in_one_line(output, line, network) -> None:
    assert explain(output) == line
    assert is_network(output) is network


def test_limits_are_what_the_docs_say() -> None:
    assert requirements.MAX_BYTES == 256 * 1024
