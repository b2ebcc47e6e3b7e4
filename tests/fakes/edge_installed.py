"""A device's home with models that are active, as an agent leaves it."""

from __future__ import annotations

from pathlib import Path

from edge_client.settings import Home
from edge_client.slots import Pointer, Pointers, Slot, write_pointers
from schemas.model import Manifest
from tests.fakes.edge_models import Release


def install(root: Path, *releases: Release, version: int = 1) -> Home:
    """Put releases into a home; the second of a model becomes its fallback."""
    home = Home(root)
    home.create()
    pointers: dict[str, list[Slot]] = {}
    for i, one in enumerate(releases):
        for sha256, data in one.files.items():
            (home.blobs / sha256).write_bytes(data)
        (home.manifests / f"{one.sha256}.json").write_bytes(one.manifest)
        manifest = Manifest.model_validate_json(one.manifest)
        variant = manifest.variants[0]
        slot = Slot(
            model=manifest.model,
            version=version + i,
            variant=variant.id,
            sha256=variant.file.sha256,
            manifest_sha256=one.sha256,
        )
        pointers.setdefault(manifest.model, []).append(slot)
    models = {name: Pointer(active=s[0], fallback=(*s, None)[1]) for name, s in pointers.items()}
    write_pointers(home.pointer, Pointers(models=models))
    return home
