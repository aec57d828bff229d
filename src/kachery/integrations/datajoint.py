"""DataJoint tables that share the files of other tables, without Spyglass.

    schema = dj.Schema("lab_sharing")
    KacheryZone = zone_table(schema)
    SharedRecording = sharing_table(schema, KacheryZone, Recording, path="file", base="/data")

    KacheryZone.insert1({"kachery_zone_name": "lab.public", …})
    SharedRecording.share(Recording & "session = 7", zone="lab.public")      in the lab: linked, nothing is copied
    SharedRecording.load(Recording & "session = 7")                          elsewhere: verified, at the same path
    SharedRecording.unshare(Recording & "session = 7")

| table | tier | what it holds |
|---|---|---|
| `KacheryZone` | manual | what Spyglass's has; a `kachery share` on the lab's machine shares `kachery_cloud_dir` |
| `RecordingKacherySelection` | manual | which rows are shared in which zone |
| `RecordingKachery` | computed | the URI of each, its size, and its path below the machine's own `base` |
| `RecordingKachery.LinkedFile` | part | the same of each file that it needs |

Works with DataJoint 0.14 and 2.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import datajoint as dj

from .. import digest, files, names, settings, uri
from ..errors import InvalidInput, KacheryError, NotConfigured, NotFound, explaining
from ..store import Store

#: Where the paths of a table begin, on this machine.
Base = str | os.PathLike[str] | Callable[[], str | os.PathLike[str]]

#: Which other files a file needs, by its path.
Linked = Callable[[str], Iterable[str | os.PathLike[str]]]

_ZONE = """
kachery_zone_name: varchar(200)   # the zone, and the resource that shares its files
---
description: varchar(200)
kachery_cloud_dir: varchar(200)   # store directory on the machine that shares the files
kachery_proxy: varchar(200)       # address of the gateway
"""

_SHARED = """
-> Selection
---
file_path: varchar(200)           # below the base directory
file_uri: varchar(200)
file_size: bigint                 # in bytes
"""

_LINKED = """
-> master
file_path: varchar(200)           # below the base directory
---
file_uri: varchar(200)
file_size: bigint                 # in bytes
"""


def zone_table(schema: Any) -> Any:
    """Declare the table of zones in a schema; its class.

    Args:
        schema: A `dj.Schema`.
    """
    return schema(type("KacheryZone", (dj.Manual,), {"definition": _ZONE}), context={})


def sharing_table(
    schema: Any,
    zones: Any,
    table: Any,
    *,
    path: str | Callable[[dict[str, Any]], str],
    base: Base,
    linked: Linked | None = None,
) -> Any:
    """Declare the tables that share the files of a table; the class of the computed one.

    Args:
        schema: A `dj.Schema`.
        zones: What `zone_table` gave.
        table: The class of the table whose rows have files.
        path: The attribute that holds a row's path, or a function that makes it of the row. It is absolute, or relative
            to the base directory, and lies below that.
        base: The base directory on this machine, or a function that gives it, called whenever it is needed.
        linked: Gives the paths of the files that a file needs, as `hdf5_links` does; they lie below the base too.
    """
    name = table.__name__
    selection = type(f"{name}KacherySelection", (dj.Manual,), {"definition": "-> KacheryZone\n-> Shared"})
    selection = schema(selection, context={"KacheryZone": zones, "Shared": table})
    members = {
        "definition": _SHARED,
        "LinkedFile": type("LinkedFile", (dj.Part,), {"definition": _LINKED}),
        "files": Files(schema, zones, table, selection, path, base, linked),
    }
    computed = type(f"{name}Kachery", (_Sharing, dj.Computed), members)
    return schema(computed, context={"Selection": selection})


def hdf5_links(path: str) -> list[str]:
    """The files that an HDF5 file (an NWB file, for example) takes parts of itself from.

    Args:
        path: The file.

    Returns:
        Absolute paths: what external links, external storage and virtual datasets name; nothing for other files.
    """
    import h5py

    found: dict[str, None] = {}

    def look(group: Any) -> None:
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                found[link.filename] = None
            elif isinstance(link, h5py.HardLink):
                item = group[name]
                if isinstance(item, h5py.Group):
                    look(item)
                elif isinstance(item, h5py.Dataset):
                    found.update(dict.fromkeys(file for file, *_ in item.external or ()))
                    sources = item.virtual_sources() if item.is_virtual else ()
                    # a dot is the file itself
                    found.update(dict.fromkeys(source.file_name for source in sources if source.file_name != "."))

    if not h5py.is_hdf5(path):
        return []
    with h5py.File(path, "r") as file:
        look(file)
    directory = os.path.dirname(os.path.abspath(path))
    return [os.path.normpath(os.path.join(directory, os.fsdecode(name))) for name in found]


class Files:
    """Where the files of a table are, on this machine and in its zones.

    Args:
        schema: The schema of the sharing tables.
        zones: The table of zones.
        table: The table whose rows have files.
        selection: Which rows are shared.
        path: As in `sharing_table`.
        base: As in `sharing_table`.
        linked: As in `sharing_table`.
    """

    def __init__(
        self,
        schema: Any,
        zones: Any,
        table: Any,
        selection: Any,
        path: str | Callable[[dict[str, Any]], str],
        base: Base,
        linked: Linked | None,
    ) -> None:
        self.schema = schema
        self.zones = zones
        self.table = table
        self.selection = selection
        self._path = path
        self._base = base
        self._linked = linked

    @property
    def base(self) -> str:
        """The base directory, absolute."""
        return os.path.abspath(os.fsdecode(self._base() if callable(self._base) else self._base))

    def of_row(self, row: dict[str, Any]) -> list[str]:
        """The path of a row's file, and those of the files that it needs; absolute.

        Raises:
            InvalidInput: If one of them is not below the base directory.
        """
        given = self._path(row) if callable(self._path) else row[self._path]
        path = os.path.join(self.base, os.fsdecode(given))
        return [path, *(os.path.abspath(os.fsdecode(each)) for each in (self._linked(path) if self._linked else ()))]

    def relative(self, path: str) -> str:
        """A path below the base directory, as it is written into the tables.

        Raises:
            InvalidInput: If it is not below it, or too long.
        """
        base = self.base
        relative = os.path.relpath(path, base)
        if relative.split(os.sep)[0] == os.pardir:
            raise InvalidInput(f"{path} is not in {base}", hint="only files below the base directory can be shared")
        if len(relative) > 200:
            raise InvalidInput(f"the path is longer than 200 characters: {relative}")
        return "/".join(names.relative_path(relative.replace(os.sep, "/")))

    def link(self, directory: str, path: str) -> dict[str, Any]:
        """Link a file in a zone's store directory; what is written of it."""
        relative = self.relative(path)
        hash_, size = Store(directory).link(path)
        return {"file_path": relative, "file_uri": uri.named_uri(hash_, os.path.basename(path)), "file_size": size}

    def unlink(self, zone: str, text: str) -> None:
        """Have a file not shared any more in a zone, unless another row of the schema's tables still shares it."""
        hash_ = uri.parse_file(text).hash
        same = f"kachery_zone_name = '{names.zone(zone)}' and file_uri like 'sha1://{hash_}%'"
        for name in self.schema.list_tables():
            if name.rpartition("__linked_file")[0].endswith("_kachery") or name.endswith("_kachery"):
                table = dj.FreeTable(self.schema.connection, self._full_name(name))
                if "file_uri" in table.heading.names and len(table & same):
                    return
        (directory,) = [row["kachery_cloud_dir"] for row in _rows(self.zones & {"kachery_zone_name": zone})]
        if not os.path.isdir(directory):
            raise NotFound(f"{directory} is not on this machine", hint="unshare on the machine that shares the files")
        Store(directory).links.remove(hash_)

    def _full_name(self, table: str) -> str:
        adapter = getattr(self.schema.connection, "adapter", None)
        if adapter is None:
            # DataJoint 0.14 knows MySQL alone
            return f"`{self.schema.database}`.`{table}`"
        return str(adapter.make_full_table_name(self.schema.database, table))

    def fetch(self, zone: dict[str, Any], entry: dict[str, Any], base: str) -> str:
        """Have a file below a base directory; what is there and is the same stays, and nothing is overwritten.

        Raises:
            InvalidInput: If something else is there.
            NotFound, NotAllowed, Unreachable, …: If it cannot be had from this zone.
        """
        target = os.path.join(base, *names.relative_path(entry["file_path"]))
        wanted = uri.parse_file(entry["file_uri"])
        if os.path.lexists(target):
            with explaining("read", target), open(target, "rb") as file:
                same = os.fstat(file.fileno()).st_size == entry["file_size"]
                if same and digest.of_stream(file, (wanted.algorithm,))[wanted.algorithm] == wanted.hash:
                    return target
            raise InvalidInput(f"{target} is there already, and is something else", hint="move it away, or give a base")
        if settings.gateway_url_or_none() is None:
            name, address = zone["kachery_zone_name"], zone["kachery_proxy"]
            raise NotConfigured(
                "no gateway is configured",
                hint=f"run `kachery init --gateway {address} --zone {name}`, or set KACHERY_GATEWAY_URL",
            )
        return files.load_file(entry["file_uri"], zone=zone["kachery_zone_name"], dest=target)


