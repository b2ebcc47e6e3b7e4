"""Names in the trust metadata (TUF), shared by its signer and its readers.

``root`` (offline, by threshold) names the keys of ``targets`` (offline), ``snapshot`` and
``timestamp`` (online). ``targets`` delegates to ``models``, the role of those who release,
which delegates to one role for each model, or beyond ``MAX_MODEL_ROLES`` models to hashed
bins; and to ``director`` (online), which says which version belongs on which device. A
device needs both: the first says that the bytes are genuine, the second that they are
meant for it.

Metadata files are named as TUF has it with consistent snapshots:
``<version>.<role>.json``, and ``timestamp.json``.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from schemas.base import Authored, UtcTime, VersionNo, Wire
from schemas.ids import Name, Sha256

MODELS_ROLE = "models"
DIRECTOR_ROLE = "director"
MODEL_ROLE_PREFIX = "model-"
BIN_PREFIX = "bin"
MODELS_PATHS = "models/*/*/*"
DIRECTOR_PATHS = "device/*/*"

MAX_MODEL_ROLES = 200
"""Models that have a role each; beyond, the manifests are spread over hashed bins."""

BIN_BITS = 6
"""64 bins: with 2,000 versions some 8 KB each."""

MAX_METADATA_BYTES = 512 * 1024
"""Of one metadata file: it travels in one message."""

MetadataName = Annotated[
    str, StringConstraints(pattern=r"^(timestamp|[1-9][0-9]{0,8}\.[a-z0-9][a-z0-9-]{0,79})\.json$")
]
"""The file name of a metadata file."""

ROOT_FILE = "root.json"
TARGETS_FILE = "targets.json"


def model_role(model: str) -> str:
    """The role that signs the manifests of one model."""
    return MODEL_ROLE_PREFIX + model


def model_paths(model: str) -> str:
    """The target paths that ``model_role(model)`` may sign."""
    return f"models/{model}/*/*"


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


class MetadataAsk(Wire):
    """On ``up/meta``: a metadata file, by its name."""

    name: MetadataName


class MetadataAnswer(Wire):
    """On ``down/meta``. text: the file; None says that there is no such file.

    error: why it could not be answered now. Neither text nor error is an answer too: it ends
    the walk over the versions of the root.
    """

    name: MetadataName
    text: Annotated[str, StringConstraints(max_length=MAX_METADATA_BYTES)] | None = None
    error: str | None = None


class RoleView(Wire):
    """A role of the trust metadata. online: its keys are with the server.

    held, threshold: how many of its private keys the server holds, and how many must sign.
    """

    role: str
    version: int
    expires: UtcTime
    keys: tuple[str, ...]
    threshold: int
    held: int
    online: bool


class Unsigned(Wire):
    """A version that devices cannot install yet, because its manifest is not signed."""

    model: Name
    version: VersionNo
    manifest_sha256: Sha256
    length: Annotated[int, Field(gt=0)]


class TrustView(Wire):
    """The trust metadata as it stands. root_sha256: of the newest root, which tokens pin.

    stale: versions that are listed still although they were revoked or purged since.
    releases: whether the server holds the release keys and signs versions by itself.
    """

    root_sha256: Sha256
    roles: tuple[RoleView, ...]
    models: int
    unsigned: tuple[Unsigned, ...] = ()
    stale: tuple[Unsigned, ...] = ()
    releases: bool = True
    problems: tuple[str, ...] = ()


class MetadataUpload(Authored):
    """Metadata that was signed elsewhere: file name and text. Taken whole or not at all."""

    files: Annotated[
        dict[MetadataName, Annotated[str, StringConstraints(max_length=MAX_METADATA_BYTES)]],
        Field(min_length=1, max_length=256),
    ]
