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
from urllib.parse import urlsplit

import click
import pytest

from orchestrator.adapters import broker as embedded
from orchestrator.settings import PREFIX, Settings, load
from schemas.api import MQTT_PORT, PORT

IMAGES = ("orchestrator/Dockerfile", "workers/Dockerfile", "edge_client/Dockerfile")
# The listener of deploy/mosquitto/mosquitto.conf for the orchestrator.
PLAIN_PORT = 1883


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


def _commands_of(service: dict[str, Any]) -> list[list[str]]:
    """A service's command lines; of a shell script those that begin with a program of ours."""
    command = service.get("command")
    if command is None:
        return []
    if command[0] != "sh":
        return [list(command)]
    found = re.findall(r"\b(argosy-edge [^|&;>\n]+)", command[2])
    return [shlex.split(line) for line in found]


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
        for name, service in compose.services.items():
            with monkeypatch.context() as patch:
                for variable, value in compose.environment(name).items():
                    patch.setenv(variable, value)
                for line in _commands_of(service):
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


class TestOrchestrator:
    @pytest.fixture
    def settings(self, compose: Any) -> Settings:
        return load(compose.environment("orchestrator"))

    def test_every_variable_is_one_that_is_read(self, compose: Any) -> None:
        known = {f"{PREFIX}{name.upper()}" for name in Settings.__dataclass_fields__}
        assert set(compose.environment("orchestrator")) <= known

    def test_it_starts_neither_a_broker_nor_ray(self, settings: Settings) -> None:
        assert not settings.embedded_broker

    def test_its_ports_are_the_ones_that_are_published(
        self, compose: Any, settings: Settings
    ) -> None:
        assert settings.port == PORT
        assert settings.mqtt_port == MQTT_PORT
        assert compose.services["orchestrator"]["ports"] == [f"{PORT}:{PORT}"]
        assert compose.services["broker"]["ports"] == [f"{MQTT_PORT}:{MQTT_PORT}"]

    def test_its_certificate_is_valid_for_the_names_in_use(
        self, compose: Any, settings: Settings
    ) -> None:
        assert settings.tls
        assert {"orchestrator", "broker", "127.0.0.1"} <= set(settings.names)
        assert {"orchestrator", "broker"} <= set(compose.services)

    def test_the_database_is_the_service(self, compose: Any, settings: Settings) -> None:
        server = compose.environment("postgres")
        url = urlsplit(settings.database)
        assert url.hostname == "postgres"
        assert (url.username, url.password) == (
            server["POSTGRES_USER"],
            server["POSTGRES_PASSWORD"],
        )
        assert url.path == f"/{server['POSTGRES_DB']}"

    def test_the_broker_is_the_service(self, compose: Any, settings: Settings, repo: Path) -> None:
        assert settings.broker_url is not None
        gateway = embedded.external_gateway(settings.broker_url)
        assert gateway.host == "broker"
        assert gateway.username == embedded.GATEWAY_USER
        assert gateway.password == compose.environment("broker")["GATEWAY_PASSWORD"]
        listeners = re.findall(
            r"^listener (\d+)", (repo / "deploy/mosquitto/mosquitto.conf").read_text(), re.MULTILINE
        )
        assert listeners == [str(MQTT_PORT), str(PLAIN_PORT)]
        assert gateway.port == PLAIN_PORT
        assert not any(str(PLAIN_PORT) in p for p in compose.services["broker"]["ports"])

    def test_the_broker_finds_the_certificates_where_the_orchestrator_keeps_them(
        self, compose: Any, settings: Settings, repo: Path
    ) -> None:
        from orchestrator.home import Home

        volumes = dict(v.split(":")[:2] for v in compose.services["broker"]["volumes"])
        home = dict(v.split(":")[:2] for v in compose.services["orchestrator"]["volumes"])["data"]
        assert Path(home) == settings.home
        script = (repo / "deploy/mosquitto/start.sh").read_text()
        seen = re.search(r"^FROM=\$\{FROM:-(.+)\}$", script, re.MULTILINE)
        files = re.search(r'^FILES="(.+)"$', script, re.MULTILINE)
        assert seen is not None
        assert files is not None
        own = Home(settings.home)
        needed = (own.ca_pem, own.server_pem, own.server_key, own.crl_pem)
        inside = {Path(volumes["data"]) / path.relative_to(settings.home) for path in needed}
        assert {Path(seen[1]) / name for name in files[1].split()} == inside


class TestOthers:
    def test_devices_take_from_the_environment_what_they_are_not_told(
        self, compose: Any, read_image: Callable[[str], Any]
    ) -> None:
        from edge_client.cli import cli

        image = read_image("edge_client/Dockerfile")
        advertised = load(compose.environment("orchestrator")).advertised_url
        for name in ("device-1", "device-2"):
            env = {**image.env, **compose.environment(name)}
            assert env["ARGOSY_SERVER"] == advertised
            command, run, status = (
                cli.commands["enroll"],
                cli.commands["run"],
                cli.commands["status"],
            )
            needed = {p.envvar for p in command.params if p.required or p.name == "home"}
            assert needed == {"ARGOSY_SERVER", "ARGOSY_TOKEN", "ARGOSY_EDGE_HOME"}
            assert needed <= set(env)
            for one in (run, status):
                assert "ARGOSY_EDGE_HOME" in {p.envvar for p in one.params}

    def test_devices_keep_separate_homes(
        self, compose: Any, read_image: Callable[[str], Any]
    ) -> None:
        home = read_image("edge_client/Dockerfile").env["ARGOSY_EDGE_HOME"]
        homes = [compose.services[name]["volumes"] for name in ("device-1", "device-2")]
        assert homes == [[f"device-1:{home}"], [f"device-2:{home}"]]

    def test_the_agent_reads_what_the_orchestrator_shares(self, compose: Any) -> None:
        command = compose.services["orchestrator"]["command"]
        folder = command[command.index("--share") + 1]
        agent = _commands_of(compose.services["agent"])[0]
        assert agent[agent.index("--home") + 1] == folder
        for name in ("orchestrator", "agent"):
            mounts = dict(v.split(":")[:2] for v in compose.services[name]["volumes"])
            assert mounts["worker"] == folder

    def test_both_ray_nodes_see_the_jobs_where_the_agent_puts_them(self, compose: Any) -> None:
        agent = _commands_of(compose.services["agent"])[0]
        folder = agent[agent.index("--storage") + 1]
        for name in ("ray-head", "ray-worker"):
            assert f"jobs:{folder}" in compose.services[name]["volumes"]

    def test_the_agent_speaks_to_the_dashboard_of_the_head(self, compose: Any) -> None:
        head = compose.services["ray-head"]["command"]
        port = next(x for x in head if x.startswith("--dashboard-port=")).partition("=")[2]
        assert compose.environment("agent")["RAY_ADDRESS"] == f"http://ray-head:{port}"
        assert "--dashboard-host=0.0.0.0" in head

    def test_the_ray_nodes_find_each_other(self, compose: Any) -> None:
        head = compose.services["ray-head"]["command"]
        port = next(x for x in head if x.startswith("--port=")).removeprefix("--port=")
        assert f"--address=ray-head:{port}" in compose.services["ray-worker"]["command"]
        tokens = {
            name: (
                compose.environment(name)["RAY_AUTH_MODE"],
                compose.environment(name)["RAY_AUTH_TOKEN"],
            )
            for name in ("ray-head", "ray-worker", "agent")
        }
        assert set(tokens.values()) == {("token", "ray-secret")}
