"""`kachery init`, `status` and `delete`: this machine as a client of a zone."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import settings
from ..errors import (
    InvalidInput,
    KacheryError,
    NotAllowed,
    NotConfigured,
    NotRegistered,
    TimedOut,
    Unreachable,
    explaining,
)
from . import output

if TYPE_CHECKING:
    from ..signing import ClientKeys
    from ..zone import Zone
    from ..zone.keyed import KeyedZone

INIT_EXAMPLES = """\b
Examples:
  kachery init --gateway http://labserver:8471
  kachery init --gateway https://kachery.mylab.org --zone mylab.private
"""

DELETE_EXAMPLES = """\b
Example:
  kachery delete sha1://253cc837e71aa814d19025fb70717353912b2577 --zone mylab --yes
"""

# how long to wait for a person who opens a page, and how often to look, in seconds
_PATIENCE = 900.0
_PAUSE = 2.0

# asked for to see how a gateway answers
_NOBODY = "0" * 64
_NOTHING = "0" * 40

# a gateway does not say whether it has a zone to those who may not use it
_CHECK_NAME = ", and check the name of the zone"


def init(
    gateway: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The gateway's address, as its administrator tells it; remembered."),
    ] = None,
    zone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="The zone to use when none is named; remembered.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What to call this machine; by default its host name.")
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the page to open, and do not wait for it.")] = False,
) -> None:
    """Set this machine up as a client of a zone.

    Remembers the gateway and the zone, makes the client's keys if there are none, and prints a page. Open it in a
    browser, on any machine, sign in and confirm; the command waits for that, up to 15 minutes. Run it again at any
    time: what is set up already stays as it is.

    Loading from a zone that is public needs no registration.
    """
    from ..store import configuration, keys
    from ..zone import Zone

    url = _address(gateway) if gateway is not None else settings.gateway_url()
    # the zone's name is checked before anything is written
    name = Zone(zone, url).name
    target = Zone(name, url, keys.load_or_create())
    client = target.client_info()
    if gateway is not None or zone is not None:
        path = configuration.write(gateway_url=url if gateway is not None else None, zone=zone)
        output.say(f"remembered in {path}")
        _warn_of_variables(gateway and url, zone)
    if client is None:
        page = target.begin_registration(label)
        if not _may_load(target):
            output.warn(f"zone {name} is private, or there is none of this name")
        output.tell(f"Open this page, sign in, and confirm that this machine may act for you in zone {name}:")
        if no_wait:
            output.data(page)
            output.suggest("`kachery status` tells when it is done")
            return
        client = _wait(target, page)
    output.fields(
        [
            ("gateway", url),
            ("zone", name),
            ("client", f"{target.keys.client_id if target.keys else '-'}{_in_brackets(client.get('label'))}"),
            ("owner", str(client.get("ownerId") or "-")),
        ]
    )
    output.suggest("`kachery store FILE` stores a file in the zone")


def status(as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False) -> None:
    """Show the settings, and whether the gateway answers.

    Shows also who this machine is for the gateway. When something is missing the command says how to get it, and ends
    with an exit code that is not 0.
    """
    from ..store import keys

    root = settings.store_dir()
    problems: list[KacheryError] = []
    directory = _directory_state(root, problems)
    url = settings.gateway_url_or_none()
    name = settings.zone()
    own = keys.load()
    keyed = _keyed(problems)
    client: dict[str, Any] | None = None
    if keyed is not None:
        url, gateway = keyed.gateway_url, _ask_with_key(keyed, problems)
    else:
        client, gateway = _ask(url, name, own, problems)
    who = "no keys yet"
    if keyed is not None:
        who = "whoever has the key in KACHERY_API_KEY" if keyed.has_key else "nobody: KACHERY_API_KEY is not set"
    elif own is not None:
        who = f"{own.client_id}{_in_brackets(client and client.get('label'))}"
    if as_json:
        output.document(
            {
                "directory": str(root),
                "gateway": url,
                "gateway_answers": gateway == "answers",
                "zone": name,
                "client_id": own.client_id if own else None,
                "label": client.get("label") if client else None,
                "owner": client.get("ownerId") if client else None,
                "ready": not problems,
            }
        )
    else:
        output.fields(
            [
                ("store directory", f"{root}{_in_brackets(directory)}"),
                ("gateway", f"{url or 'none'}{_in_brackets(gateway)}"),
                ("zone", f"{name} ({_origin('KACHERY_ZONE', 'zone')})"),
                ("client", who),
                ("owner", _owner(client, known=gateway == "answers" and own is not None)),
            ]
        )
    for problem in problems[1:]:
        output.warn(problem.message)
    if problems:
        raise problems[0]
    output.suggest("all is set up: `kachery store FILE`, `kachery load URI`")


def delete(
    uri: Annotated[str, typer.Argument(metavar="URI", help="Of the file to remove.", show_default=False)],
    zone: Annotated[
        str, typer.Option(metavar="ZONE", help="The zone to remove it from; never guessed.", show_default=False)
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a file from a zone, for everybody.

    Only administrators of the zone may. Copies that machines have loaded stay on them.
    """
    from .. import files
    from ..uri import parse_file

    reference = parse_file(uri)
    if not yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise InvalidInput("nobody is there to confirm the removal", hint="add --yes when you are sure")
        if not typer.confirm(f"Remove {reference} from zone {zone}, for everybody?", err=True):
            raise NotAllowed("nothing was removed")
    files.delete_file(uri, zone=zone)
    output.say(f"removed {reference} from zone {zone}")


