"""How alembic reaches the database: over the connection that `databases.schema` hands it."""

from __future__ import annotations

from alembic import context

from kachery.gateway.models import metadata

connection = context.config.attributes["connection"]
# SQLite changes tables by copying them, and the copy must not be half there
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=True)
# an arbitrary number; two gateways that start at once take turns
LOCK = 8471_0001
with connection.begin():
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
    context.run_migrations()
