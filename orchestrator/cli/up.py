"""``argosy up``: the platform on this machine, in one process tree."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

if TYPE_CHECKING:
    from orchestrator.settings import Settings
    from orchestrator.supervisor import TreeEvent


@click.command()
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for everything it keeps  [default: $ARGOSY_HOME, ~/.argosy].",
)
@click.option("--host", help="Address of the API; beyond loopback it speaks TLS.")
@click.option("--port", type=int, help="Port of the API  [default: 8420].")
@click.option("--mqtt-host", help="Address of the broker for devices.")
@click.option("--mqtt-port", type=int, help="Port of the broker for devices  [default: 8883].")
@click.option("--no-agent", is_flag=True, help="Train elsewhere: start no Ray here.")
def up(
    *,
    home: Path | None,
    host: str | None,
    port: int | None,
    mqtt_host: str | None,
    mqtt_port: int | None,
    no_agent: bool,
) -> None:
    """Start the platform on this machine; Ctrl-C ends all of it."""
    from orchestrator import settings as settings_module
    from orchestrator.supervisor import run

    settings = settings_module.load(
        os.environ,
        home=home,
        host=host,
        port=port,
        mqtt_host=mqtt_host,
        mqtt_port=mqtt_port,
        embedded_agent=False if no_agent else None,
    )
    display = Display(settings, time.monotonic())
    display.begin()
    run(settings, display.event, prepare_database=display.prepare)


@dataclass(slots=True)
class Display:
    """Says what the process tree does. started: by the monotonic clock."""

    settings: Settings
    started: float
    is_up: bool = False
    stopping: bool = False
    begun: dict[str, float] = field(default_factory=dict)
    first_token: str | None = field(default=None, repr=False)

    def begin(self) -> None:
        """The first lines."""
        from importlib.metadata import version

        from rich.text import Text

        from orchestrator.cli import console

        title = Text.assemble(("argosy ", "bold"), (version("argosy"), "bold"))
        console.say(title, Text("one machine, one process tree: not for production", "yellow"))

    def prepare(self, settings: Settings) -> None:
        """Prepare the database, and keep the first admin's token until it can be shown."""
        from orchestrator.supervisor import bootstrap

        self.first_token = bootstrap(settings)

    def event(self, event: TreeEvent) -> None:
        """Tell of one event."""
        from rich.text import Text

        from orchestrator.cli import console

        now, name = time.monotonic(), event.child or ""
        if event.kind == "up":
            self.is_up = True
            self._address(now)
        elif event.kind in {"starting", "restarted"}:
            self.begun[name] = now
            if event.kind == "restarted":
                console.stamped(Text(f"{name} started again", "yellow"))
        elif event.kind == "ready":
            took = console.duration(now - self.begun.get(name, now))
            line = Text.assemble(("✓ ", "green"), f"{name:<8}", (took, "dim"))
            if self.is_up:
                console.stamped(line)
            else:
                console.say(Text("  ").append_text(line))
        elif event.kind == "died":
            console.stamped(Text(f"{name} died {event.detail or ''}", "red"))
        elif event.kind == "stopped":
            self._stopped(event)

    def _stopped(self, event: TreeEvent) -> None:
        from orchestrator.cli import console

        if not self.stopping:
            self.stopping = True
            console.say("")
        if event.child is None:
            console.say(event.detail or "everything is stopped", style="dim")
        else:
            console.say(f"  stopped {event.child}", style="dim")

    def _address(self, now: float) -> None:
        from rich.text import Text

        from orchestrator.cli import console
        from orchestrator.settings import load

        home, url = self.settings.home, self.settings.advertised_url
        broker = f"mqtts://{self.settings.mqtt_public_host}:{self.settings.mqtt_port}"
        is_default = home == load({"HOME": os.environ.get("HOME", "~")}).home
        lines = [
            ("platform", Text(url, "bold")),
            ("devices", Text(broker)),
            ("home", Text(str(home))),
            ("logs", Text(str(home / "logs"))),
            ("token", Text(f"in {home / 'credentials.json'}; the argosy command finds it there")),
            *(("CA SHA256", Text(digest)) for digest in self._authorities()),
        ]
        console.say(f"  up after {console.duration(now - self.started)}\n", style="dim")
        for label, value in lines:
            console.say(Text(f"  {label:<10}", "dim").append_text(value))
        console.say("")
        self._show_first_token()
        if not is_default:
            console.say(Text("  elsewhere ", "dim").append(f"export ARGOSY_HOME={home}", "not dim"))
        trains = self.settings.embedded_agent
        step = "argosy job submit FILE --watch" if trains else "argosy token create"
        console.say(Text("  next      ", "dim").append(step, "not dim"))
        console.say("  Ctrl-C stops everything", style="dim")

    def _authorities(self) -> list[str]:
        """What `argosy login` is told to trust; nothing while the API is this machine's own."""
        from orchestrator.client.errors import ProfileError
        from orchestrator.client.login import read_ca, roots_in
        from orchestrator.home import Home

        if not self.settings.tls:
            return []
        try:
            return [root.sha256 for root in roots_in(read_ca(Home(self.settings.home).ca_pem))]
        except ProfileError:
            return []

    def _show_first_token(self) -> None:
        from rich.text import Text

        from orchestrator.cli import console

        token, self.first_token = self.first_token, None
        if token is None:
            return
        console.say(Text("  The first admin's token, shown this once:", "bold"))
        # On stdout and by itself: a result, and not part of what is told about the start.
        click.echo(token)
        url = self.settings.advertised_url
        console.say(f"  from elsewhere: argosy login {url}", style="dim")
        console.say("  for others:     argosy api-token create NAME --role viewer", style="dim")
        console.say("  Anybody who has it may do everything here: keep it as a password.\n")
