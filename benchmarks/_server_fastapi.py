"""What is usually written first: one route of FastAPI around onnxruntime, under uvicorn.

Started as ``python -m benchmarks._server_fastapi MODEL PORT``; uvloop and httptools are used.
"""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Asked(BaseModel):
    """A batch."""

    x: list[list[float]]


def app_of(path: str) -> FastAPI:
    """The app around a model file."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, ["CPUExecutionProvider"])
    app = FastAPI()

    @app.post("/infer")
    async def infer(asked: Asked) -> dict[str, list[list[float]]]:
        found = session.run(None, {"x": np.array(asked.x, np.float32)})[0]
        return {"probabilities": found.tolist()}

    return app


if __name__ == "__main__":
    uvicorn.run(
        app_of(sys.argv[1]),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
