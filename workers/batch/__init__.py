"""Batch inference on the cluster."""