def _address(text: str) -> str:
    url = text.strip().rstrip("/")
    if "://" not in url:
        raise InvalidInput(f"the gateway's address names no protocol: {text!r}", hint=f"try http://{url}")
    if not url.startswith(("http://", "https://")) or any(character in url for character in "?# \\"):
        raise InvalidInput(f"not a gateway's address: {text!r}", hint="for example http://labserver:8471")
    return url


def _warn_of_variables(url: str | None, zone: str | None) -> None:
    for variable, given in (("KACHERY_GATEWAY_URL", url), ("KACHERY_ZONE", zone)):
        value = settings.variable(variable)
        if given and value and value.rstrip("/") != given:
            output.warn(f"{variable} is set to {value}, which wins over what was just remembered; unset it")


def _wait(target: Zone, page: str) -> dict[str, Any]:
    deadline = time.monotonic() + _PATIENCE
    again = "run `kachery init` again, now or later"
    away = False
    try:
        output.data(page)
        output.say(f"waiting for that, up to {_PATIENCE / 60:.0f} minutes; Ctrl-C ends it")
        while time.monotonic() < deadline:
            time.sleep(_PAUSE)
            try:
                client = target.client_info()
            except Unreachable as error:
                # the page is still open; the gateway may come back
                if not away:
                    output.say(f"{error.message}; still waiting")
                away = True
                continue
            away = False
            if client is not None:
                return client
    except KeyboardInterrupt:
        output.say(f"not registered yet: open the page within 15 minutes, or {again}")
        raise
    raise TimedOut("nobody confirmed the registration of this machine in time", hint=again)


def _keyed(problems: list[KacheryError]) -> KeyedZone | None:
    """The zone, when it is one that is asked with an API key."""
    from .. import files
    from ..zone.keyed import KeyedZone

    if settings.base_url() is None and settings.api_key() is None:
        return None
    try:
        target = files.open_zone()
    except NotConfigured:
        # said by what comes next
        return None
    except KacheryError as error:
        problems.append(error)
        return None
    return target if isinstance(target, KeyedZone) else None


def _ask_with_key(target: KeyedZone, problems: list[KacheryError]) -> str:
    """How a gateway is that speaks kachery 2.x; adds to the problems."""
    try:
        target.find(_NOTHING)
        target.require_keys()
    except Unreachable as error:
        problems.append(error)
        return "does not answer"
    except NotConfigured as error:
        problems.append(error)
    except KacheryError as error:
        problems.append(error)
        return "refuses"
    return "answers"


def _ask(
    url: str | None, name: str, own: ClientKeys | None, problems: list[KacheryError]
) -> tuple[dict[str, Any] | None, str]:
    """What the gateway says of this client, and how the gateway is; adds to the problems."""
    from ..zone import Zone

    if url is None:
        problems.append(
            NotConfigured(
                "no gateway is known: files can be stored, linked and found on this machine only",
                hint="`kachery init --gateway URL` makes one known; `kachery up` starts one of your own",
            )
        )
        return None, ""
    try:
        # a client that is not there, when there are no keys, tells as well that the gateway answers
        target = Zone(name, settings.gateway_url(), own)
        client = target.client_info(own.client_id if own else _NOBODY)
        may_load = _may_load(target)
    except Unreachable as error:
        problems.append(error)
        return None, "does not answer"
    except KacheryError as error:
        problems.append(error)
        return None, "refuses"
    if own is None:
        problems.append(
            NotConfigured(
                f"this machine has no client keys: {_without(may_load)} zone {name}",
                hint=f"run `kachery init`{'' if may_load else _CHECK_NAME}",
            )
        )
    elif client is None:
        problems.append(
            NotRegistered(
                f"this machine is not registered: {_without(may_load)} zone {name}",
                hint=f"run `kachery init`{'' if may_load else _CHECK_NAME}",
            )
        )
    elif not may_load:
        problems.append(
            NotAllowed(
                f"{client.get('ownerId')} may not load from zone {name}", hint="ask one of the zone's administrators"
            )
        )
    return client, "answers"


def _may_load(target: Zone) -> bool:
    try:
        target.find(_NOTHING)
    except NotAllowed:
        return False
    return True


def _without(may_load: bool) -> str:
    return "it can load from, but not store in," if may_load else "it can neither load from nor store in"


def _directory_state(root: os.PathLike[str], problems: list[KacheryError]) -> str:
    try:
        with explaining("look at", root):
            os.stat(root)
    except KacheryError as error:
        if isinstance(error, FileNotFoundError):
            return "made when it is needed"
        problems.append(error)
        return "cannot be used"
    if not os.path.isdir(root):
        problems.append(NotAllowed(f"{root} is not a directory", hint="set KACHERY_CLOUD_DIR to a directory"))
        return "not a directory"
    if not os.access(root, os.W_OK | os.X_OK):
        problems.append(
            NotAllowed(f"{root} cannot be written to", hint="ask its owner, or set KACHERY_CLOUD_DIR to one of yours")
        )
        return "not writable"
    return ""


def _origin(variable: str, key: str) -> str:
    if settings.variable(variable):
        return f"from {variable}"
    return f"from {settings.config_path()}" if settings.config().get(key) else "the default"


def _owner(client: dict[str, Any] | None, *, known: bool) -> str:
    if client is not None:
        return str(client.get("ownerId") or "-")
    return "not registered" if known else "-"


def _in_brackets(text: object) -> str:
    return f" ({text})" if text else ""
