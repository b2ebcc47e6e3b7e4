"""Holds the services of docker-compose.yml against each other and against the code's settings."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from orchestrator.adapters import broker as embedded
from orchestrator.settings import PREFIX, Settings, load
from schemas.api import MQTT_PORT, PORT

# The listener of orchestrator/mosquitto/mosquitto.conf for the orchestrator.
PLAIN_PORT = 1883


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
        text = (repo / "orchestrator/mosquitto/mosquitto.conf").read_text()
        listeners = re.findall(r"^listener (\d+)", text, re.MULTILINE)
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
        script = (repo / "orchestrator/mosquitto/start.sh").read_text()
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
            command, run, status = map(cli.load, ("enroll", "run", "status"))
            taken = {p.envvar for p in command.params if p.envvar}
            assert taken >= {"ARGOSY_SERVER", "ARGOSY_TOKEN", "ARGOSY_EDGE_HOME"}
            assert {p.envvar for p in command.params if p.required} <= set(env)
            assert "ARGOSY_EDGE_HOME" in env
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
        agent = compose.commands("agent")[0]
        assert agent[agent.index("--home") + 1] == folder
        for name in ("orchestrator", "agent"):
            mounts = dict(v.split(":")[:2] for v in compose.services[name]["volumes"])
            assert mounts["worker"] == folder

    def test_both_ray_nodes_see_the_jobs_where_the_agent_puts_them(self, compose: Any) -> None:
        agent = compose.commands("agent")[0]
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
