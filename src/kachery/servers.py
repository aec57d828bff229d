"""The classic servers that a user knows by name, and the passwords of their channels.

They stand in `~/.config/kachery/servers.json` (`KACHERY_SERVERS` names another file), which nobody but the user writes.
Both shapes that classic kachery had are understood, one beside the other if need be:

    {"servers": [{"name": "lab", "url": "https://kachery.lab.org/neuro", "default_read_channel": "public",
                  "default_write_channel": "members", "channels": [{"name": "public", "password": "public"},
                                                                   {"name": "members", "password": null}]}],
     "configurations": {"default_readwrite": {"url": "https://…", "channel": "members",
                                              "password": {"env": "KACHERY_DEFAULT_PASSWORD"}}}}

`server~channel` names a channel of a server, and `server` alone its default one. A password is a text, `{"env": NAME}`,
or `null`: then it is the one that `kachery-set-password` keeps, in `server_passwords.json` beside it; for the servers
of the classic documentation, whose names begin with `default`, `KACHERY_DEFAULT_PASSWORD` takes its place.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import settings
from .errors import InvalidInput, NotConfigured, explaining

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What the classic documentation calls the password of its servers.
DEFAULT_PASSWORD = "KACHERY_DEFAULT_PASSWORD"  # noqa: S105 — the name of a variable

PASSWORDS = "server_passwords.json"

_KEYS = ("server_name", "channel_name", "password")

Access = dict[str, Any]


def find(name: str, *, writing: bool) -> Access | None:
    """What is needed to use a channel of a server.

    Args:
        name: `server` or `server~channel`.
        writing: Which of the server's default channels is meant.

    Returns:
        `url`, `channel` and `password`, the last of them a text, `{"env": NAME}` or `None`; `None` when nobody named a
        server so.

    Raises:
        NotConfigured: If the file cannot be understood, the server has no such channel, or its password is not known.
    """
    content = _read(settings.servers_path())
    server_name, _, channel_name = name.partition("~")
    server = _named(content, server_name)
    if server is not None:
        return _channel_of(server, server_name, channel_name, writing=writing)
    configurations = content.get("configurations")
    found = configurations.get(name) if isinstance(configurations, dict) else None
    return access(found, name) if found is not None else None


def names() -> list[str]:
    """The names of all servers and configurations."""
    content = _read(settings.servers_path())
    configurations = content.get("configurations")
    return sorted({*_servers(content), *(configurations if isinstance(configurations, dict) else ())})


def access(value: Any, what: str = "a server") -> Access:
    """What is needed to use a channel, checked.

    Args:
        value: A mapping with `url`, `channel` and `password`.
        what: What to call it in errors.

    Raises:
        NotConfigured: If something is missing or makes no sense.
    """
    given = value if isinstance(value, dict) else {}
    url, channel, password = given.get("url"), given.get("channel"), given.get("password")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise NotConfigured(f"the address of {what} must begin with http:// or https://", hint=_see())
    if not isinstance(channel, str) or not channel:
        raise NotConfigured(f"the channel of {what} is not named", hint=_see())
    if not (password is None or isinstance(password, str) or _variable_of(password)):
        raise NotConfigured(f'the password of {what} is neither a text nor {{"env": NAME}}', hint=_see())
    return {"url": url, "channel": channel, "password": password}


def password(value: Any) -> str | None:
    """The password itself.

    Args:
        value: A text, `{"env": NAME}` or `None`.

    Raises:
        NotConfigured: If the variable is not set.
    """
    name = _variable_of(value)
    if name is None:
        return value if isinstance(value, str) else None
    found = settings.variable(name)
    if found is None:
        raise NotConfigured(f"You need to set the {name} environment variable", hint="it holds the channel's password")
    return found


def set_password(name: str, value: str) -> Path:
    """Keep the password of a channel, for this user's eyes only; the others stay.

    Args:
        name: `server~channel`.
        value: The password.

    Returns:
        Where it is kept.

    Raises:
        InvalidInput: If the name is not of this form.
        NotConfigured: If what is kept there cannot be understood.
        NotAllowed, StorageFull: As the file system says.
    """
    server, mark, channel = name.partition("~")
    if not mark or not server or not channel or "~" in channel:
        raise InvalidInput(f"not the name of a channel: {name!r}", hint="write server~channel")
    place = settings.user_directory() / PASSWORDS
    with _alone(place.parent):
        others = [entry for entry in _kept(place) if (entry.get(_KEYS[0]), entry.get(_KEYS[1])) != (server, channel)]
        kept = [*others, dict(zip(_KEYS, (server, channel, value), strict=True))]
        _write_private(place, json.dumps(kept, indent=4).encode())
    return place


def _channel_of(server: dict[str, Any], server_name: str, channel_name: str, *, writing: bool) -> Access:
    wanted = channel_name or server.get("default_write_channel" if writing else "default_read_channel")
    if not isinstance(wanted, str) or not wanted:
        raise NotConfigured(
            f"the server {server_name} has no default channel to {'write to' if writing else 'read from'}",
            hint=f"name one: {server_name}~CHANNEL",
        )
    channels = server.get("channels")
    for channel in channels if isinstance(channels, list) else []:
        if isinstance(channel, dict) and channel.get("name") == wanted:
            found = access({**channel, "url": server.get("url"), "channel": wanted}, f"the server {server_name}")
            if found["password"] is None:
                found["password"] = _kept_password(server_name, wanted)
            return found
    raise NotConfigured(f"Unable to find channel {wanted} in server {server_name}", hint=_see())


def _kept_password(server: str, channel: str) -> str | dict[str, str]:
    # a password that was set for classic kachery works as well
    for place in (settings.user_directory() / PASSWORDS, Path(os.path.expanduser("~/.kachery")) / PASSWORDS):
        for entry in _kept(place):
            found = entry.get("password")
            if (entry.get("server_name"), entry.get("channel_name")) == (server, channel) and isinstance(found, str):
                return found
    if server.startswith("default"):
        return {"env": DEFAULT_PASSWORD}
    raise NotConfigured(
        f"No password found for server~channel: {server}~{channel}",
        hint=f"kachery-set-password {server}~{channel} --password PASSWORD",
    )


def _named(content: dict[str, Any], name: str) -> dict[str, Any] | None:
    return _servers(content).get(name)


def _servers(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    servers = content.get("servers")
    # a server's file may be the whole configuration, too
    listed = servers if isinstance(servers, list) else [content] if "channels" in content else []
    for server in listed:
        if isinstance(server, dict) and isinstance(server.get("name"), str):
            # as in classic kachery, the first of a name counts
            found.setdefault(server["name"], server)
    return found


def _see() -> str:
    return f"see {settings.servers_path()}"


def _variable_of(value: Any) -> str | None:
    name = value.get("env") if isinstance(value, dict) else None
    return name if isinstance(name, str) and name else None


def _read(place: Path) -> dict[str, Any]:
    value = _json(place)
    if value is None:
        return {}
    if not isinstance(value, dict):
        _not_understood(place, "it does not hold a JSON object")
    return value


def _kept(place: Path) -> list[dict[str, Any]]:
    value = _json(place)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        _not_understood(place, "it does not hold a list of passwords")
    return value


def _json(place: Path) -> Any:
    try:
        return json.loads(place.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        _not_understood(place, error.strerror or str(error))
    except (ValueError, RecursionError) as error:
        _not_understood(place, str(error))


def _not_understood(place: Path, why: str) -> NoReturn:
    raise NotConfigured(f"{place} cannot be understood: {why}", hint="mend it, or move it away")


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold a directory, so that of two who change what is in it neither undoes what the other did."""
    with explaining("write to", directory):
        os.makedirs(directory, 0o700, exist_ok=True)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _write_private(place: Path, content: bytes) -> None:
    temporary = place.with_name(f"{place.name}.{secrets.token_hex(5)}")
    with explaining("write to", place):
        try:
            # private from its first moment on
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(fd)
            os.replace(temporary, place)
        finally:
            temporary.unlink(missing_ok=True)
