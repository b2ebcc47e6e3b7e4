"""From a torch module to files: ONNX and the formats beside it."""
