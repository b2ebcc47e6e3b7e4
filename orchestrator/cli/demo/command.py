"""The command: its options, and that nothing is left behind however it ends."""

from __future__ import annotations

from pathlib import Path

import rich_click as click


@click.command()
@click.option("--job", type=click.Path(path_type=Path), help="Job file  [default: the digits].")
@click.option(
    "--devices", type=click.IntRange(1, 50), default=5, show_default=True, help="How many."
)
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to keep everything in  [default: a fresh one, removed at the end].",
)
@click.option("--port", default="8420", show_default=True, help="Port of the API, or auto.")
@click.option("--mqtt-port", default="8883", show_default=True, help="Broker's port, or auto.")
@click.option("--keep", is_flag=True, help="Leave it all running until Ctrl-C.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write figures."
)
def demo(
    *,
    job: Path | None,
    devices: int,
    home: Path | None,
    port: str,
    mqtt_port: str,
    keep: bool,
    json_file: Path | None,
) -> int:
    """Watch the whole loop: train, ship, infer.

    Starts a platform, trains a model, optimizes and signs it, lets devices join, ships
    it to them in two waves and shows what they measure. Everything is real: the same
    programs run a cluster and a fleet.
    """
    from orchestrator.cli.demo.plan import make_plan
    from orchestrator.cli.demo.story import tell

    plan = make_plan(
        job=job,
        devices=devices,
        home=home,
        port=port,
        mqtt_port=mqtt_port,
        keep=keep,
        json_file=json_file,
    )
    return tell(plan)
