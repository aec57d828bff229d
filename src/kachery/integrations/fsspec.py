"""`kachery://` wherever fsspec opens files: h5py, pynwb, zarr, xarray, pandas, dask.

    fsspec.open("kachery://sha1/HASH/recording.nwb")
    fsspec.open("kachery://lab.public/sha1/HASH/recording.nwb")             from that zone
    fsspec.open("sha1://HASH/recording.nwb")                                as the databases have it
    fsspec.open("kachery://sha1dir/HASH.session7/units.csv")                inside a directory
    fsspec.open("zip://a.csv::kachery://sha1/HASH/tables.zip")              chained

The spelling's grammar is in `kachery.uri`. Everything is for reading. A large file that is not on this machine is read
in blocks from its zone, which the zone sends and nobody can verify against the hash; a whole file (`cat`, `get`) and a
small one are loaded into the store and verified.
"""

from __future__ import annotations

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote

from fsspec.caching import BaseCache, register_cache
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from .. import files, manifests, reading, settings, uri
from ..errors import InvalidURI, NotFound, NotSupported, explaining

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..manifests import Member, Tree

#: How many files, or ranges of them, are fetched at once.
AT_ONCE = 16

# ranges of a file that are nearer to each other than this, in bytes, are fetched with one request, up to so much
_GAP = 64 * 1024
_LONGEST = 16 * 1024 * 1024

# for how long, in seconds, and of how many files the place in a zone is remembered
_REMEMBERED = 60.0
_MOST_REMEMBERED = 256

# directories whose manifests are kept; one is asked for with each path in it
_MOST_TREES = 8

_PREFIX = "kachery://"


class BlockCache(BaseCache):  # type: ignore[misc]
    """fsspec's view of `kachery.reading.Blocks`.

    Args:
        blocksize: What is fetched at once, in bytes.
        fetcher: Gets the bytes from a start to an end.
        size: The file's size in bytes.
    """

    name = "kachery"

    def __init__(self, blocksize: int, fetcher: Callable[[int, int], bytes], size: int) -> None:
        super().__init__(blocksize, fetcher, size)
        self._blocks = reading.Blocks(size, fetcher, blocksize)

    def _fetch(self, start: int | None, stop: int | None) -> bytes:
        return self._blocks.read(start or 0, self.size if stop is None else stop)


register_cache(BlockCache, clobber=True)


class KacheryFile(AbstractBufferedFile):  # type: ignore[misc]
    """One file, open for reading; pickled, it is its URI and position.

    Args:
        fs: The file system it belongs to.
        path: Its path there.
        mode: `rb`.
        block_size: What is fetched at once, in bytes.
        cache_type: One of fsspec's ways to keep what was read; by default ours.
        options: As `AbstractBufferedFile` takes them.
    """

    DEFAULT_BLOCK_SIZE = reading.BLOCK

    def __init__(
        self,
        fs: KacheryFileSystem,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        cache_type: str | None = None,
        **options: Any,
    ) -> None:
        self._fd = -1
        self._located = fs.locate(path)
        options["size"] = self._located.size
        super().__init__(fs, path, mode, block_size or "default", cache_type=cache_type or BlockCache.name, **options)
        if self._located.path is not None:
            with explaining("read", self._located.path):
                self._fd = os.open(self._located.path, os.O_RDONLY | os.O_CLOEXEC)

    def _fetch_range(self, start: int, end: int) -> bytes:
        if self._fd < 0:
            return self._located.read(start, end)
        # one call gives at most about 2 GiB
        pieces = [os.pread(self._fd, end - start, start)]
        while pieces[-1]:
            start += len(pieces[-1])
            pieces.append(os.pread(self._fd, end - start, start))
        return b"".join(pieces)

    def readinto(self, b: Any) -> int:
        """Fill a buffer; from a file on this machine without a copy between."""
        if self._fd < 0 or self.closed:
            return int(super().readinto(b))
        view = memoryview(b).cast("B")
        done = 0
        while done < len(view):
            count = os.preadv(self._fd, [view[done:]], self.loc)
            if not count:
                break
            done += count
            self.loc += count
        return done

    def __reduce__(self) -> tuple[Any, ...]:
        # releases of fsspec before 2024.12 would take the open connection along
        kept = self.cache.name if self.cache is not None else BlockCache.name
        return _reopen, (self.fs, self.path, self.blocksize, kept, self.loc)

    def close(self) -> None:
        """Let go of what was kept."""
        super().close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _reopen(fs: KacheryFileSystem, path: str, block_size: int, cache_type: str, position: int) -> KacheryFile:
    file = KacheryFile(fs, path, "rb", block_size, cache_type)
    file.seek(position)
    return file


class KacheryFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Files by their content, read-only.

    Args:
        zone: The zone to ask; by default the one in the URI, or that of the settings.
        options: As `AbstractFileSystem` takes them.

    Example:
        >>> fs = KacheryFileSystem(zone="lab.public")
        >>> with fs.open("sha1://253cc837e71aa814d19025fb70717353912b2577") as file:      # doctest: +SKIP
        ...     header = file.read(8)
    """

    protocol = ("kachery", "sha1", "sha256", "md5", "sha1dir", "md5dir")
    root_marker = ""

    def __init__(self, zone: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.zone = zone
        self._places: dict[tuple[str, ...], tuple[float, files.Readable]] = {}
        self._trees: dict[tuple[str, ...], Tree] = {}

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(item) for item in path]
        return uri.chained_path(os.fspath(path)).rstrip("/")

    @property
    def fsid(self) -> str:
        """The same for all of them: a path means the same content everywhere."""
        return "kachery"

    def locate(self, path: str) -> files.Readable:
        """Where a file can be read from.

        What is in a zone is remembered for a minute, because many small readings follow each other; content on this
        machine is looked at each time.

        Raises:
            InvalidURI: If the path is none.
            IsADirectoryError: If it is that of a directory.
            NotFound, NotAllowed, Unreachable, …: As for `kachery.load_file`.
        """
        path = self._by_content(path)
        now = time.monotonic()
        key = (path, settings.zone(self.zone), settings.gateway_url_or_none() or "", str(settings.store_dir()))
        since, known = self._places.get(key, (now - _REMEMBERED, None))
        if known is not None and now - since < _REMEMBERED:
            return known
        found = files.find_readable(_PREFIX + path, zone=self.zone)
        if found.path is None:
            self._places[key] = (now, found)
            for oldest in list(self._places)[:-_MOST_REMEMBERED]:
                self._places.pop(oldest, None)
        return found

    def _look(self, reference: uri.TreeRef) -> Member | Tree:
        """What a path inside a directory leads to."""
        key = (
            reference.algorithm,
            reference.hash,
            settings.zone(self.zone or reference.zone),
            str(settings.store_dir()),
        )
        tree = self._trees.get(key)
        if tree is None:
            root = f"{reference.algorithm}dir://{reference.hash}"
            tree = files.read_dir(root, zone=self.zone or reference.zone)
            self._trees[key] = tree
            for oldest in list(self._trees)[:-_MOST_TREES]:
                self._trees.pop(oldest, None)
        # a name as it is, or else as it has to be written where a query would begin
        for parts in (reference.path, tuple(unquote(part) for part in reference.path)):
            found = _member(tree, parts)
            if found is not None:
                return found
        raise NotFound(f"there is no {'/'.join(reference.path)} in {reference.algorithm}dir://{reference.hash}")

    def _by_content(self, path: str) -> str:
        """The path of a file by its content, for one inside a directory."""
        reference = uri.parse(_PREFIX + path)
        if not isinstance(reference, uri.TreeRef):
            return path
        found = self._look(reference)
        if not isinstance(found, manifests.Member):
            raise IsADirectoryError(errno.EISDIR, "it is a directory, not a file", _PREFIX + path)
        return "/".join([*([reference.zone] if reference.zone else []), found.algorithm, found.hash])

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget where files were."""
        self._places.clear()

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """What is known of a path: `name`, `type`, `size` in bytes; of a file its hash, under its algorithm's name.

        Raises:
            NotFound, NotAllowed, Unreachable, …: As for `kachery.load_file`.
        """
        path = self._strip_protocol(path)
        reference = uri.parse(_PREFIX + path)
        if isinstance(reference, uri.TreeRef):
            return _entry(path, self._look(reference))
        assert isinstance(reference, uri.FileRef)
        size = self.locate(path).size
        return {"name": path, "type": "file", "size": size, reference.algorithm: reference.hash}

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Whether a path can be read.

        Raises:
            NotAllowed, Unreachable, …: If nobody could be asked, which is not the same as that it is not there.
        """
        return self._kind(path) is not None

    def isfile(self, path: str) -> bool:
        """Whether a path is that of a file; errors as for `exists`."""
        return self._kind(path) == "file"

    def isdir(self, path: str) -> bool:
        """Whether a path is that of a directory; errors as for `exists`."""
        return self._kind(path) == "directory"

    def _kind(self, path: str) -> str | None:
        try:
            return str(self.info(path)["type"])
        except (NotFound, InvalidURI):
            return None

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """What is in a directory, or a file itself.

        Args:
            path: Its path.
            detail: Whether to tell what `info` does of each, or the paths alone.
            kwargs: Not used.
        """
        path = self._strip_protocol(path)
        reference = uri.parse(_PREFIX + path)
        found = self._look(reference) if isinstance(reference, uri.TreeRef) else None
        if found is None or isinstance(found, manifests.Member):
            entries = [self.info(path)]
        else:
            entries = [_entry(_inside(path, name), below) for name, below in sorted(found["dirs"].items())]
            below_files = sorted(found["files"].items())
            entries += [_entry(_inside(path, name), manifests.member(entry)) for name, entry in below_files]
        return entries if detail else [entry["name"] for entry in entries]

    def ukey(self, path: str) -> str:
        """What tells content from other content; nobody is asked."""
        return uri.chained_path(self._strip_protocol(path).partition("?")[0])

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **options: Any) -> KacheryFile:
        if mode != "rb":
            self._refuse()
        return KacheryFile(self, path, mode, block_size, **options)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """The bytes of a file, or of a part of it; negative positions count from the end."""
        path = self._by_content(self._strip_protocol(path))
        if start is None and end is None:
            return files.load_bytes(_PREFIX + path, zone=self.zone)
        located = self.locate(path)
        first, last = _within(start, end, located.size)
        return located.read(first, last) if first < last else b""

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **kwargs: Any) -> Any:
        """The bytes of one file, or those of several, by their paths; several at once.

        Args:
            path: A path, or a list of them.
            recursive: Whether a directory stands for all that is in it.
            on_error: `raise`, `omit`, or `return` for the error in place of the bytes.
            kwargs: Not used.
        """
        paths = self.expand_path(path, recursive=recursive)
        if recursive:
            paths = [item for item in paths if not self.isdir(item)]
        if isinstance(path, str) and paths == [self._strip_protocol(path)]:
            return self.cat_file(paths[0])
        found = dict(zip(paths, _at_once(self.cat_file, paths), strict=True))
        return _settled(found, on_error)

    def cat_ranges(
        self,
        paths: Sequence[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        on_error: str = "return",
        **kwargs: Any,
    ) -> list[Any]:
        """Parts of files, several at once; parts that lie near each other come together.

        Args:
            paths: One for each part.
            starts: The first byte of each part, or one number for all.
            ends: The byte after the last one of each, likewise.
            max_gap: Bytes between two parts that may be fetched along.
            on_error: `return` the error in place of the bytes, or `raise`.
            kwargs: Not used.

        Returns:
            The bytes of each part, in order.
        """
        count = len(paths)
        firsts = list(starts) if isinstance(starts, list | tuple) else [starts] * count
        lasts = list(ends) if isinstance(ends, list | tuple) else [ends] * count
        if not len(firsts) == len(lasts) == count:
            raise ValueError(f"{count} paths, {len(firsts)} starts and {len(lasts)} ends")
        names = [self._strip_protocol(path) for path in paths]
        distinct = list(dict.fromkeys(names))
        places = dict(zip(distinct, _at_once(self.locate, distinct), strict=True))
        found: list[Any] = [b""] * count
        wanted: dict[str, list[tuple[int, int, int]]] = {}
        for number, name in enumerate(names):
            place = places[name]
            if isinstance(place, Exception):
                found[number] = place
                continue
            first, last = _within(firsts[number], lasts[number], place.size)
            if first < last:
                wanted.setdefault(name, []).append((first, last, number))
        gap = _GAP if max_gap is None else max_gap
        runs = [(places[name], run) for name, parts in wanted.items() for run in _runs(parts, gap)]
        for (_, run), data in zip(runs, _at_once(_read_run, runs), strict=True):
            begin = run[0][0]
            for first, last, number in run:
                found[number] = data if isinstance(data, Exception) else data[first - begin : last - begin]
        if on_error == "raise":
            for item in found:
                if isinstance(item, Exception):
                    raise item
        return found

    def get_file(self, rpath: str, lpath: Any, callback: Any = None, outfile: Any = None, **kwargs: Any) -> None:
        """Have a file at a path of this machine, verified."""
        if outfile is not None or not isinstance(lpath, str | os.PathLike):
            target = outfile if outfile is not None else lpath
            target.write(self.cat_file(rpath))
            return
        if self.isdir(rpath):
            with explaining("make the directory", lpath):
                os.makedirs(lpath, exist_ok=True)
            return
        files.load_file(_PREFIX + self._by_content(self._strip_protocol(rpath)), dest=lpath, zone=self.zone)

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotSupported(
            "kachery:// is read-only: an address is made of its content",
            hint="store with `kachery store` or kachery.store_file, which give the address",
        )

    mkdir = makedirs = rmdir = rm = rm_file = _rm = _refuse
    cp_file = copy = mv = pipe_file = pipe = put_file = put = touch = _refuse


def _member(tree: Tree, parts: tuple[str, ...]) -> Member | Tree | None:
    for number, part in enumerate(parts):
        if part in tree["dirs"]:
            tree = tree["dirs"][part]
        elif part in tree["files"] and number == len(parts) - 1:
            return manifests.member(tree["files"][part])
        else:
            return None
    return tree


def _entry(path: str, found: Member | Tree) -> dict[str, Any]:
    if isinstance(found, manifests.Member):
        return {"name": path, "type": "file", "size": found.size, found.algorithm: found.hash}
    return {"name": path, "type": "directory", "size": 0}


def _inside(path: str, name: str) -> str:
    return f"{path.partition('?')[0]}/{name.replace('?', '%3F')}"


def _within(start: int | None, end: int | None, size: int) -> tuple[int, int]:
    first = 0 if start is None else start + size if start < 0 else start
    last = size if end is None else end + size if end < 0 else end
    return max(0, first), min(last, size)


def _runs(parts: list[tuple[int, int, int]], gap: int) -> Iterable[list[tuple[int, int, int]]]:
    """Parts of one file, in groups that are fetched with one request each."""
    run: list[tuple[int, int, int]] = []
    begin = end = 0
    for part in sorted(parts):
        if run and (part[0] > end + gap or max(end, part[1]) - begin > _LONGEST):
            yield run
            run = []
        if not run:
            begin = end = part[0]
        run.append(part)
        end = max(end, part[1])
    yield run


def _read_run(item: tuple[files.Readable, list[tuple[int, int, int]]]) -> bytes:
    located, run = item
    return located.read(run[0][0], max(last for _, last, _ in run))


def _at_once(action: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """The result of an action for each item, or the error in its place; several at once."""

    def attempt(item: Any) -> Any:
        try:
            return action(item)
        except Exception as error:
            return error

    if len(items) <= 1:
        return [attempt(item) for item in items]
    with ThreadPoolExecutor(min(len(items), AT_ONCE), "kachery-fsspec") as pool:
        return list(pool.map(attempt, items))


def _settled(found: dict[str, Any], on_error: str) -> dict[str, Any]:
    if on_error == "return":
        return found
    good = {}
    for path, item in found.items():
        if not isinstance(item, Exception):
            good[path] = item
        elif on_error == "raise":
            raise item
    return good
