"""Local mutables: small texts under keys such as `@folder/name`, on this machine only."""

from __future__ import annotations

from kachery.generations.second import (
    delete_mutable_folder_local,
    delete_mutable_local,
    get_mutable_local,
    set_mutable_local,
)

__all__ = ["delete_mutable_folder_local", "delete_mutable_local", "get_mutable_local", "set_mutable_local"]
