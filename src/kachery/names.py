"""Names that come from outside: the one place where they are checked before they become paths.

A name from a URI, a manifest, a label or a mutable's key may not climb out of its directory, name a device, hide
control characters, or look like another name.
"""

from __future__ import annotations

import re
import unicodedata

from .errors import InvalidName

_ZONE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
# names that Windows takes for devices, with any suffix; a directory here may be read from there
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_LONGEST_COMPONENT = 255


def component(text: str, what: str = "name") -> str:
    """One component of a path, itself, when it is safe.

    Args:
        text: The component.
        what: What it is called in the error.

    Raises:
        InvalidName: If it is empty, `.` or `..`, has a slash or a backslash, names a device, is longer than 255 bytes,
            or holds control, format, surrogate or private characters.
    """
    problem = _problem(text)
    if problem:
        raise InvalidName(f"{what} {text[:80]!r} {problem}")
    return text


def _problem(text: str) -> str | None:
    if text in ("", ".", ".."):
        return "does not name a file"
    if "/" in text or "\\" in text:
        return "contains a path separator"
    if text.isascii():
        if not text.isprintable():
            return "contains control characters"
    elif any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for character in text):
        return "contains control or invisible characters"
    if _DEVICES.fullmatch(text):
        return "is the name of a device"
    if len(text.encode("utf-8", "surrogatepass")) > _LONGEST_COMPONENT:
        return f"is longer than {_LONGEST_COMPONENT} bytes"
    return None


def relative_path(text: str, what: str = "path") -> tuple[str, ...]:
    """The components of a relative path with `/` between them, when each of them is safe.

    Raises:
        InvalidName: If the path is absolute or empty, or a component is not safe.
    """
    if text.startswith("/"):
        raise InvalidName(f"{what} {text[:80]!r} is absolute")
    return tuple(component(part, what) for part in text.split("/"))


def zone(text: str) -> str:
    """A zone's name, itself, when it is one.

    Raises:
        InvalidName: If it is not 1 to 200 letters, digits, `_`, `.` or `-`, beginning with a letter or a digit.
    """
    if not _ZONE.fullmatch(text) or ".." in text:
        raise InvalidName(
            f"not a zone name: {text[:80]!r}",
            hint="letters, digits, `_`, `.` and `-`, beginning with a letter or a digit",
        )
    return text


def mutable_key(text: str) -> tuple[str, ...]:
    """The components of a local mutable's key, `@folder/@folder/name`.

    Raises:
        InvalidName: If a folder does not begin with `@`, the last component does, or one is not safe.
    """
    parts = tuple(component(part, "mutable key") for part in text.split("/"))
    if not all(part.startswith("@") for part in parts[:-1]) or parts[-1].startswith("@"):
        raise InvalidName(
            f"invalid mutable key: {text[:80]!r}", hint="folders begin with @, the last part does not: @folder/name"
        )
    return parts


def mutable_folder(text: str) -> tuple[str, ...]:
    """The components of a local mutable folder's key, `@folder/@folder`.

    Raises:
        InvalidName: If a component does not begin with `@` or is not safe.
    """
    parts = tuple(component(part, "mutable folder") for part in text.split("/"))
    if not all(part.startswith("@") for part in parts):
        raise InvalidName(f"invalid mutable folder: {text[:80]!r}", hint="every part begins with @: @folder/@folder")
    return parts
