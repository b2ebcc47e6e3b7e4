from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from argosy_fake_platform import job_view

from orchestrator.cli.failures import Located
from orchestrator.cli.job_faults import known_keys
from orchestrator.cli.jobfile import JobFile, cloned, load_job
from orchestrator.cli.overrides import doubts, parse
from orchestrator.errors import ArgosyError, Invalid
from schemas.job import JobState
from schemas.jobfile import JobSpec
from schemas.sweep import Span

GOOD = "name: digits\ntask: workers.recipes.digits:Digits\nstop: {target: 0.9}\nconfig: {lr: 0.1}\n"


def loaded(tmp_path: Path, *sets: str, text: str = GOOD) -> JobFile:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    return load_job(path, parse(sets))


@pytest.mark.parametrize(
    ("pair", "of", "value"),
    [
        ("stop.max_epochs=20", lambda s: s.stop.max_epochs, 20),
        ("config.lr=1e-2", lambda s: s.config, {"lr": 0.01}),
        ("config.net.width=3", lambda s: s.config, {"lr": 0.1, "net": {"width": 3}}),
        ("config.names=[a, b]", lambda s: s.config["names"], ["a", "b"]),
        ("resources.workers=2..4", lambda s: str(s.resources.workers), "2..4"),
        ("training.schedule.kind=cosine", lambda s: s.training.schedule.kind, "cosine"),
        ("model=other", lambda s: s.model, "other"),
        ("promote={alias: champion}", lambda s: s.promote.alias, "champion"),
        ("name='x'", lambda s: s.name, "x"),
        ("stop.overfit_gap=", lambda s: s.stop.overfit_gap, None),
        ("sweep.config.lr=[0.1, 0.2]", lambda s: s.sweep.space, {"config.lr": (0.1, 0.2)}),
        ("sweep.seed=[1, 2]", lambda s: s.sweep.space, {"seed": (1, 2)}),
    ],
)
def test_any_key_can_be_set(tmp_path: Path, pair: str, of: Any, value: Any) -> None:
    assert of(loaded(tmp_path, pair).spec) == value


def test_a_sweep_in_short_form_takes_more_keys(tmp_path: Path) -> None:
    text = GOOD + "sweep: {config.lr: [0.1, 0.2]}\n"
    spec = loaded(tmp_path, "sweep.parallel=2", "sweep.space.config.w=[1]", text=text).spec
    assert spec.sweep is not None
    assert (spec.sweep.parallel, len(spec.sweep.space)) == (2, 2)
    drawn = ("sweep.config.lr={min: 0.001, max: 0.1, log: true}", "sweep.method=random")
    spec = loaded(tmp_path, *drawn, "sweep.trials=4", text=text).spec
    assert spec.sweep is not None
    assert spec.sweep.space["config.lr"] == Span(min=0.001, max=0.1, log=True)
    assert loaded(tmp_path, "sweep=null", text=text).spec.sweep is None


@pytest.mark.parametrize(
    ("pair", "detail", "hint"),
    [
        ("stop.max_epoch=3", "has no key 'stop.max_epoch'", "'stop.max_epochs'"),
        ("max_epochs=3", "has no key 'max_epochs'", "'stop.max_epochs'"),
        ("resource.workers=2", "has no key 'resource.workers'", "'resources.workers'"),
        ("training.shedule.kind=cosine", "has no key 'training.shedule.kind'", "schedule.kind"),
        ("cloned_from=job_x", "has no key 'cloned_from'", ""),
        ("stop..target=1", "has no key 'stop..target'", ""),
        ("zzzz=1", "has no key 'zzzz'", "with dots"),
        ("sweep.confg.lr=[1]", "has no key 'sweep.confg.lr'", ""),
        ("stop.target", "not of the form key=value", ""),
        ("=1", "not of the form key=value", ""),
        ("stop.target=[", "is not a value in YAML", "quotes"),
        ("stop.target=!!python/object:os.system x", "not allowed here", ""),
        ("config.x=" + "[" * 60, "is not a value in YAML", ""),
    ],
)
def test_a_wrong_pair_is_one_line(pair: str, detail: str, hint: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse([pair])
    assert detail in caught.value.detail
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("pair", "detail"),
    [
        ("seed=-1", "--set seed: seed must be greater than or equal to 0, not -1"),
        ("stop=3", "--set stop: stop must be a mapping, not 3"),
        ("resources.workers=8..2", "--set resources.workers: resources.workers: 8..2 is an empty"),
        ("resources.workers=0", "--set resources.workers: resources.workers must be greater"),
        ("sweep.config.lr=3", "--set sweep.config.lr: sweep.space.config.lr must be a list"),
        ("sweep.config.lr={min: 2, max: 1}", "--set sweep.config.lr: sweep.space.config.lr needs"),
    ],
)
def test_a_value_that_is_not_allowed_names_its_option(
    tmp_path: Path, pair: str, detail: str
) -> None:
    with pytest.raises(Located) as caught:
        loaded(tmp_path, pair)
    assert [text.startswith(detail) for text, _ in caught.value.faults] == [True]


def test_every_key_of_a_spec_is_known() -> None:
    keys = known_keys()
    for key in ("stop.max_epochs", "training.schedule.floor", "sweep.parallel", "batch.model"):
        assert key in keys
    assert "resources.workers.min" not in keys
    assert {key.partition(".")[0] for key in keys} == set(JobSpec.model_fields) - {"cloned_from"}


