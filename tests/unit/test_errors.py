"""The tree of errors: what each is, and what the file system's errors become."""

from __future__ import annotations

import copy
import errno
import inspect
import pickle
import re
from pathlib import Path

import pytest

from kachery import errors, http
from kachery.errors import KacheryError

CLASSES = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, KacheryError)]

BUILTINS = {
    "InvalidInput": ValueError,
    "InvalidURI": ValueError,
    "InvalidName": ValueError,
    "NotSupported": NotImplementedError,
    "NotConfigured": RuntimeError,
    "NotFound": FileNotFoundError,
    "Unreachable": ConnectionError,
    "TimedOut": TimeoutError,
    "BadReply": ConnectionError,
    "NotAllowed": PermissionError,
    "NotRegistered": PermissionError,
    "NotIdentified": PermissionError,
    "WrongContent": OSError,
    "Collision": OSError,
    "SourceChanged": OSError,
    "Conflict": FileExistsError,
    "TooLarge": OSError,
    "StorageFull": OSError,
}


def test_the_drawn_tree_is_the_tree() -> None:
    drawn = re.findall(r"[├└]── (\w+)(?: \((\w+)\))?", inspect.getdoc(errors) or "")

    assert {name for name, _ in drawn} | {"KacheryError"} == {item.__name__ for item in CLASSES}
    for name, builtin in drawn:
        if builtin:
            assert BUILTINS[name].__name__ == builtin


@pytest.mark.parametrize("kind", [item for item in CLASSES if item is not KacheryError])
def test_each_error_is_the_builtin_that_one_would_catch(kind: type[KacheryError]) -> None:
    assert issubclass(kind, BUILTINS[kind.__name__])


def test_codes_are_unique() -> None:
    codes = [item.code for item in CLASSES]

    assert len(codes) == len(set(codes))
    assert all(item.exit_code > 0 and 400 <= item.http_status < 600 for item in CLASSES)


@pytest.mark.parametrize("kind", [*CLASSES, http.Busy])
def test_errors_carry_a_hint_and_survive_pickling(kind: type[KacheryError]) -> None:
    error = kind("it is so", hint="do this")

    assert str(error) == "it is so (do this)"
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is kind
        assert (other.message, other.hint, str(other)) == ("it is so", "do this", str(error))
    assert str(kind("it is so")) == "it is so"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, errors.StorageFull),
        (errno.EDQUOT, errors.StorageFull),
        (errno.EACCES, errors.NotAllowed),
        (errno.EPERM, errors.NotAllowed),
        (errno.EROFS, errors.NotAllowed),
        (errno.ENOENT, errors.NotFound),
        (errno.ENOTDIR, errors.NotFound),
        (errno.ENAMETOOLONG, errors.InvalidInput),
        (errno.ELOOP, errors.InvalidInput),
        (errno.EEXIST, errors.Conflict),
        (errno.EIO, KacheryError),
    ],
)
def test_what_the_file_system_says(number: int, kind: type[KacheryError]) -> None:
    with pytest.raises(KacheryError) as caught, errors.explaining("write to", Path("/some/where")):
        raise OSError(number, "…")

    assert type(caught.value) is kind
    assert "could not write to /some/where: " in caught.value.message
    assert isinstance(caught.value.__cause__, OSError)


def test_an_error_of_ours_is_not_explained_again() -> None:
    with pytest.raises(errors.SourceChanged, match=r"^it changed$"), errors.explaining("read", "x"):
        raise errors.SourceChanged("it changed")


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), errors.explaining("read", "x"):
        raise KeyError("k")
