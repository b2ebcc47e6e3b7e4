"""Alembic's entry: runs the migrations on the connection it was handed."""

from __future__ import annotations

from alembic import context

from orchestrator.adapters.tables import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    compare_type=True,
    render_as_batch=connection.dialect.name == "sqlite",
    user_module_prefix="tables.",
)
with context.begin_transaction():
    context.run_migrations()
