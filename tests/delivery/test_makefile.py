"""The way from a bare clone: make's targets, the scripts behind them, the pinned versions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


def _make(repo: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/usr/bin/env", "make", *args],
        cwd=repo,
        env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_make_alone_says_what_there_is(repo: Path) -> None:
    shown = _make(repo)
    assert shown.returncode == 0
    targets = re.findall(r"^  ([a-z-]+) ", shown.stdout, re.MULTILINE)
    assert {"demo", "test", "check", "bench", "clean"} <= set(targets)
    for target in targets:
        assert _make(repo, "-n", target).returncode == 0, target


def test_demo_passes_its_arguments_on(repo: Path) -> None:
    planned = _make(repo, "-n", "demo", "ARGS=--keep --devices 3").stdout
    assert ".venv/bin/argosy demo --keep --devices 3" in planned
    assert ".ci/need.sh mosquitto" in planned


def test_ci_runs_what_a_newcomer_runs(repo: Path) -> None:
    script = (repo / ".ci/run").read_text().splitlines()
    assert script[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in script
    assert script[-1] == "exec make test </dev/null"
    planned = _make(repo, "-n", "test").stdout
    steps = ["ruff check", "ruff format --check", "mypy", "lint-imports", "pytest"]
    found = [planned.rindex(step) for step in steps]
    assert found == sorted(found), "pytest's summary comes last"


class TestScripts:
    @pytest.fixture
    def fake(self, tmp_path: Path) -> Path:
        """A folder for programs that stand before the system's own on PATH."""
        folder = tmp_path / "bin"
        folder.mkdir()
        return folder

    def _program(self, fake: Path, name: str, text: str) -> Path:
        path = fake / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def _run(self, script: Path, fake: Path, *args: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": f"{fake}:/usr/bin:/bin", "PYTHON": str(fake / "python")}
        return subprocess.run(
            ["/bin/sh", script, *args],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def test_a_python_that_is_too_old_is_refused_in_one_line(self, repo: Path, fake: Path) -> None:
        self._program(fake, "python", "exit 1")
        said = self._run(repo / ".ci/find_python.sh", fake)
        assert said.returncode == 1
        assert said.stdout == ""
        assert len(said.stderr.splitlines()) == 1
        assert "needs Python 3.11 or newer" in said.stderr

    def test_a_python_that_fits_is_found(self, repo: Path, fake: Path) -> None:
        (fake / "python").symlink_to(sys.executable)
        said = self._run(repo / ".ci/find_python.sh", fake)
        assert said.returncode == 0
        assert said.stdout.strip() == str(fake / "python")

    @pytest.mark.usefixtures("mosquitto")
    def test_what_is_there_is_not_installed(self, repo: Path, fake: Path) -> None:
        self._program(fake, "apt-get", "exit 9")
        said = self._run(repo / ".ci/need.sh", fake, "mosquitto")
        assert (said.returncode, said.stdout, said.stderr) == (0, "", "")

    def _python_without_venv(self, fake: Path) -> None:
        # Has venv once the file "installed" is there, and says that it is Python 3.12.
        self._program(
            fake,
            "python",
            f'case "$2" in *ensurepip*) test -e {fake}/installed;; *) echo python3.12-venv;; esac',
        )

    def test_what_is_missing_is_installed_as_root(self, repo: Path, fake: Path) -> None:
        self._python_without_venv(fake)
        self._program(fake, "id", "echo 0")
        self._program(fake, "apt-get", f'echo "$@" >>{fake}/calls; touch {fake}/installed')
        said = self._run(repo / ".ci/need.sh", fake, "venv")
        assert said.returncode == 0, said.stderr
        calls = (fake / "calls").read_text().splitlines()
        assert calls[-1].endswith("install -y --no-install-recommends python3.12-venv")

    def test_others_use_sudo_without_a_prompt(self, repo: Path, fake: Path) -> None:
        self._python_without_venv(fake)
        self._program(fake, "id", "echo 1000")
        self._program(fake, "sudo", f'echo "sudo $*" >>{fake}/sudo-calls; shift; exec "$@"')
        self._program(fake, "apt-get", f"touch {fake}/installed")
        said = self._run(repo / ".ci/need.sh", fake, "venv")
        assert said.returncode == 0, said.stderr
        assert (fake / "sudo-calls").read_text().startswith("sudo -n apt-get")

    def test_a_failed_installation_names_the_package(self, repo: Path, fake: Path) -> None:
        self._python_without_venv(fake)
        self._program(fake, "id", "echo 0")
        self._program(fake, "apt-get", "exit 100")
        said = self._run(repo / ".ci/need.sh", fake, "venv")
        assert said.returncode == 1
        assert "install the package python3.12-venv as root (apt-get)" in said.stderr

    def _in_memory(self, repo: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        path = {"PATH": os.environ["PATH"]}
        return subprocess.run(
            [repo / ".ci/in_memory.sh", *command],
            env=path | env,
            capture_output=True,
            text=True,
            check=False,
        )

    def test_tests_have_a_folder_of_their_own_only_while_they_run(self, repo: Path) -> None:
        said = self._in_memory(repo, "sh", "-c", 'mktemp; echo "${TMPDIR:-}"; exit 7')
        assert (said.returncode, said.stderr) == (7, "")
        file, _, folder = said.stdout.removesuffix("\n").partition("\n")
        assert (Path(file).parent, Path(file).exists()) == (Path(folder or "/tmp"), not folder)  # noqa: S108
        assert not folder or not Path(folder).exists()

    def test_a_folder_that_somebody_chose_stays_theirs(self, repo: Path, tmp_path: Path) -> None:
        said = self._in_memory(
            repo, "sh", "-c", 'mktemp; exit "$1"', "sh", "5", TMPDIR=f"{tmp_path}"
        )
        assert said.returncode == 5
        assert Path(said.stdout.strip()).parent == tmp_path
        assert Path(said.stdout.strip()).exists()


class TestConstraints:
    @pytest.fixture
    def pinned(self, repo: Path) -> dict[str, Version]:
        lines = (repo / "constraints.txt").read_text().splitlines()
        pairs = [line.split("==") for line in lines if line and line[0] != "#"]
        assert all(len(pair) == 2 for pair in pairs)
        return {canonicalize_name(name): Version(version) for name, version in pairs}

    def test_everything_that_is_asked_for_is_pinned_within_its_range(
        self, repo: Path, pinned: dict[str, Version]
    ) -> None:
        found = tomllib.loads((repo / "pyproject.toml").read_text())
        project = found["project"]
        asked = [*project["dependencies"], *found["dependency-groups"]["dev"]]
        asked += [x for extra in project["optional-dependencies"].values() for x in extra]
        for text in asked:
            need = Requirement(text)
            assert need.specifier.contains(pinned[canonicalize_name(need.name)]), text

    def test_what_runs_here_is_what_is_pinned(self, repo: Path, pinned: dict[str, Version]) -> None:
        found = tomllib.loads((repo / "pyproject.toml").read_text())
        project = found["project"]
        todo = [*project["dependencies"], *found["dependency-groups"]["dev"]]
        todo += [x for extra in project["optional-dependencies"].values() for x in extra]
        here: dict[str, Version] = {}
        seen: set[str] = set()
        while todo:
            text = todo.pop()
            need = Requirement(text)
            extras = need.extras or {""}
            if text in seen:
                continue
            seen.add(text)
            installed = metadata.distribution(need.name)
            here[canonicalize_name(need.name)] = Version(Version(installed.version).public)
            for further in installed.requires or []:
                marker = Requirement(further).marker
                if marker is None or any(marker.evaluate({"extra": one}) for one in extras):
                    todo.append(further)
        assert len(here) > 100
        assert {name: v for name, v in here.items() if pinned.get(name) != v} == {}

    def test_torch_is_pinned_without_a_build_label(self, pinned: dict[str, Version]) -> None:
        # With a label only one build would fit; without a pin, the newest CUDA one comes.
        assert pinned["torch"].local is None

    def test_no_file_for_installing_names_a_place_to_install_from(self, repo: Path) -> None:
        files = ["Makefile", "constraints.txt", "pyproject.toml", "docker-compose.yml"]
        files += [str(p.relative_to(repo)) for p in (repo / ".ci").iterdir()]
        files += [str(p.relative_to(repo)) for p in repo.glob("*/Dockerfile")]
        for name in files:
            text = (repo / name).read_text()
            assert not re.search(r"index-url|find-links|--trusted-host", text), name


def test_the_shell_scripts_are_plain_sh(repo: Path) -> None:
    shell = shutil.which("dash") or "/bin/sh"
    scripts = [*(repo / ".ci").glob("*.sh"), repo / "orchestrator/mosquitto/start.sh"]
    assert len(scripts) == 5
    for script in scripts:
        assert os.access(script, os.X_OK), script
        subprocess.run([shell, "-n", script], check=True)
