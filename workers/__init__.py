"""Argosy's training half: what runs on, and beside, a Ray cluster.

The agent claims jobs over HTTPS and starts each one as a driver process on the
cluster. The driver trains (Ray Train, PyTorch), exports to ONNX, quantizes, packs
and registers the result. It meets the rest of Argosy in ``schemas`` alone.
"""
