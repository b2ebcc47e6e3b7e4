"""Names in the trust metadata (TUF), shared by its signer and its readers.

The root delegates to ``targets``; ``targets`` delegates to two roles: ``models``
signs what a version is made of, ``director`` signs which version belongs on which
device. A device needs both: the first says the bytes are genuine, the second that
they are meant for it.
"""

from __future__ import annotations

from typing import Any

MODELS_ROLE = "models"
DIRECTOR_ROLE = "director"
MODELS_PATHS = "models/*/*/*"
DIRECTOR_PATHS = "device/*/*"

ROOT_FILE = "root.json"
TARGETS_FILE = "targets.json"


def manifest_target(model: str, version: int) -> str:
    """The target path of a version's manifest."""
    return f"models/{model}/{version}/manifest.json"


def desired_target(device: str, execution: str) -> str:
    """The target path under which the director names what a device shall run."""
    return f"device/{device}/{execution}"


def signable(value: Any) -> Any:
    """A JSON value with each float as decimal text.

    TUF signs canonical JSON, which knows no floats; pydantic reads the text back as a
    number. So an ``Assignment`` travels in a signed document as
    ``signable(assignment.model_dump(mode="json"))``.
    """
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return {k: signable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [signable(v) for v in value]
    return value
