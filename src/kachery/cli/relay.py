"""`kachery relay`: upstream's resource proxy alone, without a gateway."""

from __future__ import annotations

from typing import Annotated

import typer

from . import output


def relay(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",  # noqa: S104 - as upstream's
    port: Annotated[int, typer.Option(help="TCP port; 0 chooses a free one.", envvar="PORT", min=0, max=65535)] = 3030,
    bus: Annotated[
        str | None,
        typer.Option(
            help="How several relays find each other, which then act as one: a directory of this machine, "
            "nats://HOST:PORT or postgresql://HOST/NAME.",
            envvar="KACHERY_BUS",
            metavar="BUS",
        ),
    ] = None,
    internal_url: Annotated[
        str | None, typer.Option(help="Address by which the others reach this one.", show_default="where it listens")
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run a resource proxy alone, until Ctrl-C.

    It is for daemons and clients of upstream's protocol. Resources that know the secret in the environment variable
    PROXY_SECRET connect to it. It keeps nothing, and anybody who knows a resource's name may ask; a gateway
    (`kachery up`) has a relay that knows who may. One line `ready http://HOST:PORT` is written once it answers.
    """
    import os

    from ..errors import InvalidInput, NotConfigured
    from ..gateway import logs, runtime, server
    from ..gateway.config import require_public_url
    from ..gateway.relay_alone import RelayAlone, key_from

    if log_level not in logs.LEVELS:
        raise InvalidInput(f"unknown log level {log_level!r}", hint="one of " + ", ".join(logs.LEVELS))
    secret = os.environ.get("PROXY_SECRET")
    if not secret:
        raise NotConfigured(
            "Environment variable not set: PROXY_SECRET",
            hint="choose a long random text, and give it to the people who share files",
        )
    listener = server.listen(host, port)
    log = logs.make_log(log_level)
    others = None
    if bus is not None:
        own = require_public_url(internal_url) if internal_url else server.internal_address(listener)
        others = runtime.open_others(key_from(secret), bus, own, log)
    application = RelayAlone(secret, log, others)
    server.run(application, listener, log, lambda url: output.data(f"ready {url}"))
