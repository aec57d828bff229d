"""`kachery admin`: users, zones, rights, clients, resources and usage of a gateway on this machine.

Works on the data directory, whether the gateway runs or not; what is changed counts from its next request on.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import output

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..gateway.config import GatewayConfig

app = typer.Typer(
    help="Administer a gateway on this machine, while it runs or not.", rich_markup_mode=None, no_args_is_help=True
)
user_app = typer.Typer(help="People with accounts.", rich_markup_mode=None, no_args_is_help=True)
zone_app = typer.Typer(help="Zones.", rich_markup_mode=None, no_args_is_help=True)
client_app = typer.Typer(help="Registered clients.", rich_markup_mode=None, no_args_is_help=True)
resource_app = typer.Typer(help="Resources that upload on demand.", rich_markup_mode=None, no_args_is_help=True)
api_key_app = typer.Typer(help="API keys, for programs of kachery 2.x.", rich_markup_mode=None, no_args_is_help=True)
app.add_typer(user_app, name="user")
app.add_typer(api_key_app, name="api-key")
app.add_typer(zone_app, name="zone")
app.add_typer(client_app, name="client")
app.add_typer(resource_app, name="resource")

JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON.")]
ZoneOption = Annotated[str, typer.Option(help="The zone.")]

_data: Path | None = None
_database: str | None = None


@app.callback()
def choose(
    data: Annotated[
        Path | None,
        typer.Option(
            help="The gateway's data directory.", envvar="KACHERY_DATA", show_default="~/.local/share/kachery"
        ),
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="The gateway's PostgreSQL database, if it has one.", envvar="KACHERY_DATABASE")
    ] = None,
) -> None:
    """Administer a gateway on this machine, while it runs or not."""
    global _data, _database
    _data, _database = data, database


@user_app.command("add")
def user_add(
    name: Annotated[str, typer.Argument(help="Letters, digits, `_`, `.` and `-`.")],
    admin: Annotated[bool, typer.Option("--admin", help="Make an administrator of the whole gateway.")] = False,
) -> None:
    """Make a user, and print their invitation link.

    With it they choose a password, once, within seven days.
    """
    from ..gateway.config import recorded_address
    from ..gateway.receiving import now
    from ..gateway.services import accounts

    # first, so that no user is made without a link to give away
    address = recorded_address(_config())

    def add(connection: Any) -> str:
        accounts.add_user(connection, name, now(), is_admin=admin)
        return accounts.invite(connection, name, now())

    output.data(f"{address}/invitation/{_write(add)}")


@user_app.command("invite")
def user_invite(name: str) -> None:
    """Print a new invitation link for a user.

    For one who lost the link or the password; the old one ends.
    """
    from ..gateway.config import recorded_address
    from ..gateway.receiving import now
    from ..gateway.services import accounts

    address = recorded_address(_config())
    output.data(f"{address}/invitation/{_write(lambda connection: accounts.invite(connection, name, now()))}")


@user_app.command("list")
def user_list(as_json: JsonOption = False) -> None:
    """List users."""
    from ..gateway.services import accounts

    _table(
        as_json,
        ("name", "administrator", "password"),
        [(user.name, user.is_admin, user.has_password) for user in _read(accounts.list_users)],
    )


@api_key_app.command("add")
def api_key_add(
    name: Annotated[str, typer.Argument(help="The user that programs with this key act for.")],
    label: Annotated[str, typer.Option(help="What people call it.")] = "",
    management: Annotated[
        bool, typer.Option("--management", help="For changing zones and keys; not for storing and loading.")
    ] = False,
) -> None:
    """Make an API key, and print it.

    It is not shown again. Programs of kachery 2.x take it from KACHERY_API_KEY.
    """
    from ..gateway.receiving import now
    from ..gateway.services import api_keys

    purpose = api_keys.MANAGEMENT if management else api_keys.FILES
    output.data(_write(lambda connection: api_keys.add(connection, name, purpose, label, now())))


@api_key_app.command("list")
def api_key_list(
    name: Annotated[str | None, typer.Argument(help="Only those of this user.", show_default="all")] = None,
    as_json: JsonOption = False,
) -> None:
    """List API keys; the keys themselves are not kept."""
    from ..gateway.services import accounts, api_keys

    def listed(connection: Any) -> list[api_keys.ApiKey]:
        if name is not None:
            accounts.require_user(connection, name)
        return api_keys.list_all(connection, name)

    columns = ("id", "user", "purpose", "label")
    _table(as_json, columns, [tuple(getattr(key, column) for column in columns) for key in _read(listed)])


@api_key_app.command("remove")
def api_key_remove(
    name: Annotated[str, typer.Argument(help="Whose.")],
    key: Annotated[str | None, typer.Option("--id", help="Only this one, by its id.", show_default="all")] = None,
) -> None:
    """End a user's API keys."""
    from ..errors import NotFound
    from ..gateway.services import accounts, api_keys

    def remove(connection: Any) -> int:
        accounts.require_user(connection, name)
        return api_keys.remove(connection, name, key=key)

    count = _write(remove)
    if count == 0:
        raise NotFound(f"{name} has no such key", hint=f"`kachery admin api-key list {name}` shows those there are")
    output.say(f"removed {count} API key(s) of {name}")


