"""The programs of earlier generations: `kachery-store`, `kachery-load` and the rest, with the options that they had.

| program | of | what it prints |
|---|---|---|
| `kachery-store`, `kachery store-file` | classic, 2.x | the URI |
| `kachery-store-local`, `kachery store-file-local` | 2.x | the URI |
| `kachery-load`, `kachery load-file` | classic, 2.x | a path |
| `kachery-load-dir` | classic | `Done.` |
| `kachery-cat`, `kachery cat-file` | classic, 2.x | the bytes |
| `kachery-ls` | classic | directories with a `/` at their end, then files |
| `kachery-info` | classic | JSON: where it is, its size and hash |
| `kachery-load-info`, `kachery load-file-info` | 2.x | JSON: what the zone says |
| `kachery-set-password` | classic | nothing |

Nothing but that goes to the standard output. Unlike then, an exit code that is not 0 says in each case that it was not
done, and nobody is asked anything.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ..errors import InvalidInput, NotFound
from . import output

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..configuration import Options

_STEP = 1024 * 1024

PathArgument = Annotated[str, typer.Argument(metavar="PATH", help="A file or directory.", show_default=False)]
UriArgument = Annotated[
    str, typer.Argument(metavar="URI", help="As `kachery-store` printed it, or a path.", show_default=False)
]

ToOption = Annotated[
    str | None, typer.Option("--to", "-t", metavar="NAME", help="The server, server~channel or zone to store it in.")
]
FrOption = Annotated[
    str | None, typer.Option("--fr", "-f", metavar="NAME", help="The server, server~channel or zone to ask.")
]
RemoteOnlyOption = Annotated[bool, typer.Option("--remote-only", help="Leave this machine's own copies out.")]
UrlOption = Annotated[str | None, typer.Option("--url", metavar="URL", help="The address of a classic server.")]
ChannelOption = Annotated[str | None, typer.Option("--channel", "-c", metavar="NAME", help="Its channel.")]
PasswordOption = Annotated[
    str | None,
    typer.Option("--password", "-p", metavar="TEXT", help="The channel's password; others may see it in `ps`."),
]
HardLinksOption = Annotated[bool, typer.Option("--use-hard-links", help="Accepted; files are copied.")]
LabelOption = Annotated[str | None, typer.Option("--label", metavar="TEXT", help="The name in the URI.")]


def store(
    path: PathArgument,
    to: ToOption = None,
    remote_only: RemoteOnlyOption = False,
    url: UrlOption = None,
    channel: ChannelOption = None,
    password: PasswordOption = None,
    algorithm: Annotated[str, typer.Option("--algorithm", "-a", help="sha1 or md5.")] = "sha1",
    git_annex_mode: Annotated[
        bool, typer.Option("--git-annex-mode", help="Take the MD5 of git-annex files from their links.")
    ] = False,
    use_hard_links: HardLinksOption = False,
    cache_locally: Annotated[bool, typer.Option("--cache-locally", help="Keep a copy on this machine.")] = False,
    label: LabelOption = None,
) -> None:
    """Store a file or a directory, and print its URI."""
    from .. import api, directories

    options = _place("to", to, url, channel, password)
    options.update(to_remote_only=remote_only, algorithm=algorithm)
    if os.path.isdir(path):
        output.data(
            directories.store_dir(
                path, label or None, git_annex_mode=git_annex_mode, cache_locally=cache_locally, **options
            )
        )
        return
    if not os.path.exists(path):
        raise NotFound(f"Not a file or directory: {path}", hint="check the spelling of the path")
    output.data(api.store_file(path, label=label or None, cache_locally=cache_locally, **options))


def store_local(path: PathArgument, label: LabelOption = None) -> None:
    """Store a file on this machine, and print its URI."""
    from .. import api

    output.data(api.store_file(path, label=label or None, local=True))


def load(
    uri: UriArgument,
    dest: Annotated[str | None, typer.Option("--dest", metavar="PATH", help="Put a copy there.")] = None,
    fr: FrOption = None,
    remote_only: RemoteOnlyOption = False,
    url: UrlOption = None,
    channel: ChannelOption = None,
    password: PasswordOption = None,
    use_hard_links: HardLinksOption = False,
) -> None:
    """Have a file on this machine, and print its path."""
    from .. import files
    from ..calls import located

    output.data(files.load_file(located(uri), dest=dest, **_source(fr, url, channel, password, remote_only)))


def load_dir(
    uri: UriArgument,
    dest: Annotated[str, typer.Option("--dest", metavar="PATH", help="Where to put it; nothing may be there.")],
    fr: FrOption = None,
    remote_only: RemoteOnlyOption = False,
    url: UrlOption = None,
    channel: ChannelOption = None,
    password: PasswordOption = None,
    use_hard_links: HardLinksOption = False,
) -> None:
    """Have a copy of a directory on this machine."""
    from .. import files

    files.load_dir(uri, dest, **_source(fr, url, channel, password, remote_only))
    output.data("Done.")


def cat(
    uri: UriArgument,
    start: Annotated[int | None, typer.Option("--start", min=0, metavar="N", help="The first byte.")] = None,
    end: Annotated[int | None, typer.Option("--end", min=0, metavar="N", help="The byte after the last one.")] = None,
    fr: FrOption = None,
    remote_only: RemoteOnlyOption = False,
    url: UrlOption = None,
    channel: ChannelOption = None,
    password: PasswordOption = None,
    use_hard_links: HardLinksOption = False,
) -> None:
    """Write a file, or a part of it, to the standard output."""
    from .. import files
    from ..calls import located

    text, where = located(uri), _source(fr, url, channel, password, remote_only)
    if start is None and end is None:
        with open(files.load_file(text, **where), "rb", buffering=0) as file:
            while content := file.read(_STEP):
                output.raw(content)
        return
    with files.open_file(text, **where) as part:
        size = part.seek(0, io.SEEK_END)
        first, last = start or 0, size if end is None else end
        if not first <= last <= size:
            raise InvalidInput(f"Invalid start/end range for file of size {size}: {first} - {last}")
        part.seek(first)
        while first < last and (content := part.read(min(_STEP, last - first))):
            output.raw(content)
            first += len(content)


def ls(
    uri: UriArgument,
    fr: FrOption = None,
    remote_only: RemoteOnlyOption = False,
    url: UrlOption = None,
    channel: ChannelOption = None,
    password: PasswordOption = None,
    use_hard_links: HardLinksOption = False,
) -> None:
    """List a stored directory: the directories in it, each with a `/` at its end, then the files."""
    from ..configuration import chosen
    from ..directories import directory

    tree = directory(uri, chosen(_options("fr", fr, url, channel, password, remote_only)))
    output.lines([*(f"{output.visible(name)}/" for name in sorted(tree["dirs"])), *_names(tree["files"])])


def info(
    uri: UriArgument,
    fr: FrOption = None,
    remote_only: RemoteOnlyOption = False,
    url: UrlOption = None,
    channel: ChannelOption = None,
    password: PasswordOption = None,
    use_hard_links: HardLinksOption = False,
) -> None:
    """Show where a file is, its size and its hash, as JSON; nothing is loaded."""
    from ..generations import classic

    options = _options("fr", fr, url, channel, password, remote_only)
    output.document(classic.file_info(uri, **options), indent=4)


def load_info(uri: UriArgument) -> None:
    """Show what the zone says of a file, as JSON; nothing is loaded."""
    from ..generations import second

    output.document(second.zone_info(uri), indent=4)


def set_password(
    channel: Annotated[str, typer.Argument(metavar="SERVER~CHANNEL", help="As in servers.json.", show_default=False)],
    password: Annotated[str, typer.Option("--password", metavar="TEXT", help="The channel's password.")],
) -> None:
    """Keep the password of a channel of a classic server, for this user alone."""
    from .. import servers

    output.say(f"kept in {servers.set_password(channel, password)}")


def _names(entries: Any) -> list[str]:
    return [output.visible(name) for name in sorted(entries)]


def _place(which: str, name: str | None, url: str | None, channel: str | None, password: str | None) -> dict[str, Any]:
    if name is not None and (url or channel or password):
        raise InvalidInput(
            f"--{which} names all that --url, --channel and --password say", hint="give one or the other"
        )
    if name is not None:
        return {which: name}
    if url or channel or password:
        return {which: {"url": url, "channel": channel, "password": password}}
    return {}


def _options(
    which: str, name: str | None, url: str | None, channel: str | None, password: str | None, remote_only: bool
) -> Options:
    options: Any = {**_place(which, name, url, channel, password), "from_remote_only": remote_only}
    return options  # type: ignore[no-any-return]


def _source(
    fr: str | None, url: str | None, channel: str | None, password: str | None, remote_only: bool
) -> dict[str, Any]:
    from .. import configuration
    from ..calls import whence

    return whence(configuration.chosen(_options("fr", fr, url, channel, password, remote_only)), None)


# --- as programs


def _run(function: Callable[..., None], name: str) -> NoReturn:
    from .main import start

    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    app.command()(function)
    start(app, name)


def store_program() -> NoReturn:
    """The entry point of `kachery-store`."""
    _run(store, "kachery-store")


def store_local_program() -> NoReturn:
    """The entry point of `kachery-store-local`."""
    _run(store_local, "kachery-store-local")


def load_program() -> NoReturn:
    """The entry point of `kachery-load`."""
    _run(load, "kachery-load")


def load_dir_program() -> NoReturn:
    """The entry point of `kachery-load-dir`."""
    _run(load_dir, "kachery-load-dir")


def load_info_program() -> NoReturn:
    """The entry point of `kachery-load-info`."""
    _run(load_info, "kachery-load-info")


def cat_program() -> NoReturn:
    """The entry point of `kachery-cat`."""
    _run(cat, "kachery-cat")


def ls_program() -> NoReturn:
    """The entry point of `kachery-ls`."""
    _run(ls, "kachery-ls")


def info_program() -> NoReturn:
    """The entry point of `kachery-info`."""
    _run(info, "kachery-info")


def set_password_program() -> NoReturn:
    """The entry point of `kachery-set-password`."""
    _run(set_password, "kachery-set-password")
