"""Which bucket an address means.

| address | service | endpoint |
|---|---|---|
| `file:///PATH` | a directory of the gateway's machine | |
| `s3://BUCKET[/PREFIX]` | Amazon, or any S3-compatible store with `endpoint` | the service's own, or `endpoint` |
| `gs://…` | Google, with its HMAC keys | `https://storage.googleapis.com` |
| `r2://…` | Cloudflare | `endpoint`, as in `https://ACCOUNT.r2.cloudflarestorage.com` |
| `wasabi://…` | Wasabi | `https://s3.REGION.wasabisys.com` |
| `filebase://…` | Filebase | `https://s3.filebase.com` |

What stands after `?` are options: `endpoint`, `region`, `direct` (`1`: clients are sent to the store itself). Keys come
from the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`), else from the profile
`AWS_PROFILE` or `default` of `~/.aws/credentials`, else from the machine's role. They are never in an address.
"""

from __future__ import annotations

import configparser
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from ...errors import InvalidInput, NotConfigured
from .directory import DirectoryBucket

if TYPE_CHECKING:
    from .contract import Bucket

# scheme → endpoint and region where none is given
_SERVICES: dict[str, tuple[str | None, str | None]] = {
    "s3": (None, None),
    "gs": ("https://storage.googleapis.com", "auto"),
    "r2": (None, "auto"),
    "wasabi": ("https://s3.{region}.wasabisys.com", "us-east-1"),
    "filebase": ("https://s3.filebase.com", "us-east-1"),
}
_OPTIONS = {"endpoint", "region", "direct"}


def open_bucket(address: str, spool: Path) -> Bucket:
    """The bucket at an address.

    Args:
        address: As the module says.
        spool: A directory of this gateway for what is being received.

    Raises:
        InvalidInput: If it is no such address.
        NotConfigured: If the library for object stores is not installed, or there are no keys.
    """
    parts = urlsplit(address)
    options = dict(parse_qsl(parts.query))
    unknown = set(options) - _OPTIONS
    if parts.username or parts.password:
        raise InvalidInput(
            "an address holds no keys", hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
        )
    if parts.scheme == "file" and not parts.netloc and not parts.query:
        return DirectoryBucket(Path(parts.path))
    if parts.scheme not in _SERVICES or not parts.netloc or unknown:
        wrong = f"unknown option {', '.join(sorted(unknown))}" if unknown else "not the address of a bucket"
        raise InvalidInput(f"{wrong}: {address!r}", hint="as in s3://BUCKET/PREFIX?region=eu-central-1")
    try:
        from obstore.store import S3Store

        from .objects import ObjectBucket
    except ImportError as error:
        raise NotConfigured("object stores need their library", hint="pip install 'kachery[objects]'") from error
    endpoint, region = _SERVICES[parts.scheme]
    region = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or region
    endpoint = options.get("endpoint") or endpoint
    if parts.scheme == "r2" and endpoint is None:
        raise InvalidInput(
            f"{address!r} names no endpoint", hint="r2://BUCKET?endpoint=https://ACCOUNT.r2.cloudflarestorage.com"
        )
    config: dict[str, Any] = {"region": region or "us-east-1", **_keys()}
    if endpoint is not None:
        config |= {
            "endpoint": endpoint.format(region=config["region"]),
            "virtual_hosted_style_request": False,
        }
    prefix = parts.path.strip("/")
    store = S3Store(
        parts.netloc,
        prefix=prefix or None,
        client_options={
            "allow_http": str(config.get("endpoint", "")).startswith("http://"),
            "connect_timeout": "10s",
            "timeout": "120s",
        },
        **config,
    )
    uri = f"{parts.scheme}://{parts.netloc}" + (f"/{prefix}" if prefix else "")
    return ObjectBucket(store, uri, spool, direct=options.get("direct") == "1")


def _keys() -> dict[str, str]:
    """The keys of the environment or of a profile; empty where the machine's role has to do."""
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        # the library reads these itself
        return {}
    path = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials")
    profiles = configparser.ConfigParser(interpolation=None)
    try:
        profiles.read(path)
    except configparser.Error as error:
        raise NotConfigured(f"{path} cannot be understood", hint="mend it, or set AWS_ACCESS_KEY_ID") from error
    name = os.environ.get("AWS_PROFILE")
    if not profiles.has_section(name or "default"):
        if name:
            raise NotConfigured(f"{path} has no profile {name!r}", hint="check AWS_PROFILE")
        return {}
    section = profiles[name or "default"]
    return {
        ours: section[theirs]
        for ours, theirs in (
            ("access_key_id", "aws_access_key_id"),
            ("secret_access_key", "aws_secret_access_key"),
            ("session_token", "aws_session_token"),
        )
        if theirs in section
    }