@zone_app.command("create")
def zone_create(
    zone: str,
    private: Annotated[bool, typer.Option("--private", help="Only members may download.")] = False,
    public_upload: Annotated[bool, typer.Option("--public-upload", help="Any registered client may upload.")] = False,
    keep_nothing: Annotated[
        bool, typer.Option("--keep-nothing", help="Do not keep what resources bring once nobody reads it.")
    ] = False,
    owner: Annotated[str | None, typer.Option(help="Who owns it.", show_default="you")] = None,
) -> None:
    """Make a zone."""
    from ..gateway.receiving import now
    from ..gateway.services import accounts, zones
    from .up import system_user_name

    name = owner or system_user_name()

    def create(connection: Any) -> None:
        accounts.require_user(connection, name)
        zones.create(
            connection,
            zone,
            name,
            now(),
            private=private,
            public_upload=public_upload,
            keep_on_demand=not keep_nothing,
        )

    _write(create)
    output.say(f"made zone {zone}, owned by {name}")


@zone_app.command("list")
def zone_list(as_json: JsonOption = False) -> None:
    """List zones."""
    from ..gateway.services import zones

    sizes = _read(zones.sizes)
    _table(
        as_json,
        ("zone", "owner", "public_download", "public_upload", "keep_on_demand", "files", "bytes"),
        [
            (
                zone.name,
                zone.owner,
                zone.public_download,
                zone.public_upload,
                zone.keep_on_demand,
                *sizes.get(zone.name, (0, 0)),
            )
            for zone in _read(zones.list_all)
        ],
    )


@zone_app.command("set")
def zone_set(
    zone: str,
    private: Annotated[bool | None, typer.Option("--private/--public", help="Who may download.")] = None,
    public_upload: Annotated[
        bool | None,
        typer.Option("--public-upload/--no-public-upload", help="Whether any registered client may upload."),
    ] = None,
    keep: Annotated[
        bool | None, typer.Option("--keep/--keep-nothing", help="Whether what resources bring stays in the zone.")
    ] = None,
) -> None:
    """Change what others may do, and what is kept."""
    from ..gateway.services import zones

    def change(connection: Any) -> None:
        known = zones.require(connection, zone)
        if keep is not None:
            zones.set_keeping(connection, zone, keep=keep)
        zones.set_public(
            connection,
            zone,
            download=known.public_download if private is None else not private,
            upload=known.public_upload if public_upload is None else public_upload,
        )

    _write(change)


@zone_app.command("members")
def zone_members(zone: str, as_json: JsonOption = False) -> None:
    """List a zone's members and what they may do."""
    from ..gateway.services import zones

    def members(connection: Any) -> list[zones.Member]:
        zones.require(connection, zone)
        return zones.list_members(connection, zone)

    _table(
        as_json,
        ("user", *zones.RIGHTS),
        [(member.user, *(getattr(member.rights, right) for right in zones.RIGHTS)) for member in _read(members)],
    )


@app.command("grant")
def grant(
    name: str,
    rights: Annotated[str, typer.Argument(help="Some of upload,download,admin.")],
    zone: ZoneOption = "default",
) -> None:
    """Give a user rights in a zone."""
    _set_rights(name, rights, zone, granted=True)


@app.command("revoke")
def revoke(
    name: str,
    rights: Annotated[str, typer.Argument(help="Some of upload,download,admin.")],
    zone: ZoneOption = "default",
) -> None:
    """Take rights in a zone away from a user."""
    _set_rights(name, rights, zone, granted=False)


def _set_rights(name: str, rights: str, zone: str, *, granted: bool) -> None:
    from ..gateway.services import zones

    wanted = [right.strip() for right in rights.split(",") if right.strip()]
    now = _write(lambda connection: zones.grant(connection, zone, name, wanted, granted=granted))
    held = ", ".join(right for right in zones.RIGHTS if getattr(now, right)) or "nothing"
    output.say(f"{name} may now do this as a member of zone {zone}: {held}")


@client_app.command("add")
def client_add(
    client_id: str,
    owner: Annotated[str, typer.Option(help="The user it acts for.")],
    zone: ZoneOption = "default",
    label: Annotated[str, typer.Option(help="What people call it.")] = "",
) -> None:
    """Register a client without its user's opening a page."""
    from ..gateway.receiving import now
    from ..gateway.services import identity

    _write(lambda connection: identity.register_client(connection, zone, client_id.lower(), owner, label, now()))
    output.say(f"registered client {client_id[:8]}… in zone {zone} for {owner}")


