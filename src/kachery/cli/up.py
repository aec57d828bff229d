"""`kachery up`: run a gateway in the foreground."""

from __future__ import annotations

import getpass
import re
import socket
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from . import output

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ..gateway.runtime import Gateway
    from ..gateway.services.channels import Channels


def up(
    data: Annotated[
        Path | None,
        typer.Option(help="Data directory.", envvar="KACHERY_DATA", show_default="~/.local/share/kachery"),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port; 0 chooses a free one.", envvar="PORT", min=0, max=65535)] = 8471,
    zone: Annotated[str, typer.Option(help="Zone to make if there is none of this name.")] = "default",
    public_url: Annotated[
        str | None, typer.Option(help="Address that clients use, when a proxy stands in front.")
    ] = None,
    max_file_size: Annotated[
        int | None, typer.Option(help="Largest file accepted, in bytes.", min=1, show_default="16 TiB")
    ] = None,
    classic: Annotated[
        Path | None,
        typer.Option(
            help="Channels of the classic protocol, a kachery.json.", show_default="kachery.json in the data directory"
        ),
    ] = None,
    classic_port: Annotated[
        int | None, typer.Option(help="Port for the classic protocol alone; else it is at /classic.", min=0, max=65535)
    ] = None,
    classic_zone: Annotated[
        str | None, typer.Option(help="Zone of channels that name none.", show_default="--zone")
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            help="PostgreSQL database, as in postgresql://USER@HOST/NAME.",
            envvar="KACHERY_DATABASE",
            show_default="SQLite in the data directory",
        ),
    ] = None,
    bucket: Annotated[
        str | None,
        typer.Option(
            help="Where files are kept, as in s3://BUCKET/PREFIX?region=REGION. Needed at the first start only.",
            envvar="KACHERY_BUCKET",
            show_default="the data directory",
        ),
    ] = None,
    bus: Annotated[
        str | None,
        typer.Option(
            help="How several gateways of one data directory find each other: a directory of this machine, "
            "nats://HOST:PORT or postgresql://HOST/NAME.",
            envvar="KACHERY_BUS",
            metavar="BUS",
        ),
    ] = None,
    internal_url: Annotated[
        str | None, typer.Option(help="Address by which the others reach this one.", show_default="where it listens")
    ] = None,
    broker: Annotated[
        str | None,
        typer.Option(
            metavar="ZONE",
            help="Answer Spyglass's coming store client, whose protocol may change; its files go to this private zone.",
            envvar="KACHERY_BROKER",
        ),
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run a gateway until Ctrl-C.

    Whoever starts it first is its administrator, and this machine's client is registered in the zone. One line
    `ready http://HOST:PORT` is written once it answers.

    With --bus any number of them may run on one data directory, behind a proxy that gives their requests to any of
    them; --public-url is then the proxy's address.
    """
    from ..errors import InvalidInput
    from ..gateway import config as gateway_config
    from ..gateway import lead, logs, runtime, server

    if log_level not in logs.LEVELS:
        raise InvalidInput(f"unknown log level {log_level!r}", hint="one of " + ", ".join(logs.LEVELS))
    directory = data.expanduser().absolute() if data else gateway_config.default_data_directory()
    channels = _channels(directory, classic, classic_port, classic_zone or zone)
    config = gateway_config.GatewayConfig(
        data=directory,
        host=host,
        port=port,
        public_url=gateway_config.require_public_url(public_url) if public_url else None,
        max_size=max_file_size or gateway_config.DEFAULT_MAX_SIZE,
        log_level=log_level,
        channels=channels,
        database_url=database,
        broker=broker,
        bucket_address=bucket,
    )
    with server.only_gateway(config, shared=bus is not None):
        # before anything is written: a port in use must leave no trace
        listener = server.listen(config.host, config.port)
        own_port = channels.port if channels else None
        classic_listener = None if own_port is None else server.listen(config.host, own_port)
        own = gateway_config.require_public_url(internal_url) if internal_url else server.internal_address(listener)
        with lead.one_at_a_time(config.data / "starting.lock"):
            gateway = runtime.open_gateway(config, logs.make_log(config.log_level), bus, own)
            token = _prepare(gateway, zone, channels, broker)

        def ready(url: str, address: str) -> None:
            if token is not None:
                output.tell(
                    f"You administer this gateway. Choose a password for its pages: {address}/invitation/{token}"
                )
            _configure_this_machine(address, zone)
            if channels is not None:
                own = "" if classic_listener is None else f", and port {classic_listener.getsockname()[1]}"
                output.tell(f"Classic channels {', '.join(channels.channels)}: {address}/classic{own}")
            output.data(f"ready {url}")

        server.serve(gateway, listener, ready, classic_listener)


def _channels(data: Path, path: Path | None, port: int | None, zone: str) -> Channels | None:
    """The channels that were asked for, or that the data directory has."""
    from dataclasses import replace

    from ..errors import InvalidInput
    from ..gateway.config import GatewayConfig, read_channels

    own = GatewayConfig(data=data).channels_path
    if path is None and not own.exists():
        if port is not None:
            raise InvalidInput("there are no classic channels to serve", hint=f"name them with --classic, or in {own}")
        return None
    found = path.expanduser().absolute() if path else own
    channels = read_channels(found, zone)
    if found.stat().st_mode & 0o077:
        output.tell(f"Others on this machine may read the passwords in {found}; `chmod 600` it.")
    return channels if port is None else replace(channels, port=port)


def _require_zones(connection: Connection, channels: Channels) -> None:
    from ..errors import NotConfigured
    from ..gateway.services import zones

    for channel in channels.channels.values():
        if zones.find(connection, channel.zone) is None:
            raise NotConfigured(
                f"channel {channel.name!r} is of zone {channel.zone!r}, which this gateway does not have",
                hint=f"`kachery admin zone create {channel.zone}` makes it",
            )


def _prepare_broker(connection: Connection, name: str) -> None:
    from ..errors import NotConfigured
    from ..gateway.receiving import now
    from ..gateway.services import accounts, zones

    zone = zones.find(connection, name)
    if zone is None:
        owner = next(user.name for user in accounts.list_users(connection) if user.is_admin)
        zones.create(connection, name, owner, now(), private=True, public_upload=False)
    elif zone.public_download:
        raise NotConfigured(
            f"--broker names a zone that anybody may read: {name!r}",
            hint="each file there has its own readers, so give it a private zone, or one that does not exist yet",
        )


def _prepare(gateway: Gateway, zone: str, channels: Channels | None, broker: str | None) -> str | None:
    """Make what the first start makes, all of it or nothing.

    Returns:
        The token of an invitation if an administrator was made, who hears of it this once.
    """
    from ..gateway.receiving import now
    from ..gateway.services import accounts, identity, zones
    from ..store import keys

    name = system_user_name()
    own = keys.load_or_create()

    def prepare(connection: Connection) -> str | None:
        token = make_administrator_and_zone(connection)
        if channels is not None:
            _require_zones(connection, channels)
        if broker is not None:
            _prepare_broker(connection, broker)
        return token

    def make_administrator_and_zone(connection: Connection) -> str | None:
        token = None
        if not any(user.is_admin for user in accounts.list_users(connection)):
            if accounts.find_user(connection, name) is None:
                accounts.add_user(connection, name, now(), is_admin=True)
            accounts.make_admin(connection, name)
            token = accounts.invite(connection, name, now())
        if accounts.find_user(connection, name) is None:
            # somebody else's gateway, started by another account of the system: nothing is theirs by that alone
            return token
        if zones.find(connection, zone) is None:
            zones.create(connection, zone, name, now(), private=False, public_upload=False)
        if identity.find_client(connection, zone, own.client_id) is None:
            identity.register_client(connection, zone, own.client_id, name, socket.gethostname()[:200], now())
        return token

    return gateway.database.write_now(prepare)


def _configure_this_machine(url: str, zone: str) -> None:
    from .. import settings
    from ..store import configuration

    if settings.gateway_url_or_none() is None:
        path = configuration.write(gateway_url=url, zone=zone)
        output.tell(f"This machine now uses {url}, zone {zone}, unless told otherwise ({path}).")


def system_user_name() -> str:
    """The name of the person who started the program, as a user name of a gateway."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = ""
    # what a directory service may put into names, and a gateway does not take
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", name.rsplit("\\", 1)[-1]).lstrip("_.-").replace("..", ".")
    return name or "admin"
