"""Names in the trust metadata (TUF), shared by its signer and its readers.

The root delegates to ``targets``; ``targets`` delegates to two roles: ``models``
signs what a version is made of, ``director`` signs which version belongs on which
device. A device needs both: the first says the bytes are genuine, the second that
they are meant for it.
"""

from __future__ import annotations

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
