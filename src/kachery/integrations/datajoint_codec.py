"""DataJoint's attribute type `<kachery>`: a file that is wherever its content is, and comes when it is read.

    class Recording(dj.Manual):
        definition = '''
        session: int32
        ---
        recording: <kachery>
        '''

    Recording.insert1({"session": 7, "recording": "/data/session7.nwb"})       stored in the zone of the settings
    Recording.insert1({"session": 8, "recording": "sha1://253cc8…"})           anything that `kachery load` takes
    file = (Recording & "session = 7").fetch1("recording")
    pynwb.NWBHDF5IO(file.path)                                                 loaded once, verified
    h5py.File(file.open())                                                     only what is read is moved

DataJoint 2 finds the type by itself where `kachery` is installed. The database holds a URI and nothing else.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import datajoint as dj

from .. import files, uri
from ..errors import InvalidURI

if TYPE_CHECKING:
    from typing import BinaryIO

_LONGEST = 1000


@dataclass(frozen=True)
class KacheryFile(os.PathLike[str]):
    """A file, by its URI; nothing is moved before it is asked for.

    Attributes:
        uri: Its URI.
    """

    uri: str

    @property
    def path(self) -> str:
        """Where it is on this machine, verified; it is loaded if it is not. It must not be written to.

        Raises:
            NotFound, NotAllowed, Unreachable, …: As `kachery.load_file`.
        """
        return files.load_file(self.uri)

    def open(self) -> BinaryIO:
        """Open it for reading; of a large file only what is read is moved."""
        return files.open_file(self.uri)

    def __fspath__(self) -> str:
        """`path`, for everything that takes a path."""
        return self.path

    def __str__(self) -> str:
        """Its URI."""
        return self.uri


class KacheryCodec(dj.Codec):  # type: ignore[misc]
    """The type `<kachery>`."""

    name = "kachery"

    def get_dtype(self, is_store: bool) -> str:
        """What the database holds: a URI. The zone takes the place of DataJoint's stores."""
        if is_store:
            raise dj.DataJointError("<kachery> takes no @store: its files are in a zone of kachery")
        return f"varchar({_LONGEST})"

    def validate(self, value: Any) -> None:
        """Refuse what is neither a URI that can be loaded nor a path.

        Raises:
            TypeError, ValueError: If it is something else.
        """
        if isinstance(value, KacheryFile):
            return
        if not isinstance(value, str | os.PathLike):
            raise TypeError(f"<kachery> takes a path, a URI or a KacheryFile, not {type(value).__name__}")
        if _is_uri(value):
            if not isinstance(uri.parse(str(value)), uri.FileRef | uri.UrlRef | uri.GithubRef | uri.ZenodoRef):
                raise InvalidURI(f"the URI of something that is not a file: {value!r}")
            if len(str(value)) > _LONGEST:
                raise InvalidURI(f"the URI is longer than {_LONGEST} characters: {str(value)[:80]}…")

    def encode(self, value: Any, *, key: Any = None, context: Any = None, store_name: str | None = None) -> str:
        """The URI of a file; one that is given by its path is stored in the zone of the settings first."""
        if isinstance(value, KacheryFile):
            return value.uri
        if _is_uri(value):
            return str(value)
        stored = files.store_file(value)
        name = os.path.basename(os.fsdecode(value))
        if stored.zone is None:
            # a plain directory, or a server of another kind, took its place
            return uri.named_uri(stored.hash, name)
        text = uri.zone_uri(stored.zone, stored.hash, name)
        return text if len(text) <= _LONGEST else uri.zone_uri(stored.zone, stored.hash)

    def decode(self, stored: str, *, key: Any = None, context: Any = None) -> KacheryFile:
        """The file of a URI."""
        return KacheryFile(stored)


def _is_uri(value: Any) -> bool:
    return isinstance(value, str) and ("://" in value or value.startswith("kachery:"))