@client_app.command("list")
def client_list(
    owner: Annotated[str | None, typer.Option(help="Only those of this user.")] = None,
    zone: Annotated[str | None, typer.Option(help="Only those in this zone.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List clients."""
    from ..gateway.services import identity

    clients = _read(lambda connection: identity.list_clients(connection, owner=owner, zone=zone))
    _table(
        as_json,
        ("client_id", "zone", "owner", "label"),
        [(client.client_id, client.zone, client.owner, client.label) for client in clients],
    )


@client_app.command("remove")
def client_remove(
    client_id: str,
    zone: Annotated[str | None, typer.Option(help="Only from this zone.", show_default="all")] = None,
) -> None:
    """Make a client unknown."""
    from ..errors import NotFound
    from ..gateway.services import identity

    wanted = identity.require_client_id(client_id.lower())
    count = _write(lambda connection: identity.remove_client(connection, wanted, zone=zone))
    if count == 0:
        raise NotFound(f"client {wanted[:8]}… is not registered" + (f" in zone {zone}" if zone else ""))
    output.say(f"removed client {wanted[:8]}… from {count} zone(s)")


@app.command("usage")
def usage(zone: ZoneOption = "default", as_json: JsonOption = False) -> None:
    """Show who stored and fetched how much, by day. A running gateway writes every two seconds."""
    from ..gateway.services import usage as book
    from ..gateway.services import zones

    def lines(connection: Any) -> list[book.Usage]:
        zones.require(connection, zone)
        return book.read(connection, zone)

    columns = ("day", "user", "client", *book.COUNTS)
    _table(as_json, columns, [tuple(getattr(line, column) for column in columns) for line in _read(lines)])


@resource_app.command("add")
def resource_add(
    name: str,
    proxy_url: Annotated[
        str, typer.Argument(help="The address of its proxy.", show_default="this gateway's relay")
    ] = "",
    *,
    owner: Annotated[str, typer.Option(help="Who runs it.")],
    zone: ZoneOption = "default",
) -> None:
    """Make a resource known in a zone."""
    from ..gateway.receiving import now
    from ..gateway.services import resources

    _write(lambda connection: resources.add(connection, zone, name, owner, proxy_url, now()))
    output.say(f"made resource {name} known in zone {zone}")


@resource_app.command("list")
def resource_list(zone: ZoneOption = "default", as_json: JsonOption = False) -> None:
    """List the resources of a zone."""
    from ..gateway.services import resources, zones

    def listed(connection: Any) -> list[resources.Resource]:
        zones.require(connection, zone)
        return resources.list_all(connection, zone)

    _table(
        as_json,
        ("name", "owner", "proxy_url"),
        [(resource.name, resource.owner, resource.proxy_url or "this gateway") for resource in _read(listed)],
    )


@resource_app.command("remove")
def resource_remove(name: str, zone: ZoneOption = "default") -> None:
    """Forget a resource of a zone."""
    from ..errors import NotFound
    from ..gateway.services import resources

    if not _write(lambda connection: resources.remove(connection, zone, name)):
        raise NotFound(
            f"zone {zone!r} has no resource {name!r}", hint="`kachery admin resource list` names those it has"
        )


@app.command("relay")
def relay(as_json: JsonOption = False) -> None:
    """Show what a resource needs to connect to the relay.

    Its address, the proxy secret, and the public key that its requests are signed with.
    """
    import os

    from ..gateway.config import recorded_address
    from ..gateway.runtime import proxy_secret, relay_keys

    secret = os.environ.get("PROXY_SECRET") or _write(proxy_secret)
    url, key = recorded_address(_config()), _write(relay_keys).client_id
    if as_json:
        output.document({"proxyUrl": url, "proxySecret": secret, "gatewayKey": key})
    else:
        output.table(("proxy_url", "proxy_secret", "gateway_key"), [[url, secret, key]])


def _config() -> GatewayConfig:
    from ..gateway.config import GatewayConfig, default_data_directory

    return GatewayConfig(
        data=_data.expanduser().absolute() if _data else default_data_directory(), database_url=_database
    )


def _read(function: Callable[[Any], Any]) -> Any:
    return _with_database("read_now", function)


def _write(function: Callable[[Any], Any]) -> Any:
    return _with_database("write_now", function)


def _with_database(method: str, function: Callable[[Any], Any]) -> Any:
    from ..errors import NotConfigured
    from ..gateway.databases import open_database

    config = _config()
    if config.database_url is None and not config.database_path.exists():
        raise NotConfigured(
            f"there is no gateway's data in {config.data}",
            hint="name its directory with --data, or run `kachery up` first",
        )
    database = open_database(config.database)
    try:
        return getattr(database, method)(function)
    finally:
        database.close()


def _table(as_json: bool, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    if as_json:
        output.document([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        output.table(columns, [[_cell(value) for value in row] for row in rows])


def _cell(value: Any) -> str:
    return {True: "yes", False: "no", "": "-"}.get(value, str(value)) if isinstance(value, bool | str) else str(value)