def test_what_only_the_task_can_judge_is_doubted(tmp_path: Path) -> None:
    notes = loaded(tmp_path, "config.lrr=3", "config.lr=2").notes
    assert notes == (
        "config.lrr is not among the job's config keys: it is added; did you mean config.lr?",
    )
    assert doubts({"config": {}}, parse(["config.x=1"])) == []


SHORT = "name: a\ntask: a:B\nstop: {target: 0.9}\n"


@pytest.mark.parametrize(
    ("text", "detail", "hint"),
    [
        ("sweep:\n  config.lr: 3\n", ":5: sweep.space.config.lr must be a list of values", ""),
        ("sweep:\n  config.lr: []\n", ":5: sweep.space.config.lr must be a list of values", ""),
        ("sweep:\n  confg.lr: [1]\n", ":5: confg.lr cannot be swept", "config.lr: [0.1, 0.01]"),
        ("sweep:\n  config.lr: {min: 1, max: 2}\n", ":4: sweep: a grid needs lists", ""),
        ("sweep: {space: {config.lr: [1]}, trails: 2}\n", ":4: there is no key 'sweep.trails'",
         "'trials'"),
        ("sweep: {}\n", ":4: the key 'sweep.space' is missing", "config.lr"),
        ("batch: {model: x, input: i, output: o}\n", ":4: batch.model cannot be 'x'", "digits@3"),
        ("training: {schedule: {kind: cos}}\n", ":4: training.schedule.kind must be", ""),
        ("resources: {workers: [1]}\n", ":4: resources.workers must be a number or a range",
         "2..8"),
        ("code: 3\n", ":4: code must be the path of a folder, not 3", "`code: .`"),
        ("code: nowhere\n", ":4: code: there is no folder 'nowhere'", "looked for from"),
        ("cloned_from: me\n", ":4: cloned_from cannot be 'me'", ""),
    ],
)  # fmt: skip
def test_faults_of_the_newer_sections(tmp_path: Path, text: str, detail: str, hint: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(SHORT + text)
    with pytest.raises(ArgosyError) as caught:
        load_job(path)
    found = caught.value
    faults = found.faults if isinstance(found, Located) else [(found.detail, found.hint)]
    assert len(faults) == 1
    assert faults[0][0].startswith(f"{path}{detail}")
    assert hint in (faults[0][1] or "")


def project(tmp_path: Path, *files: str) -> Path:
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_the_folder_of_the_task_beside_the_file_is_its_code(tmp_path: Path) -> None:
    assert loaded(tmp_path, "task=my.task:T").folder is None
    project(tmp_path, "my/__init__.py")
    assert loaded(tmp_path, "task=my.task:T").folder == tmp_path
    project(tmp_path, "one.py")
    assert loaded(tmp_path, "task=one:T").folder == tmp_path
    project(tmp_path, "workers/__init__.py")
    assert loaded(tmp_path).folder is None, "a recipe is installed, whatever lies here"


def test_a_named_folder_is_meant_from_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(tmp_path, "src/my.py", "elsewhere/my.py")
    text = GOOD.replace("workers.recipes.digits:Digits", "my:T") + "code: src\n"
    job = loaded(tmp_path, text=text)
    assert (job.folder, job.spec.code, job.notes) == (tmp_path / "src", None, ())
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert loaded(tmp_path, "code=.", text=text).folder == tmp_path / "elsewhere"


def test_a_module_that_is_nowhere_is_a_hint(tmp_path: Path) -> None:
    text = GOOD.replace("workers.recipes.digits:Digits", "other.task:T")
    (note,) = loaded(tmp_path, text=text).notes
    assert "other must be installed on the cluster" in note
    project(tmp_path, "src/my.py")
    (note,) = loaded(tmp_path, text=text + "code: src\n").notes
    assert f"{tmp_path / 'src'} has no module other" in note
    assert loaded(tmp_path).notes == ()


def test_code_that_was_uploaded_before_is_named_by_its_digest(tmp_path: Path) -> None:
    job = loaded(tmp_path, "code={sha256: '" + "ab" * 32 + "', size: 10, files: 1}")
    assert job.folder is None
    assert job.spec.code is not None


def test_a_clone_keeps_the_code_and_says_where_it_is_from() -> None:
    code = {"sha256": "ab" * 32, "size": 10, "files": 1}
    spec = JobSpec.model_validate(
        {"name": "a", "task": "a:B", "stop": {"target": 0.9}, "code": code, "config": {"lr": 1},
         "sweep": {"config.lr": [1, 2]}, "resources": {"workers": "2..8"}}
    )  # fmt: skip
    job = job_view(JobState.FAILED, spec=spec)
    made = cloned(job, parse(["config.lr=2", "sweep=null", "name=b"]))
    assert made.cloned_from == job.id
    assert made == spec.model_copy(
        update={"cloned_from": job.id, "config": {"lr": 2}, "sweep": None, "name": "b"}
    )
    with pytest.raises(Invalid, match="runs the code of the job"):
        cloned(job, parse(["code=."]))
    with pytest.raises(Located, match="--set seed"):
        cloned(job, parse(["seed=x"]))
