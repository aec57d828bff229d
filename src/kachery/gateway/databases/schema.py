"""Which schema a database has, and how it gets the current one.

A new release's migrations only add: tables, columns that may be empty, indexes. So a gateway of the release before goes
on working on the new schema while the others are replaced one after the other.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ...errors import NotConfigured
from ..models import SCHEMA

if TYPE_CHECKING:
    import sqlalchemy

# alembic keeps what it is doing in its modules
_one_at_a_time = threading.Lock()


def is_current(version: str | None, name: str) -> bool:
    """Whether a database needs no migration.

    Args:
        version: The schema that it has; `None` for an empty one.
        name: What to call it in errors.

    Raises:
        NotConfigured: If it was written by a newer release.
    """
    if version is not None and version > SCHEMA:
        raise NotConfigured(
            f"{name} was written by a newer kachery (schema {version}, this one knows {SCHEMA})", hint="upgrade kachery"
        )
    return version == SCHEMA


def migrate(engine: sqlalchemy.Engine) -> None:
    """Give a database the current schema; who comes second finds that it is done."""
    # alembic costs half a second and memory, and is needed once per release
    from alembic import command
    from alembic.config import Config

    with _one_at_a_time, engine.connect() as connected:
        settings = Config()
        settings.set_main_option("script_location", "kachery.gateway:migrations")
        settings.attributes["connection"] = connected
        command.upgrade(settings, "head")
