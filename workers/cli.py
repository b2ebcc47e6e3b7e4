"""``argosy-worker``: the commands of the training half."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click as plain
import rich_click as click

from schemas.errors import Exit
from workers.errors import UsageError, WorkerError

# Ray and torch take seconds to import; what does not need them must not wait for them.
# ruff: noqa: PLC0415


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Train, export and register models for Argosy."""


@cli.command()
@click.option("--home", help="The platform's folder [default: $ARGOSY_HOME, else ~/.argosy].")
@click.option("--embedded", is_flag=True, help="Start a Ray head on this machine, and end it too.")
@click.option(
    "--storage", help="Folder or URL for checkpoints that every node sees [default: HOME/jobs]."
)
@click.option(
    "--python",
    help="Interpreter of the jobs, on the cluster [default: python; embedded: the agent's own].",
)
@click.option(
    "--slots", type=click.IntRange(1, 64), default=1, show_default=True, help="Jobs at once."
)
@click.option(
    "--cpus",
    type=click.IntRange(1),
    help="Logical CPUs of the embedded Ray head [default: the machine's, at least 4].",
)
@click.option(
    "--pass-env",
    multiple=True,
    metavar="NAME",
    envvar="ARGOSY_PASS_ENV",
    help="A variable that jobs on the embedded head may see, such as a key of the storage. "
    "Repeat it for more. Jobs on a cluster see what its nodes were started with.",
)
@click.option(
    "--autoscaling",
    is_flag=True,
    help="The cluster adds nodes when asked for more: take jobs that do not fit it now.",
)
def agent(
    home: str | None,
    storage: str | None,
    python: str | None,
    slots: int,
    cpus: int | None,
    pass_env: tuple[str, ...],
    *,
    embedded: bool,
    autoscaling: bool,
) -> None:
    """Claim jobs and run them on Ray: on the cluster of $RAY_ADDRESS, or --embedded.

    \b
    RAY_ADDRESS     the dashboard's URL, as in http://head:8265
    RAY_AUTH_MODE   token, where the cluster asks for one; with RAY_AUTH_TOKEN or
                    RAY_AUTH_TOKEN_PATH. Neither is handed to jobs.
    ARGOSY_URL, ARGOSY_TOKEN, ARGOSY_CA
                    the server [default: what HOME/worker.json says]
    """  # noqa: D301 - click reads the backspace
    import os

    from workers.agent.main import Options, run
    from workers.settings import home_folder

    options = Options(
        home=home_folder(home, os.environ),
        embedded=embedded,
        storage=storage,
        python=python or (sys.executable if embedded else "python"),
        slots=slots,
        cpus=cpus,
        pass_env=pass_env,
        autoscaling=autoscaling,
    )
    sys.exit(run(options))


@cli.command("export-split")
@click.argument("task")
@click.argument("split")
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--config", "pairs", multiple=True, metavar="K=V", help="A config value (YAML).")
@click.option("--seed", type=click.IntRange(0), default=0, help="The job's seed.")
def export_split(task: str, split: str, out: Path, pairs: tuple[str, ...], seed: int) -> None:
    """Write a split of a TASK (module:Class) as an npz file with the arrays x and y."""
    from workers.files import write_atomic
    from workers.optimization.packing.package import npz
    from workers.task import load_task
    from workers.training.data import split_arrays

    data = split_arrays(load_task(task, config_of(pairs), seed), split)
    write_atomic(out, npz({"x": data.x, "y": data.y}))
    click.echo(f"{len(data)} samples of {split} in {out}", err=True)


@cli.command("run-local")
@click.argument("job", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Empty folder."
)
def run_local(job: Path, out: Path) -> None:
    """Run a JOB file in this process, without Ray and without a server, into a folder."""
    from workers.run_local import run

    package = run(job, out)
    for variant in package.manifest.variants:
        click.echo(f"{variant.id}: {variant.file.size} bytes", err=True)
    click.echo(str(out / "manifest.json"))


def config_of(pairs: tuple[str, ...]) -> dict[str, Any]:
    """``k=v`` pairs as a config; values are YAML, so that 0.5 is a number.

    Raises:
        UsageError: a pair has no ``=``, or its value is no YAML.
    """
    import yaml

    from schemas.yamltext import Loader

    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            msg = f"--config {pair!r} is not of the form key=value"
            raise UsageError(msg, "write it as in --config lr=0.01")
        try:
            found[key] = yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
        except yaml.YAMLError as error:
            msg = f"--config {key}: {text!r} cannot be read"
            raise UsageError(msg, "put it in quotes") from error
    return found


def main() -> None:
    """The entry point: errors are one line, and their exit code says of which kind."""
    try:
        cli.main(standalone_mode=False)
    except plain.exceptions.Abort:
        sys.exit(Exit.INTERRUPTED)
    except plain.ClickException as error:
        error.show()
        sys.exit(Exit.USAGE)
    except plain.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except WorkerError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)


if __name__ == "__main__":
    main()
