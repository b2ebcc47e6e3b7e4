"""The entry point: the commands, and how every one of them ends."""

from __future__ import annotations

import sys

import rich_click as click

from orchestrator.cli.help_groups import STYLE
from schemas.commands import Entry, LazyGroup

_HERE = "orchestrator.cli"
_ENTRIES = {
    "demo": Entry(f"{_HERE}.demo.command:demo", "Watch the whole loop: train, ship, infer."),
    "up": Entry(f"{_HERE}.up:up", "Start the platform on this machine."),
    "doctor": Entry(f"{_HERE}.doctor:doctor", "Check what this machine has and lacks."),
    "job": Entry(f"{_HERE}.jobs:job", "Train models."),
    "batch": Entry(f"{_HERE}.batch:batch", "Score files with a model, on the cluster."),
    "agent": Entry(f"{_HERE}.agents:agent", "See the clusters that train."),
    "model": Entry(f"{_HERE}.models:model", "See and keep what was trained."),
    "device": Entry(f"{_HERE}.devices:device", "See the fleet."),
    "device-class": Entry(
        f"{_HERE}.device_classes:device_class", "Say what a variant may cost, by kind of device."
    ),
    "fleet": Entry(f"{_HERE}.fleets:fleet", "Save which devices are meant, under a name."),
    "token": Entry(f"{_HERE}.tokens:token", "Let devices join."),
    "trust": Entry(f"{_HERE}.trust:trust", "See and sign what devices trust."),
    "ca": Entry(f"{_HERE}.authority:ca", "See and replace the certificate authority."),
    "rollout": Entry(f"{_HERE}.rollouts:rollout", "Ship a model to the fleet, in waves."),
    "simulate": Entry(f"{_HERE}.simulate:simulate", "Rehearse with a fleet that is not there."),
    "experiment": Entry(
        f"{_HERE}.experiments:experiment", "Compare two versions on devices that chance chose."
    ),
    "telemetry": Entry(f"{_HERE}.telemetry:telemetry", "See what devices report of a model."),
    "login": Entry(f"{_HERE}.login:login", "Sign in to a platform elsewhere."),
    "logout": Entry(f"{_HERE}.login:logout", "Forget a platform."),
    "whoami": Entry(f"{_HERE}.login:whoami", "Show whose token is used, and its rights."),
    "profile": Entry(f"{_HERE}.profiles:profile", "Choose between platforms."),
    "api-token": Entry(f"{_HERE}.api_tokens:api_token", "Let people in, with rights."),
    "audit": Entry(f"{_HERE}.audit:audit", "See who did what; verify the log."),
    "completion": Entry(f"{_HERE}.completion:completion", "Print a shell's completion script."),
}


@click.group(
    cls=LazyGroup,
    entries=_ENTRIES,
    context_settings={"help_option_names": ["-h", "--help"], "rich_help_config": STYLE},
    epilog="New here? `argosy demo` shows it all on this machine, in a few minutes.",
)
@click.version_option(package_name="argosy", prog_name="argosy", message="%(prog)s %(version)s")
def root() -> None:
    """Train on a cluster, ship to a fleet, infer at the edge."""


def run(argv: list[str]) -> int:
    """Run a command line; the exit code is one of ``schemas.errors.Exit``."""
    try:
        answer = root.main(argv, prog_name="argosy", standalone_mode=False)
    except Exception as error:  # noqa: BLE001 - whatever it is, no traceback meets a user
        from orchestrator.cli.failures import report

        return report(error)
    return answer if isinstance(answer, int) else 0


def main() -> None:
    """The ``argosy`` command."""
    sys.exit(run(sys.argv[1:]))
