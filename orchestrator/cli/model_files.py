"""``argosy model download`` and ``export``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import rich_click as click

from orchestrator.cli.options import home_option

if TYPE_CHECKING:
    from schemas.measure import ModelFile
    from schemas.model import ModelVersionView, Variant

MANIFEST, SIGNATURE, LABELS = "manifest.json", "signature.yaml", "labels.txt"


@click.command()
@click.argument("ref", metavar="MODEL@VERSION")
@click.argument("out", metavar="OUT", type=click.Path(file_okay=False, path_type=Path))
@click.option("--variant", help="This one alone, with its golden vectors  [default: all files].")
@home_option
def download(*, ref: str, out: Path, variant: str | None, home: Path | None) -> None:
    """Fetch a version's files into the folder OUT, each checked against its digest.

    What is there already and right is not fetched again, so the same command goes on after
    a failure. The manifest comes last: where it is, all else is.
    """
    from orchestrator.cli import console
    from orchestrator.cli.refs import load, variant_of
    from orchestrator.client import Argosy
    from orchestrator.client.artifacts import write_atomically
    from orchestrator.client.export import manifest_text, plain_files

    with Argosy.from_profile(home) as argosy:
        view = load(argosy, ref)
        check_there(view)
        chosen = variant_of(view, variant) if variant else None
        files = placed(view, chosen)
        make_folder(out)
        fetched = 0
        with progress(sum(file.size for file in files.values())) as told:
            for name, file in files.items():
                fetched += argosy.artifacts.save(file, out / name, told)
    for name, text in plain_files(view).items():
        write_atomically(out / name, text.encode())
    text = manifest_text(view)
    write_atomically(out / MANIFEST, text.encode())
    if hashlib.sha256(text.encode()).hexdigest() != view.manifest_sha256:
        note = "the platform knows more of this version than this client; its manifest was cut"
        console.say(f"note: {note}", style="yellow")
    kept = len(files) - fetched
    already = f", {kept} were there" if kept else ""
    console.say(f"{view.model}@{view.version}: {len(files)} files, all right, in {out}{already}")


@click.command()
@click.argument("ref", metavar="MODEL@VERSION")
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["mlflow", "folder"]),
    default="folder",
    show_default=True,
    help="For MLflow, or plain files.",
)
@click.option("--variant", help="Of the version  [default: the first].")
@home_option
def export(
    *,
    ref: str,
    out: Path,
    form: Literal["mlflow", "folder"],
    variant: str | None,
    home: Path | None,
) -> None:
    """Write one variant as the new folder OUT, for other tools.

    In MLflow's form `mlflow.onnx.load_model` and `mlflow.pyfunc.load_model` load it.
    """
    from orchestrator.cli import console
    from orchestrator.cli.refs import load, variant_of
    from orchestrator.client import Argosy
    from orchestrator.client.export import export as write

    with Argosy.from_profile(home) as argosy:
        view = load(argosy, ref)
        check_there(view)
        chosen = variant_of(view, variant)
        with progress(chosen.file.size + chosen.golden.file.size) as told:
            write(argosy.artifacts, view, chosen, out, form, told)
    console.say(f"{view.model}@{view.version} {chosen.id} is in {out}")
    outside = [op.op for op in (*view.manifest.preprocess, *view.manifest.postprocess)]
    if outside:
        text = f"note: not in the graph, so up to whoever runs it: {', '.join(outside)}"
        console.say(text, style="yellow")


def check_there(view: ModelVersionView) -> None:
    """See that the version still has files.

    Raises:
        Conflict: they were collected.
    """
    from orchestrator.errors import Conflict

    if view.purged:
        detail = f"the files of {view.model}@{view.version} were collected; its record is left"
        raise Conflict(detail, hint="a tag or an alias keeps the files of a version")


def placed(view: ModelVersionView, chosen: Variant | None) -> dict[str, ModelFile]:
    """The files to fetch, by the name under which each is written.

    Those of equal names and other bytes are told apart by their digests.
    """
    wanted = view.manifest.files() if chosen is None else (chosen.file, chosen.golden.file)
    found: dict[str, ModelFile] = {}
    ours = {MANIFEST, SIGNATURE, LABELS}
    for file in wanted:
        name = file.path
        if name in ours or (name in found and found[name].sha256 != file.sha256):
            name = f"{file.sha256[:12]}-{file.path}"
        found[name] = file
    return found


def make_folder(path: Path) -> None:
    """Make a folder, if it is not there.

    Raises:
        Invalid: it cannot be made.
    """
    from orchestrator.errors import Invalid

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        detail = f"{path} cannot be made: {(error.strerror or str(error)).lower()}"
        raise Invalid(detail) from error


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; yields what to tell the bytes to."""
    from orchestrator.cli import console

    if not console.is_live():
        yield lambda _count: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console.err(), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)
