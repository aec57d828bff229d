"""How alembic reaches the database: over the connection that `database.prepare` hands it."""

from __future__ import annotations

from alembic import context

from kachery.gateway.models import metadata

connection = context.config.attributes["connection"]
# SQLite changes tables by copying them, and the copy must not be half there
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=True)
with connection.begin():
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    context.run_migrations()
