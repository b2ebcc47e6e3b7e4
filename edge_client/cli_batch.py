"""``argosy-edge batch``: inference over files."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import rich_click as click

from edge_client.cli_common import home_option
from schemas.errors import Exit

_ROWS = re.compile(r"(\d{0,15}):(\d{0,15})")


class _Rows(click.ParamType[tuple[int, int | None]]):
    """``A:B``: rows from A up to B, which is not among them; either may be left out."""

    name = "rows"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int | None]:
        """As numbers."""
        if isinstance(value, tuple):
            return value
        found = _ROWS.fullmatch(value)
        if found is None:
            self.fail(f"{value!r} is not A:B, as 0:1000", param, ctx)
        first, last = int(found[1] or 0), int(found[2]) if found[2] else None
        if last is not None and last <= first:
            self.fail(f"{value!r} holds no row", param, ctx)
        return first, last


_rows = partial(click.option, panel="Rows")
_results = partial(click.option, panel="Results")


@click.command()
@click.argument("model")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@home_option
@click.option("--version", metavar="N|fallback", help="Another installed version than the active.")
@_rows("--rows", type=_Rows(), default="0:", metavar="A:B",
              help="These rows alone, counted from 0; B is not among them.")  # fmt: skip
@click.option("--batch-size", "size", type=click.IntRange(1, 65_536), default=32,
              show_default=True, help="Rows in one inference.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True,
              help="Threads that one inference may use.")  # fmt: skip
@_rows("--columns", metavar="A,B,…", default="", help="Columns of a table, in this order.")
@_rows("--id", "id_", metavar="COLUMN", help="Column of a table that names its rows.")
@_results("--format", "kind", type=click.Choice(["csv", "jsonl", "npz", "parquet"]),
              help="Of the parts, where OUT is a folder.  [default: csv]")  # fmt: skip
@_results("--raw", is_flag=True, help="Write outputs as they are, not classes.")
@_results("--limit", type=click.IntRange(min=0), metavar="N",
              help="Stop when more than N rows have failed.")  # fmt: skip
@_results("--restart", is_flag=True, help="Forget what is done, and replace OUT.")
@click.option("--telemetry/--no-telemetry", default=True, show_default=True,
              help="Count what is inferred, as for any other program.")  # fmt: skip
@click.option("--nice", type=click.IntRange(0, 19), default=10, show_default=True,
              help="Priority: the higher, the more it gives way to what serves.")  # fmt: skip
def batch(
    model: str,
    source: Path,
    out: Path,
    home: Path,
    rows: tuple[int, int | None],
    threads: int,
    columns: str,
    id_: str | None,
    nice: int,
    **options: Any,
) -> None:
    """Infer with MODEL for each row of IN, and write a row for each into OUT.

    IN is a folder of PNG, JPEG or npy files, or an npy, npz, csv or parquet file. OUT is a file
    (csv, jsonl, npz or parquet, by its suffix), or a folder for a file per part. Rows without an
    answer are named in OUT.errors.csv (errors.csv in a folder), with their reasons.

    Cut off at any time, the same command goes on where it was. Ends with 0 when each row has its
    answer, 7 when all is done and some rows failed, 1 when it stopped before.
    """
    from edge_client.batch_command import Voice, Wish, run_batch  # noqa: PLC0415 - a quick --help
    from edge_client.sessions import SessionSettings  # noqa: PLC0415 - likewise
    from edge_client.settings import Home  # noqa: PLC0415 - likewise

    with contextlib.suppress(OSError):
        os.nice(nice)
    wish = Wish(
        model=model,
        source=source,
        out=out,
        first=rows[0],
        last=rows[1],
        columns=tuple(name for name in columns.split(",") if name),
        id=id_,
        session=SessionSettings(threads=threads),
        **options,
    )
    terminal = sys.stderr.isatty()
    voice = Voice(lambda text: click.echo(text, err=True), _draw if terminal else None)
    try:
        done, place = run_batch(Home(home.expanduser()), wish, voice)
    except KeyboardInterrupt:
        if terminal:
            _draw("")
        click.echo("cut off; the same command goes on where it was", err=True)
        raise
    finally:
        if terminal:
            _draw("")
    click.echo(f"{done.answered} rows answered in {place.out}", err=True)
    if done.failed:
        click.echo(f"{done.failed} rows failed; see {place.errors}", err=True)
        sys.exit(Exit.GATE_FAILED)


def _draw(text: str) -> None:
    click.echo(f"\r\x1b[K{text}", err=True, nl=False)
