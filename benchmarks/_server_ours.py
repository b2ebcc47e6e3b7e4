"""A device's local server around one model file, with its telemetry, until its stdin ends.

Started as ``python -m benchmarks._server_ours MODEL FOLDER``; prints its addresses: HTTP, the
unix socket, gRPC. Nothing of a fleet is around it: no broker, no updates.
"""

from __future__ import annotations

import hashlib
import secrets
import sys
from pathlib import Path

from benchmarks._server_net import SIGNATURE
from edge_client.batching import Batcher
from edge_client.inference import Loaded, load_model
from edge_client.recorder import Recorder
from edge_client.runtime import Runtime
from edge_client.server.addresses import parse_address
from edge_client.server.local import LocalServer
from edge_client.settings import Home
from edge_client.slots import Slot
from edge_client.telemetry import Windows
from schemas.measure import Golden, ModelFile
from schemas.model import Manifest, Variant


def loaded_from(path: Path) -> Loaded:
    """The file as version 1 of a model called ``net``."""
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    file = ModelFile(path=path.name, size=len(data), sha256=sha256, leaves_sha256="0" * 64)
    golden = Golden(file=file, samples=1, tolerance=1e-3)
    variant = Variant(
        id="fp32", precision="fp32", scheme="none", opset=20, file=file, golden=golden
    )
    manifest = Manifest(model="net", signature=SIGNATURE, variants=(variant,))
    slot = Slot(model="net", version=1, variant="fp32", sha256=sha256, manifest_sha256="0" * 64)
    return Loaded(slot, load_model(data, manifest, "fp32"), manifest)


def main(model: Path, folder: Path) -> None:
    """Serve."""
    windows = Windows()
    recorder = Recorder(Home(folder), boot=secrets.token_hex(16), windows=windows)
    recorder.start()
    runtime = Runtime(windows)
    runtime.swap("net", loaded_from(model))
    batcher = Batcher(runtime)
    addresses = [parse_address("127.0.0.1:0"), parse_address(f"unix:{folder / 'infer.sock'}")]
    server = LocalServer(runtime, batcher, addresses, grpc=[parse_address("127.0.0.1:0")])
    server.start()
    print(*server.bound, *server.grpc_bound, flush=True)
    sys.stdin.read()
    server.stop()
    batcher.close()
    recorder.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
