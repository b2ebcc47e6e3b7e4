"""``argosy model register``: an ONNX file that was made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from orchestrator.cli.optimize_options import optimize_options
from orchestrator.cli.options import home_option, output_option, timeout_option, watch_option

if TYPE_CHECKING:
    from schemas.signature import Signature

_MAX_LABELS_BYTES = 8 * 1024**2


@click.command()
@click.argument("file", metavar="FILE.onnx", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="The model's.")
@click.option(
    "--signature",
    metavar="FILE.yaml",
    type=click.Path(path_type=Path),
    help="Its inputs and outputs  [default: what the file says].",
)
@click.option("--labels", metavar="FILE|A,B,C", help="Of the classes: a line each, or here.")
@click.option("--data", metavar="FILE.npz", help="With x and y, that the cluster sees.")
@click.option("--dynamic", is_flag=True, help="Quantize the weights alone, which needs no data.")
@click.option("--alias", help="Moves to the version, once it is registered.")
@click.option("--project", default="default", help="Whose share of the cluster it counts to.")
@optimize_options
@watch_option
@timeout_option
@home_option
@output_option
def register(
    *,
    file: Path,
    name: str,
    signature: Path | None,
    labels: str | None,
    data: str | None,
    dynamic: bool,
    alias: str | None,
    project: str,
    follow: bool,
    timeout: float | None,
    home: Path | None,
    form: str,
    **options: Any,
) -> int:
    """Import an ONNX file that was made elsewhere, as the next version of a model.

    A job checks it, runs it with limits, measures and optimizes it, then registers it.
    Without data nothing can be said of its accuracy.
    """
    from orchestrator.cli import console
    from orchestrator.cli.batch import is_local, place
    from orchestrator.cli.job_submit import queued
    from orchestrator.cli.jobfile import from_options
    from orchestrator.cli.onnx_file import check_onnx
    from orchestrator.cli.optimize_options import overrides_of
    from orchestrator.client import Argosy

    size = check_onnx(file)
    if data is not None and is_local(data) and not Path(data).expanduser().exists():
        console.say(f"note: {data} is not on this machine; the cluster must see it", style="yellow")
    onnx: dict[str, Any] = {
        "file": "0" * 64,
        "size": size,
        "name": file.name,
        "labels": read_labels(labels),
        "data": None if data is None else place(data),
        "dynamic": dynamic,
    }
    if signature is not None:
        onnx["signature"] = read_signature(signature).model_dump(mode="json")
    spec = from_options(
        {"name": name, "onnx": onnx, "project": project, "promote": {"alias": alias}},
        overrides_of(options),
        {"name": "--name", "project": "--project", "onnx": "FILE", "promote": "--alias"},
    )
    assert spec.onnx is not None  # noqa: S101 - it was given
    with Argosy.from_profile(home) as argosy:
        console.say(f"uploading {file.name}, {console.size(size)}", style="dim")
        stored = argosy.artifacts.put(file)
        source = spec.onnx.model_copy(update={"file": stored.sha256, "size": stored.size})
        view = argosy.jobs.submit(spec.model_copy(update={"onnx": source}))
        return queued(argosy, view, follow=follow, timeout=timeout, form=form)


def read_labels(text: str | None) -> list[str]:
    """The names of the classes: the lines of a file, or a list with commas.

    Raises:
        Invalid: the file cannot be read as text.
    """
    from orchestrator.errors import Invalid

    if text is None:
        return []
    path = Path(text).expanduser()
    try:
        if "," in text or not path.is_file():
            if "," not in text and ("/" in text or path.suffix in {".txt", ".csv"}):
                detail = f"--labels: there is no file {text!r}"
                raise Invalid(detail, hint="a file with a label a line, or labels as a,b,c")
            return [part.strip() for part in text.split(",") if part.strip()]
        with path.open("rb") as file:
            raw = file.read(_MAX_LABELS_BYTES + 1)
        if len(raw) > _MAX_LABELS_BYTES:
            detail = f"--labels: {text} is larger than {_MAX_LABELS_BYTES // 1024**2} MiB"
            raise Invalid(detail, hint="a file with a label a line; is this one?")
        return [line.strip() for line in raw.decode("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        detail = f"--labels: {text} cannot be read as text"
        raise Invalid(detail, hint="a file with a label a line, or labels as a,b,c") from error


def read_signature(path: Path) -> Signature:
    """Inputs and outputs from a YAML file, as ``model download`` writes it.

    Raises:
        Invalid: it cannot be read, or is no signature; the message names the line.
    """
    from pydantic import ValidationError

    from orchestrator.cli.authored import plain
    from orchestrator.cli.yamlfile import load
    from orchestrator.errors import Invalid
    from schemas.signature import Signature

    document = load(path)
    try:
        return Signature.model_validate(document.value, extra="forbid")
    except ValidationError as error:
        first = error.errors()[0]
        where = document.where(first["loc"])
        key = ".".join(str(part) for part in first["loc"])
        detail = f"{where}: {key}: {plain(first)}"
        hint = "as in `inputs: [{name: x, dtype: float32, shape: [-1, 4]}]`, and outputs alike"
        raise Invalid(detail, hint=hint) from None
