"""Headline figures, each measured against its baseline on the same machine.

``python -m benchmarks.NAME [--quick] [--rounds N] [--json FILE]``; ``make bench`` runs all.
"""
