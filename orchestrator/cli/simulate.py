"""``argosy simulate``: a fleet that is not there, to rehearse a rollout with."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from orchestrator.cli.options import Span


@click.command()
@click.option("--devices", type=click.IntRange(1, 100_000), default=100, show_default=True,
              metavar="N", help="How many.")  # fmt: skip
@click.option(
    "--profile",
    default="healthy",
    show_default=True,
    metavar="NAME|FILE",
    help="healthy, mixed, rough, or a file in YAML.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31),
    default=0,
    show_default=True,
    metavar="N",
    help="The same one draws the same faults.",
)
@click.option(
    "--token", envvar="ARGOSY_TOKEN", help="A join token for all  [default: made for each class]."
)
@click.option("--server", metavar="URL", help="The platform  [default: as your profile says].")
@click.option(
    "--for", "seconds", type=Span(), help="How long, as in 90s or 10m  [default: until Ctrl-C]."
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for identities, used again  [default: HOME/simulator].",
)
@click.option(
    "--connects", type=click.FloatRange(1, 10_000), default=250.0, show_default=True,
    help="New connections a second.",
)  # fmt: skip
@click.option(
    "--figures",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the summary, written anew each second while it runs.",
)
@click.option("--show", is_flag=True, help="Print the profile as YAML, and do nothing.")
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder with the platform's credentials  [env: ARGOSY_HOME, ARGOSY_PROFILE].",
)
def simulate(
    *,
    devices: int,
    profile: str,
    seed: int,
    token: str | None,
    server: str | None,
    seconds: float | None,
    state: Path | None,
    connects: float,
    figures: Path | None,
    show: bool,
    home: Path | None,
) -> int:
    """Simulate a fleet: MQTT clients that enroll, update and report like devices.

    As in `argosy simulate --devices 1000 --profile mixed --for 10m`, and a rollout beside it.
    What goes wrong on them, and how a version behaves, stands in the profile. The summary is
    JSON on stdout.
    """
    from orchestrator.cli.simulate_run import Asked, print_profile, simulate_fleet

    if show:
        return print_profile(profile)
    asked = Asked(
        devices=devices,
        profile=profile,
        seed=seed,
        token=token,
        server=server,
        seconds=seconds,
        state=state,
        connects=connects,
        figures=figures,
        home=home,
    )
    return simulate_fleet(asked)
