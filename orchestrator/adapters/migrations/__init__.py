"""Alembic migrations of the orchestrator's database."""
