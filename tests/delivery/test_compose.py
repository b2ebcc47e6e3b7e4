"""Holds docker-compose.yml and the Dockerfiles against the code: no container engine needed."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from functools import reduce
from pathlib import Path
from typing import Any

import click
import pytest

IMAGES = ("orchestrator/Dockerfile", "workers/Dockerfile", "edge_client/Dockerfile")


@pytest.fixture(scope="session")
def project(repo: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((repo / "pyproject.toml").read_text())["project"]
    return found


def _attribute(target: str) -> Any:
    module, _, path = target.partition(":")
    return reduce(getattr, path.split("."), importlib.import_module(module))


def _click_command(target: str) -> click.Command:
    """The click command behind ``module:function``: itself, or the module's own group."""
    found = _attribute(target)
    if isinstance(found, click.Command):
        return found
    module = importlib.import_module(target.partition(":")[0])
    commands = [x for x in vars(module).values() if isinstance(x, click.Command)]
    own = [x for x in commands if x.callback and x.callback.__module__ == module.__name__]
    groups = [x for x in own if isinstance(x, click.Group)]
    assert groups or own, f"{target} has no click command"
    return (groups or own)[0]


def _parse(command: click.Command, args: Sequence[str]) -> None:
    """Parse a command line as click would, without running it; raises click.UsageError."""
    rest = list(args)
    context = None
    while isinstance(command, click.Group):
        context = click.Context(command, parent=context)
        _, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command = found
    command.make_context("x", rest, parent=context)


def _check_command(line: Sequence[str], scripts: dict[str, str]) -> None:
    """The program exists and takes these arguments."""
    program, *args = line
    if program in scripts:
        _parse(_click_command(scripts[program]), args)
    elif program == "python" and args[0] == "-m":
        assert importlib.util.find_spec(args[1]) is not None, args[1]
        _parse(_click_command(f"{args[1]}:main"), args[2:])
    elif program == "ray":
        from ray.scripts.scripts import cli

        _parse(cli, args)
    else:
        pytest.fail(f"nothing here knows the program {program!r}")


@pytest.mark.parametrize("dockerfile", IMAGES)
class TestImages:
    def test_what_it_copies_is_in_the_checkout_and_reaches_the_builder(
        self, dockerfile: str, read_image: Callable[[str], Any], repo: Path
    ) -> None:
        rules = (repo / ".dockerignore").read_text().split("\n")
        allowed = {rule[1:] for rule in rules if rule.startswith("!")}
        for name in read_image(dockerfile).copied:
            assert (repo / name).exists(), name
            assert name in allowed, f"{name} is ignored by .dockerignore"

    def test_it_installs_its_own_part_and_nothing_else(
        self, dockerfile: str, read_image: Callable[[str], Any], project: dict[str, Any]
    ) -> None:
        image = read_image(dockerfile)
        part = Path(dockerfile).parent.name
        extra = {"orchestrator": "server", "workers": "train", "edge_client": "edge"}[part]
        assert image.extra == extra
        assert extra in project["optional-dependencies"]
        packages = {"schemas", "orchestrator", "workers", "edge_client"}
        assert packages & set(image.copied) == {"schemas", part}

    def test_what_it_runs_exists(
        self, dockerfile: str, read_image: Callable[[str], Any], project: dict[str, Any]
    ) -> None:
        _check_command(read_image(dockerfile).command, project["scripts"])

    def test_it_runs_as_an_ordinary_user_of_a_pinned_python(
        self, dockerfile: str, read_image: Callable[[str], Any]
    ) -> None:
        image = read_image(dockerfile)
        assert fnmatch(image.base.split()[0], "python:3.1[1-9].*-slim-*")
        steps = image.path.read_text().splitlines()
        assert "USER argosy" in steps
        assert steps.index("USER argosy") < max(
            i for i, step in enumerate(steps) if step.startswith("CMD")
        )


class TestServices:
    def test_every_image_of_ours_is_built_by_each_service_that_uses_it(
        self, compose: Any, repo: Path
    ) -> None:
        ours: dict[str, set[str]] = {}
        for service in compose.services.values():
            if service["image"].startswith("argosy-"):
                ours.setdefault(service["image"], set()).add(service["build"]["dockerfile"])
            else:
                assert re.search(r":\d+\.\d+", service["image"]), f"{service['image']}: no version"
        assert sorted(x for found in ours.values() for x in found) == sorted(IMAGES)
        assert all((repo / x).is_file() for found in ours.values() for x in found)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
    def test_every_command_is_one_that_the_code_takes(
        self, compose: Any, project: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checked = 0
        for name in compose.services:
            with monkeypatch.context() as patch:
                for variable, value in compose.environment(name).items():
                    patch.setenv(variable, value)
                for line in compose.commands(name):
                    _check_command(line, project["scripts"])
                    checked += 1
        assert checked == 10

    def test_the_commands_that_the_header_tells_are_taken(
        self, compose: Any, project: dict[str, Any]
    ) -> None:
        told = re.findall(r"docker compose exec (\S+) (argosy .+)", compose.text)
        assert len(told) == 2
        for service, line in told:
            assert service in compose.services
            _check_command(shlex.split(line), project["scripts"])

    def test_every_mount_has_its_volume_or_its_file(self, compose: Any, repo: Path) -> None:
        used = set()
        for service in compose.services.values():
            for mount in service.get("volumes", []):
                source = mount.split(":")[0]
                if source.startswith("./"):
                    assert (repo / source).exists(), source
                else:
                    used.add(source)
        assert used == compose.volumes

    def test_what_it_waits_for_can_become_healthy(self, compose: Any) -> None:
        for name, service in compose.services.items():
            for other, how in service.get("depends_on", {}).items():
                assert other in compose.services, f"{name} waits for {other}"
                if how["condition"] == "service_healthy":
                    assert "healthcheck" in compose.services[other], other

    def test_who_speaks_to_whom_shares_a_network(self, compose: Any) -> None:
        def networks(name: str) -> set[str]:
            return set(compose.services[name]["networks"])

        assert set().union(*(networks(n) for n in compose.services)) == compose.networks
        pairs = [
            ("orchestrator", "postgres"), ("orchestrator", "broker"), ("agent", "ray-head"),
            ("ray-worker", "ray-head"), ("agent", "orchestrator"), ("ray-head", "orchestrator"),
            ("device-1", "orchestrator"), ("device-1", "broker"), ("device-2", "broker"),
        ]  # fmt: skip
        for one, other in pairs:
            assert networks(one) & networks(other), f"{one} cannot reach {other}"
        for device in ("device-1", "device-2"):
            assert not networks(device) & (networks("postgres") | networks("ray-head"))

    def test_the_secrets_to_be_set_are_the_ones_the_header_asks_for(self, compose: Any) -> None:
        header = compose.text[: compose.text.index("\nname:")]
        needed = {name for name, default in compose.variables().items() if default is None}
        assert needed == {"POSTGRES_PASSWORD", "GATEWAY_PASSWORD", "RAY_AUTH_TOKEN"}
        for name in compose.variables():
            assert name in header, f"the header does not tell of {name}"
