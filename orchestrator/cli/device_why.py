"""How the reasons of a device look on a terminal."""

from __future__ import annotations

from rich.text import Text

from orchestrator.cli import console
from orchestrator.cli.output import Shape
from schemas.device_why import DeviceWhy, Hindrance, ModelWhy, Origin, WhyNot

_FAULTS = frozenset(
    {Hindrance.FAILED, Hindrance.ROLLED_BACK, Hindrance.NO_VARIANT, Hindrance.REVOKED}
)


def why_shape() -> Shape[DeviceWhy]:
    """For ``-o name``, and as one row."""
    return Shape(
        lambda view: view.device,
        ("ID", lambda view: view.device),
        ("MODELS", lambda view: ", ".join(one.model for one in view.models) or console.NONE),
    )


def show_why(view: DeviceWhy) -> None:
    """A paragraph for each model: what it serves and why, then what it does not and why."""
    out = console.out()
    if not view.models:
        out.print(f"{view.device} serves nothing, and no rollout is there.")
        return
    for index, model in enumerate(view.models):
        if index:
            out.print()
        for line in _lines(model):
            out.print(line, soft_wrap=True)


def _lines(model: ModelWhy) -> list[Text]:
    head = Text(model.model, "bold")
    if model.version is not None:
        head.append(f"@{model.version}")
    style = "red" if model.origin is Origin.DRIFT else ""
    lines = [head, Text(f"  {console.clean(model.text)}", style)]
    lines += [_missing(model.model, one) for one in model.missing]
    if not model.missing and model.version is not None and model.version == model.newest:
        lines.append(Text("  That is the newest version.", "dim"))
    return lines


def _missing(model: str, one: WhyNot) -> Text:
    style = "red" if one.code in _FAULTS else "yellow"
    text = Text(f"  not {model}@{one.version} ", "dim").append(f"({one.code}) ", style)
    return text.append(console.clean(one.text))
