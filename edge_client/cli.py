"""``argosy-edge``: enroll a device, run its agent, infer, say how it is."""

from __future__ import annotations

import sys

import rich_click as click

from edge_client.cli_common import Entry, LazyGroup
from edge_client.errors import EdgeError
from schemas.errors import Exit

_ENTRIES = {
    "enroll": Entry("edge_client.cli_enroll:enroll", "Get an identity with a join token."),
    "key": Entry("edge_client.cli_enroll:key", "Make a private key, or read one, for its SHA-256."),
    "run": Entry("edge_client.cli_run:run", "Serve the active models, and take updates."),
    "status": Entry("edge_client.cli_status:status", "Say who the device is and what it serves."),
    "rollback": Entry("edge_client.cli_status:rollback", "Put the model before back."),
    "defer": Entry("edge_client.cli_wish:defer", "Put the update that is under way off."),
    "proceed": Entry("edge_client.cli_wish:proceed", "Go on with an update that waits."),
    "infer": Entry("edge_client.cli_infer:infer", "Infer for one input or a few."),
    "batch": Entry("edge_client.cli_batch:batch", "Infer for each row of files."),
    "bench": Entry("edge_client.cli_bench:bench", "Measure the installed variants here."),
}


@click.group(
    cls=LazyGroup,
    entries=_ENTRIES,
    context_settings={"help_option_names": ["-h", "--help"]},
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
