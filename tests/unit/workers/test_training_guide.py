"""The guide for those who submit jobs says what the job file's schema says."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from schemas.job import JobCause
from schemas.jobfile import RESERVED_MODULES, JobSpec
from schemas.lineage import Code
from schemas.signature import Signature
from schemas.workers import WorkerRange

GUIDE = Path(__file__).parents[3] / "docs" / "training.md"
NOT_FOR_PEOPLE = {"cloned_from"}
ROW = re.compile(r"^\| `([a-z0-9_.]+)` \| (required|`[^`]*`) \|", re.MULTILINE)


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a key holds, if it is no plain value."""
    options = [field.annotation]
    if isinstance(field.annotation, types.UnionType):
        options = list(typing.get_args(field.annotation))
    for option in options:
        if isinstance(option, type) and issubclass(option, BaseModel):
            return None if option in {WorkerRange, Code, Signature} else option
    return None


def keys_of(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        inner = section_of(field)
        if inner is not None:
            yield from keys_of(inner, f"{above}{name}.")
        elif name not in NOT_FOR_PEOPLE:
            yield f"{above}{name}", field


def default_of(field: FieldInfo) -> typing.Any:
    value = field.get_default(call_default_factory=True)
    return TypeAdapter(type(value)).dump_python(value, mode="json")


@pytest.fixture(scope="module")
def guide() -> str:
    return GUIDE.read_text()


@pytest.fixture(scope="module")
def rows(guide: str) -> dict[str, str]:
    found = ROW.findall(guide)
    assert len(found) == len(dict(found)), "no key stands twice"
    return dict(found)


def test_the_table_has_every_key_of_a_job_file_and_no_other(rows: dict[str, str]) -> None:
    assert set(rows) == {key for key, _ in keys_of(JobSpec)}


@pytest.mark.parametrize(("key", "field"), list(keys_of(JobSpec)), ids=lambda x: str(x)[:40])
def test_the_tables_default_is_the_schemas(rows: dict[str, str], key: str, field) -> None:
    told = rows[key]
    if field.is_required():
        assert told == "required"
    else:
        assert yaml.safe_load(told.strip("`")) == default_of(field)


def test_every_cause_of_a_failure_is_explained(guide: str) -> None:
    part = guide.split("## Failures")[1].split("\n## ", maxsplit=1)[0]
    told = re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)
    assert sorted(told) == sorted(JobCause)


def test_reserved_names_are_told(guide: str) -> None:
    part = guide.split("## The code folder")[1].split("\n## ", maxsplit=1)[0]
    assert {name for name in RESERVED_MODULES if f"`{name}`" not in part} == set()


def test_the_job_files_that_it_shows_can_be_read(guide: str) -> None:
    shown = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)]
    whole = [one for one in shown if "task" in one]
    sweeps = [one for one in shown if "sweep" in one]
    assert (len(whole), len(sweeps)) == (1, 2)
    base = JobSpec.model_validate(whole[0])
    assert base.entrypoint == "task:Wine"
    for one in sweeps:
        assert JobSpec.model_validate({**whole[0], **one}).sweep is not None
