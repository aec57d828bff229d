"""`kachery share`: bring this machine's files to whoever may load from the zone, when they ask."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import settings
from ..errors import InvalidInput, NotConfigured, explaining
from . import output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..node.config import ResourceConfig
    from ..node.daemon import Daemon
    from ..node.sharing import Sharing

SHARE_EXAMPLES = """\b
Examples:
  kachery link /data/raw/session7.dat
  kachery share --dry-run
  kachery share --dir /data/raw
  kachery share --config lab.yaml --config consortium.yaml
"""


def share(
    config: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A kachery-resource.yaml; may be given several times.",
            show_default="./kachery-resource.yaml, else this machine's own",
        ),
    ] = None,
    directory: Annotated[
        list[str] | None,
        typer.Option("--dir", metavar="DIR", help="Share only what lies in here; may be given several times."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What the resource is called the first time; by default the host name."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be shared, and connect nowhere.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: write a JSON array.")] = False,
) -> None:
    """Share this machine's files on demand, until Ctrl-C.

    What was linked or stored on this machine can be loaded elsewhere by its URI, by those who may load from the zone,
    as long as this runs. It connects outwards to the zone's gateway and needs no open port; whenever the connection
    breaks it comes back. Files are only read, and one that was changed since it was linked is not sent.

    Without a `kachery-resource.yaml` in the working directory the gateway and zone of `kachery status` are used; what
    is agreed with the gateway is kept in the store directory, under `resources`.
    """
    if as_json and not dry_run:
        raise InvalidInput("--json is for --dry-run", hint="leave it out")
    resources = [load(path) for path in config] if config else [_usual(name, make=not dry_run)]
    run(resources, directories=tuple(directory or ()), dry_run=dry_run, as_json=as_json)


def load(path: Path) -> ResourceConfig:
    """A resource from its file; a directory stands for the file of the usual name in it."""
    from ..node import config as configuration

    return configuration.load(path / configuration.FILE_NAME if path.is_dir() else path)


def require_zone(config: ResourceConfig, zone: str) -> None:
    """Make sure that a resource belongs to the zone that this shell uses.

    Raises:
        NotConfigured: If it does not.
    """
    if config.zone != zone:
        raise NotConfigured(
            f"Mismatch in kachery zone: {config.zone} <> {zone}",
            hint=f"set KACHERY_ZONE to {config.zone}, or run `kachery-resource init` for another resource",
        )


def run(
    resources: Sequence[ResourceConfig],
    *,
    directories: tuple[str, ...] = (),
    dry_run: bool = False,
    as_json: bool = False,
) -> None:
    """Share through some resources until a signal ends it, or list what they would share.

    Args:
        resources: Which.
        directories: Share only what lies in these, and in those of the resource's own if it has any.
        dry_run: Only list.
        as_json: List as JSON.
    """
    import asyncio

    from ..node.daemon import Daemon
    from ..node.sharing import Sharing
    from ..store import keys

    for directory in directories:
        with explaining("share", directory):
            if not Path(directory).is_dir():
                raise InvalidInput(
                    f"{directory} is not a directory", hint="--dir names directories; link files one by one"
                )
    if len({(resource.relay, resource.zone, resource.name) for resource in resources}) < len(resources):
        raise InvalidInput("the same resource was given twice", hint="give each --config once")
    sharings = [Sharing(directories or resource.directories, resource.store) for resource in resources]
    _warn_of_common(resources, sharings)
    if dry_run:
        _list(resources, sharings, as_json=as_json)
        return
    if keys.load() is None and any(resource.secret is None for resource in resources):
        raise NotConfigured(
            "this machine has no client keys, and the resource no proxySecret", hint="run `kachery init`"
        )
    output.follow()
    told: set[str] = set()

    def connected(resource: ResourceConfig) -> None:
        if resource.url not in told:
            told.add(resource.url)
            output.data(f"Resource URL: {resource.url}")

    daemons = [Daemon(resource, sharing, connected) for resource, sharing in zip(resources, sharings, strict=True)]
    asyncio.run(_until_signalled(daemons))


async def _until_signalled(daemons: Sequence[Daemon]) -> None:
    import asyncio

    from ..node.daemon import share as share_all

    task = asyncio.ensure_future(share_all(daemons))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        output.say("nothing is shared any more")


def _usual(name: str | None, *, make: bool) -> ResourceConfig:
    """The resource of the working directory, or this machine's own for its gateway and zone."""
    from ..node import config as configuration

    here = Path(configuration.FILE_NAME)
    if here.exists():
        found = configuration.load(here)
        require_zone(found, settings.variable("KACHERY_ZONE") or found.zone)
        return found
    zone = settings.zone()
    path = settings.store_dir() / "resources" / f"{zone}.yaml"
    content = configuration.read(path)
    relay = settings.gateway_url()
    if content.get("proxyUrl") != relay:
        # another gateway than the last time has another key, too
        content = {"proxyUrl": relay}
    chosen = name or content.get("resourceName") or _host_name()
    content = {"resourceName": chosen, "kacheryZone": zone, "maxConcurrentUploads": 4, **content}
    content["resourceName"] = configuration.require_name(str(chosen))
    if make:
        with explaining("make the directory", path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        configuration.write(path, content)
    return configuration.made(content, path)


def _warn_of_common(resources: Sequence[ResourceConfig], sharings: Sequence[Sharing]) -> None:
    """Say which zones would get the same files; a link is made for one zone, and nothing in it says which."""
    for shared in {(sharing.root, sharing.directories) for sharing in sharings}:
        found = zip(resources, sharings, strict=True)
        zones = sorted({resource.zone for resource, each in found if (each.root, each.directories) == shared})
        if len(zones) > 1:
            output.warn(
                f"{' and '.join(zones)} share the same files, those of {shared[0]}: whoever may load from one of these "
                "zones gets them all; a kacheryCloudDir of its own for each resource keeps them apart"
            )


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname().partition(".")[0]).strip("-")[:60] or "machine"


def _list(resources: Sequence[ResourceConfig], sharings: Sequence[Sharing], *, as_json: bool) -> None:
    found = [
        (resource, listed)
        for resource, sharing in zip(resources, sharings, strict=True)
        for listed in sharing.listing()
    ]
    if as_json:
        output.documents(
            {
                "uri": f"sha1://{listed.candidate.hash}",
                "resource": resource.name,
                "zone": resource.zone,
                "kind": listed.candidate.kind,
                "path": listed.candidate.path,
                "size": listed.candidate.size,
                "shared": listed.refused is None,
                "reason": listed.refused,
            }
            for resource, listed in found
        )
        return
    rows = []
    for resource, listed in found:
        size = "-" if listed.candidate.size is None else output.size(listed.candidate.size)
        state = "shared" if listed.refused is None else f"not shared: {listed.refused}"
        rows.append((f"sha1://{listed.candidate.hash}", size, resource.zone, listed.candidate.path, state))
    output.table(("URI", "SIZE", "ZONE", "PATH", ""), rows)
    shared = sum(listed.refused is None for _, listed in found)
    output.say(
        f"{output.files(shared)} would be shared; only sizes were compared, a file is verified when it is asked for"
    )
