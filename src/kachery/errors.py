"""Every error that kachery raises.

    KacheryError
    ├── InvalidInput (ValueError)             what was given makes no sense
    │   ├── InvalidURI                        not a URI that any generation of kachery wrote
    │   └── InvalidName                       a label, zone, key or path that could escape or confuse
    ├── NotSupported (NotImplementedError)    understood, but this installation cannot do it
    ├── NotConfigured (RuntimeError)          a gateway, a zone or keys must be set up first
    ├── NotFound (FileNotFoundError)          nobody who was asked has it
    ├── Unreachable (ConnectionError)         somebody who should answer does not
    │   ├── TimedOut (TimeoutError)           … within the time that was allowed
    │   └── BadReply                          … or answers what the protocol does not know
    ├── NotAllowed (PermissionError)          the zone or the file system says no
    │   ├── NotRegistered                     … because it does not know this client
    │   └── NotIdentified                     … because this machine has no client keys to say who it is
    ├── WrongContent (OSError)                the bytes are not what their hash or size says
    │   └── Collision                         the same SHA-1, another SHA-256
    ├── SourceChanged (OSError)               a file changed while it was read, or since it was linked
    ├── Conflict (FileExistsError)            somebody else is doing, or has done, the same
    ├── TooLarge (OSError)                    over a limit or a quota
    └── StorageFull (OSError)                 no room left on the device

Not found, not reachable, not allowed and not what it claims to be are four different answers, so they are four
different errors. Each is also the builtin that a program would catch anyway. Each class has a stable `code` (for
programs and JSON), an `exit_code` (for the command line) and an `http_status` (for the gateway).
"""

from __future__ import annotations

import errno
import os


class KacheryError(Exception):
    """The base of all errors of kachery.

    Args:
        message: What happened and why, in one sentence without a full stop at its end.
        hint: What to do next, if there is something to do.
    """

    code = "error"
    exit_code = 1
    http_status = 500

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InvalidInput(KacheryError, ValueError):
    """What was given makes no sense."""

    code = "invalid_input"
    exit_code = 2
    http_status = 400


class InvalidURI(InvalidInput):
    """Not a URI that any generation of kachery wrote."""

    code = "invalid_uri"


class InvalidName(InvalidInput):
    """A label, zone name, mutable key or path that could escape its place or confuse a reader."""

    code = "invalid_name"


class NotSupported(KacheryError, NotImplementedError):
    """Understood, but this installation cannot do it."""

    code = "not_supported"
    exit_code = 8
    http_status = 501


class NotConfigured(KacheryError, RuntimeError):
    """A gateway, a zone or keys must be set up first."""

    code = "not_configured"
    exit_code = 9


class NotFound(KacheryError, FileNotFoundError):
    """Nobody who was asked has it."""

    code = "not_found"
    exit_code = 3
    http_status = 404


class Unreachable(KacheryError, ConnectionError):
    """Somebody who should answer does not."""

    code = "unreachable"
    exit_code = 4
    http_status = 503


class TimedOut(Unreachable, TimeoutError):
    """Somebody who should answer did not within the time that was allowed."""

    code = "timed_out"
    http_status = 504


class BadReply(Unreachable):
    """A peer answered something that its protocol does not know."""

    code = "bad_reply"
    http_status = 502


class NotAllowed(KacheryError, PermissionError):
    """The zone or the file system says no."""

    code = "not_allowed"
    exit_code = 5
    http_status = 403


class NotRegistered(NotAllowed):
    """The zone does not know this client."""

    code = "not_registered"


class NotIdentified(NotAllowed):
    """The zone wants to know who asks, and this machine has no client keys."""

    code = "not_identified"
    http_status = 401


class WrongContent(KacheryError, OSError):
    """The bytes are not what their hash or size says."""

    code = "wrong_content"
    exit_code = 6
    http_status = 422


class Collision(WrongContent):
    """Content whose SHA-1 is known already, with another SHA-256."""

    code = "collision"
    http_status = 409


class SourceChanged(KacheryError, OSError):
    """A file changed while it was read, or since it was linked."""

    code = "source_changed"
    exit_code = 6
    http_status = 409


class Conflict(KacheryError, FileExistsError):
    """Somebody else is doing, or has done, the same."""

    code = "conflict"
    exit_code = 10
    http_status = 409


class TooLarge(KacheryError, OSError):
    """Over a limit or a quota."""

    code = "too_large"
    exit_code = 7
    http_status = 413


class StorageFull(KacheryError, OSError):
    """No room left on the device."""

    code = "storage_full"
    exit_code = 7
    http_status = 507


def by_code(code: str) -> type[KacheryError] | None:
    """The class of error that a code belongs to, as gateways name it."""
    waiting: list[type[KacheryError]] = [KacheryError]
    while waiting:
        kind = waiting.pop()
        if kind.__module__ == __name__ and kind.code == code:
            return kind
        waiting += kind.__subclasses__()
    return None


_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_MISSING = {errno.ENOENT, errno.ENOTDIR}
_SENSELESS = {errno.ENAMETOOLONG, errno.ELOOP}


class explaining:  # noqa: N801 — reads as a word: `with explaining("read", path):`
    """A context in which what the file system says becomes an error of ours.

    Args:
        action: What is being done, as in "could not *write to*".
        path: The file or directory it is done to.
    """

    def __init__(self, action: str, path: str | os.PathLike[str]) -> None:
        self._action = action
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, KacheryError):
            raise from_os_error(error, self._action, self._path) from error


def from_os_error(error: OSError, action: str, path: str | os.PathLike[str]) -> KacheryError:
    """The error of ours that says what an `OSError` of the file system means.

    Args:
        error: What the operating system said.
        action: What was being done, as in "could not *write to*".
        path: The file or directory it was done to.

    Returns:
        An error to raise `from` the given one.
    """
    reason = os.strerror(error.errno) if error.errno else str(error)
    message = f"could not {action} {os.fspath(path)}: {reason}"
    if error.errno in _FULL:
        return StorageFull(message, hint="make room on this file system, then try again; nothing was lost")
    if error.errno == errno.EROFS:
        return NotAllowed(message, hint="the file system is read-only; set KACHERY_CLOUD_DIR to a place you can write")
    if error.errno in _FORBIDDEN:
        return NotAllowed(message, hint="check the owner, group and mode of the path and of the directories above it")
    if error.errno in _MISSING:
        return NotFound(message, hint="check the spelling of the path")
    if error.errno == errno.EEXIST:
        return Conflict(message, hint="something else is in its place")
    if error.errno in _SENSELESS:
        return InvalidInput(message, hint="give another path")
    return KacheryError(message)
