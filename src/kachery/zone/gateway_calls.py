"""Signed calls to a gateway: `POST <gateway>/api/gateway`.

    request    {"payload": {"type": …, …, "timestamp": ms}, "fromClientId": hex64, "signature": hex128}
    reply      200 and a JSON object with the same `type`; anything else is an error with a text

Payloads hold ASCII texts and integers only, since generations of gateways disagree on how the rest is signed. A gateway
of ours names the kind of an error in the header `Kachery-Error`; for others the text is all there is.

When a gateway says that our clock is off, its own time is taken from its reply and used from then on.
"""

from __future__ import annotations

import logging
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from .. import errors, http
from ..errors import BadReply, InvalidInput, NotAllowed, NotRegistered, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..signing import ClientKeys

logger = logging.getLogger(__name__)

# how far the clocks of gateways are ahead of ours, in milliseconds, by address
_ahead: dict[str, int] = {}


def call(
    gateway_url: str,
    payload: dict[str, Any],
    keys: ClientKeys | None,
    *,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> dict[str, Any]:
    """Send one request and return the reply's content.

    Args:
        gateway_url: The gateway's base address.
        payload: What is asked, without `timestamp`.
        keys: Who asks; `None` for nobody in particular.
        headers: More headers.
        timeout: How long to wait for the reply, in seconds; by default the setting.

    Raises:
        NotAllowed, NotRegistered, NotFound, …: What the gateway said.
        BadReply: If it is not a gateway that answered.
        TimedOut, Unreachable: If nobody did, several times.
    """

    def attempt() -> dict[str, Any]:
        return _once(gateway_url, payload, keys, headers, timeout)

    try:
        return http.retrying(attempt)
    except _ClockIsOff:
        # with the gateway's time, which is known by now; that it is wrong, too, is said as it is
        return http.retrying(attempt)


class _ClockIsOff(NotAllowed):
    """A gateway does not believe our clock."""


def _once(
    gateway_url: str,
    payload: dict[str, Any],
    keys: ClientKeys | None,
    headers: Mapping[str, str] | None,
    timeout: float | None,
) -> dict[str, Any]:
    kind = payload["type"]
    stamped = {**payload, "timestamp": int(time.time() * 1000) + _ahead.get(gateway_url, 0)}
    envelope: dict[str, Any] = {"payload": stamped}
    if keys is not None:
        envelope["fromClientId"] = keys.client_id
        envelope["signature"] = keys.sign(stamped)
    reply = http.post_json(f"{gateway_url}/api/gateway", envelope, headers=headers, timeout=timeout)
    if reply.status != 200:
        _raise(reply, gateway_url, kind)
    content = reply.json()
    if content.get("type") != kind:
        raise BadReply(
            f"{reply.host} answered {kind} with {str(content.get('type'))[:40]!r}", hint="is this a kachery gateway?"
        )
    return content


def _raise(reply: http.Reply, gateway_url: str, kind: str) -> None:
    reply.raise_if_busy()
    text = reply.text.removeprefix("Error: ") or f"HTTP {reply.status}"
    message = f"the gateway {reply.host} refused {kind}: {text}"
    # a request that is not understood is shown whole, with its timestamp
    if "timestamp" in text.lower() and reply.status != 400:
        _learn_time(gateway_url, reply)
        raise _ClockIsOff(message, hint="set this machine's clock")
    named = errors.by_code(reply.headers.get("kachery-error", ""))
    if named is not None:
        told, hint = _without_hint(message)
        raise named(told, hint=hint)
    if reply.body.lstrip()[:1] == b"<" or reply.status == 404 or 300 <= reply.status < 400:
        raise BadReply(
            f"{reply.host} is not a kachery gateway: it answered {kind} with HTTP {reply.status}",
            hint="check KACHERY_GATEWAY_URL",
        )
    lowered = text.lower()
    if reply.status == 400 and lowered.startswith("invalid request"):
        # what follows is the request itself, whose words say nothing
        raise InvalidInput(message)
    if "not registered" in lowered or "client not found" in lowered or "no client" in lowered:
        raise NotRegistered(message, hint="run `kachery init`")
    if any(word in lowered for word in ("not authorized", "unauthorized", "not allowed", "permission", "signature")):
        raise NotAllowed(message, hint="ask an administrator of the zone")
    if reply.status == 400:
        raise InvalidInput(message)
    raise Unreachable(message, hint="ask the gateway's administrator if this goes on")


def call_native(gateway_url: str, what: str, payload: dict[str, Any], keys: ClientKeys | None) -> dict[str, Any] | None:
    """Send one of our own requests, `POST <gateway>/api/v1/…`, and return the reply's content.

    Args:
        gateway_url: The gateway's base address.
        what: The rest of the address.
        payload: What is asked, without `timestamp`.
        keys: Who asks; `None` for nobody in particular.

    Returns:
        The content; `None` when the gateway is not one of ours.

    Raises:
        NotAllowed, NotRegistered, NotFound, …: What the gateway said.
        TimedOut, Unreachable: If nobody answered, several times.
    """

    def attempt() -> http.Reply:
        stamped = {**payload, "timestamp": int(time.time() * 1000) + _ahead.get(gateway_url, 0)}
        envelope: dict[str, Any] = {"payload": stamped}
        if keys is not None:
            envelope.update(fromClientId=keys.client_id, signature=keys.sign(stamped))
        reply = http.post_json(f"{gateway_url}/api/v1/{what}", envelope)
        reply.raise_if_busy()
        return reply

    return _read_native(gateway_url, payload, http.retrying(attempt), lambda: http.retrying(attempt))


def _read_native(
    gateway_url: str, payload: dict[str, Any], reply: http.Reply, again: Callable[[], http.Reply] | None
) -> dict[str, Any] | None:
    try:
        content = reply.json()
    except BadReply:
        return None
    if reply.status == 200:
        return content
    told = content.get("error")
    kind = errors.by_code(str(told.get("code"))) if isinstance(told, dict) else None
    if not isinstance(told, dict) or kind is None:
        return None
    if again is not None and "timestamp" in str(told.get("message")):
        _learn_time(gateway_url, reply)
        return _read_native(gateway_url, payload, again(), None)
    hint = told.get("hint")
    raise kind(
        f"the gateway {reply.host} refused {payload['type']}: {told.get('message')}",
        hint=hint if isinstance(hint, str) else None,
    )


def _without_hint(text: str) -> tuple[str, str | None]:
    """What a gateway of ours said, and the advice that it put in brackets at the end."""
    depth = 0
    for position in range(len(text) - 1, 0, -1):
        depth += (text[position] == ")") - (text[position] == "(")
        if depth == 0:
            break
    else:
        return text, None
    if text[-1] != ")" or text[position - 1] != " ":
        return text, None
    return text[: position - 1], text[position + 1 : -1]


def _learn_time(gateway_url: str, reply: http.Reply) -> None:
    try:
        theirs = parsedate_to_datetime(reply.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError, OverflowError):
        return
    _ahead[gateway_url] = int((theirs - time.time()) * 1000)
    logger.warning(
        "this machine's clock differs from that of %s by %.0f s; its time is used", reply.host, theirs - time.time()
    )