class _Sharing:
    """What the computed table does beside being a table."""

    files: ClassVar[Files]
    LinkedFile: ClassVar[Any]

    def make(self, key: dict[str, Any]) -> None:
        """Link a row's file, and the files that it needs, in the store directory of a zone."""
        row = (self.files.table & key).fetch1()
        directory = (self.files.zones & key).fetch1("kachery_cloud_dir")
        first, *others = (self.files.link(directory, path) for path in self.files.of_row(row))
        self.insert1({**key, **first})  # type: ignore[attr-defined]
        self.LinkedFile.insert({**key, **other} for other in others)

    def populate(self, *restrictions: Any, **options: Any) -> Any:
        """As DataJoint's, with a progress bar unless `display_progress` says otherwise."""
        return super().populate(*restrictions, **{"display_progress": True, **options})  # type: ignore[misc]

    @classmethod
    def share(cls, rows: Any, *, zone: str) -> None:
        """Share the files of some rows in a zone: they are hashed and linked, and stay where they are.

        Args:
            rows: The table, restricted; or what restricts it. Everything must be asked for as `table`.
            zone: The zone.
        """
        keys = [{**key, "kachery_zone_name": zone} for key in _rows((cls.files.table & _some(rows)).proj())]
        cls.files.selection.insert(keys, skip_duplicates=True)
        if keys:
            cls().populate(keys)

    @classmethod
    def unshare(cls, rows: Any, *, zone: str | None = None) -> None:
        """Share the files of some rows no more; what others have loaded, or the gateway keeps, stays there.

        Args:
            rows: As for `share`.
            zone: The zone; all zones when it is not given.
        """
        where = cls.files.selection & (cls.files.table & _some(rows)).proj()
        if zone is not None:
            where &= {"kachery_zone_name": zone}
        keys = _rows(where.proj())
        if not keys:
            return
        shared, linked = cls & keys, cls.LinkedFile & keys  # type: ignore[operator]
        entries = [*_rows(shared), *_rows(linked)]
        with cls.files.schema.connection.transaction:
            linked.delete_quick()
            shared.delete_quick()
            (cls.files.selection & keys).delete_quick()
            # a link that cannot be removed leaves all as it was
            for entry in entries:
                cls.files.unlink(entry["kachery_zone_name"], entry["file_uri"])

    @classmethod
    def load(cls, rows: Any, *, base: str | os.PathLike[str] | None = None) -> list[str]:
        """Have the files of some rows, and the files that they need, on this machine, verified.

        Args:
            rows: As for `share`.
            base: Where to put them; by default the base directory of this machine.

        Returns:
            The paths of the rows' files, in the order of their keys.

        Raises:
            NotFound: If a row is not shared.
            NotAllowed, Unreachable, …: If none of its zones gives a file; the reason of the last one.
        """
        directory = cls.files.base if base is None else os.path.abspath(os.fsdecode(base))
        return [cls._load_row(key, directory) for key in _rows((cls.files.table & _some(rows)).proj())]

    @classmethod
    def _load_row(cls, key: dict[str, Any], base: str) -> str:
        problem: KacheryError = NotFound(f"not shared in any zone: {key}")
        for entry in _rows(cls & key):  # type: ignore[operator]
            (zone,) = _rows(cls.files.zones & {"kachery_zone_name": entry["kachery_zone_name"]})
            try:
                for other in _rows(cls.LinkedFile & key & {"kachery_zone_name": entry["kachery_zone_name"]}):
                    cls.files.fetch(zone, other, base)
                return cls.files.fetch(zone, entry, base)
            except KacheryError as error:
                # another zone may have it
                problem = error
        raise problem


def _some(rows: Any) -> Any:
    """A restriction that somebody gave; an empty one is more likely a mistake than meant."""
    if isinstance(rows, str | dict | list | tuple) and not rows:
        raise InvalidInput("say which rows", hint="all rows of a table are the table itself")
    # of a table its keys alone count
    return rows.proj() if hasattr(rows, "proj") else rows


def _rows(query: Any) -> list[dict[str, Any]]:
    # DataJoint 2 has another name for it
    rows = query.to_dicts() if hasattr(query, "to_dicts") else query.fetch(as_dict=True)
    return list(rows)
