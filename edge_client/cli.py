"""``argosy-edge``: enroll a device, run its agent, infer, say how it is."""

from __future__ import annotations

import sys

import rich_click as click

from edge_client.errors import EdgeError
from schemas.commands import Entry, LazyGroup
from schemas.errors import Exit

_ENTRIES = {
    "enroll": Entry("edge_client.cli_enroll:enroll", "Get an identity with a join token."),
    "key": Entry("edge_client.cli_enroll:key", "Make a key that a join token can name."),
    "run": Entry("edge_client.cli_run:run", "Serve the active models, and take updates."),
    "status": Entry("edge_client.cli_status:status", "Say who the device is and what it serves."),
    "defer": Entry("edge_client.cli_wish:defer", "Put the update that is under way off."),
    "proceed": Entry("edge_client.cli_wish:proceed", "Go on with an update that waits."),
    "rollback": Entry("edge_client.cli_status:rollback", "Put the version before back."),
    "infer": Entry("edge_client.cli_infer:infer", "Infer for one input or a few."),
    "batch": Entry("edge_client.cli_batch:batch", "Infer for each row of files."),
    "bench": Entry("edge_client.cli_bench:bench", "Measure the installed variants here."),
}

_STYLE = click.RichHelpConfiguration(
    theme="default-slim",
    command_groups={
        "*argosy-edge": [
            {"name": "Begin", "commands": ["enroll", "key", "run"]},
            {"name": "See and steer", "commands": ["status", "defer", "proceed", "rollback"]},
            {"name": "Infer", "commands": ["infer", "batch", "bench"]},
        ],
    },
)


@click.group(
    cls=LazyGroup,
    entries=_ENTRIES,
    context_settings={"help_option_names": ["-h", "--help"], "rich_help_config": _STYLE},
    epilog="New here? `argosy token create` on the platform's machine prints the command that"
    " enrolls this one; then `argosy-edge run`.",
)
@click.version_option(package_name="argosy", prog_name="argosy-edge")
def cli() -> None:
    """The device side of Argosy."""


def main() -> None:
    """Run the program; every error is one line, and its exit code says what kind."""
    try:
        cli(standalone_mode=False)
    except EdgeError as error:
        click.echo(f"error: {error}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
        sys.exit(error.exit)
    except click.ClickException as error:
        error.show()
        sys.exit(Exit.USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(Exit.INTERRUPTED)
    except OSError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(Exit.FAILED)
