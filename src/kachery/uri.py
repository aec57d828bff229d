"""The only parser of URIs.

    file      = alg "://" hash [ "." ext ] [ "/" name ] [ "?" query ]       every generation
              | "kachery:" [ zone ] ":" alg ":" hash [ ":" label ]          kachery 2.x
    chained   = "kachery://" [ zone "/" ] kind "/" hash …       a file or tree, spelled so that fsspec can chain it
              | "kachery://" ( file | tree )                    … by any other spelling of it
    kind      = alg | ( "sha1" | "md5" ) "dir", followed by what may follow `kind "://" hash`
    alg       = "sha1" | "sha256" | "md5"
    tree      = ( "sha1" | "md5" ) "dir://" hash [ "." name ] [ "/" path ] [ "?" query ]      classic
    encrypted = "sha1-enc://" hex ".ag_" group [ "?" query ] | "sha1-enc://" hex "?" … "ag=" group
    feed      = ( "kachery-feed://" | "feed://" ) id [ "/" subfeed ]
    github    = ( "gh://" | "github://" ) user "/" repository "/" branch "/" path
    zenodo    = ( "zenodo://" | "zenodo-sandbox://" ) record "/" name [ "?" query ]
    url       = ( "http://" | "https://" ) …
    path      = "/" …
    gone      = ( "ipfs://" | "jot://" ) …                  understood, and no longer served by anybody
    query     = item *( "&" item ), where an item is name "=" value, or any text (old labels), which is ignored
    hash      = lower-case hexadecimal digits: 40 (sha1), 64 (sha256) or 32 (md5)

A text that is none of these is refused with the reason; nothing is guessed. Of a file's query, `label` (for people),
`location` (a path that may hold the content), `manifest` and `chunkOf` mean something.

    >>> parse("sha1://b971c6ef19b1d70ae8f0feb989b106c319b36230?label=a%20b.txt").label
    'a b.txt'
    >>> parse("kachery://lab.public/sha1/b971c6ef19b1d70ae8f0feb989b106c319b36230/a.nwb").zone
    'lab.public'
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote, urlsplit

from . import digest, names
from .errors import InvalidInput, InvalidName, InvalidURI

#: Databases in use give a URI this many characters.
LONGEST = 200


@dataclass(frozen=True)
class FileRef:
    """A file by its content.

    Attributes:
        algorithm: `sha1`, `sha256` or `md5`.
        hash: Lower-case hex digits.
        label: A name for people, or `None`; not part of the identity and never used as a path unchecked.
        zone: The zone that a `kachery:` URI names, or `None`.
        location: An absolute path that may hold the content, or `None`.
        manifest: SHA-1 of a manifest of the file's chunks, or `None`.
        chunk_of: The file, start and end in bytes that this chunk was cut from, or `None`.
    """

    algorithm: str
    hash: str
    label: str | None = None
    zone: str | None = None
    location: str | None = None
    manifest: str | None = None
    chunk_of: tuple[str, int, int] | None = None

    def __str__(self) -> str:
        """The shortest URI of the content."""
        return f"{self.algorithm}://{self.hash}"


@dataclass(frozen=True)
class TreeRef:
    """A snapshot of a directory, or something inside it.

    Attributes:
        algorithm: `sha1` or `md5`.
        hash: The hash of the directory's manifest.
        name: The directory's name for people, or `None`.
        path: The components inside the directory; empty for the directory itself.
        zone: The zone that a `kachery://` URI names, or `None`.
    """

    algorithm: str
    hash: str
    name: str | None = None
    path: tuple[str, ...] = ()
    zone: str | None = None

    def __str__(self) -> str:
        """The shortest URI of the directory, or of what is inside it."""
        return "/".join([f"{self.algorithm}dir://{self.hash}", *self.path])


@dataclass(frozen=True)
class EncryptedRef:
    """A file whose hash only an access group can read."""

    ciphertext: str
    access_group: str
    label: str | None = None


@dataclass(frozen=True)
class FeedRef:
    """A feed, and one of its subfeeds where the generation had them."""

    feed_id: str
    subfeed: str | None = None


@dataclass(frozen=True)
class GithubRef:
    """A file in a public repository."""

    user: str
    repository: str
    branch: str
    path: str


@dataclass(frozen=True)
class ZenodoRef:
    """A file in a Zenodo record; `name` may contain `/`, each part of it checked."""

    record: str
    name: str
    sandbox: bool = False


@dataclass(frozen=True)
class UrlRef:
    """A file at a web address.

    Attributes:
        url: The whole address.
        sha1: The SHA-1 that the address names (`…/sha1/HASH`), which its content must have; or `None`.
    """

    url: str
    sha1: str | None = None


@dataclass(frozen=True)
class PathRef:
    """A file on this machine, by its absolute path."""

    path: str


@dataclass(frozen=True)
class GoneRef:
    """A URI of a service that no longer exists."""

    scheme: str
    identifier: str


Reference = FileRef | TreeRef | EncryptedRef | FeedRef | GithubRef | ZenodoRef | UrlRef | PathRef | GoneRef

_SCHEME = re.compile(r"([a-z][a-z0-9-]*)://(.*)", re.DOTALL)
_KINDS = (*digest.HEX_LENGTHS, "sha1dir", "md5dir")
_CHAINED = "kachery://"
_HEX = re.compile(r"[0-9a-f]+")
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_CHUNK = re.compile(r"([0-9a-f]{40})~([0-9]{1,19})~([0-9]{1,19})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NAMED_BY_HASH = re.compile(r"/sha1/(?:[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{2}/)?([0-9a-f]{40})$")


def parse(text: str) -> Reference:
    """What a URI refers to.

    Args:
        text: A URI in any spelling of the grammar above.

    Returns:
        One of the frozen values of this module.

    Raises:
        InvalidURI: If it is none of them; the message says what is wrong with it.
        InvalidInput: If it is no text at all.
    """
    if not isinstance(text, str):
        raise InvalidInput(f"a URI is a text, not {type(text).__name__}")
    if not text:
        raise InvalidURI("the URI is empty")
    if text != text.strip():
        raise InvalidURI(f"the URI has blanks around it: {text[:80]!r}", hint="remove them")
    if _CONTROL.search(text):
        raise InvalidURI(f"the URI contains control characters: {text[:80]!r}")
    if text.startswith("/"):
        return PathRef(text)
    if text.startswith(_CHAINED):
        return _chained(text)
    if text.startswith("kachery:"):
        return _kachery(text)
    match = _SCHEME.fullmatch(text)
    if match is None:
        raise InvalidURI(f"not a URI: {text[:80]!r}", hint="for example sha1://HASH/NAME, or an absolute path")
    scheme, rest = match.groups()
    if scheme in ("http", "https"):
        return _url(text)
    if scheme in _KINDS:
        return _content(scheme, rest, text)
    if scheme == "sha1-enc":
        return _encrypted(rest, text)
    if scheme in ("kachery-feed", "feed"):
        return _feed(rest, text)
    if scheme in ("gh", "github"):
        return _github(rest, text)
    if scheme in ("zenodo", "zenodo-sandbox"):
        return _zenodo(rest, text, sandbox=scheme == "zenodo-sandbox")
    if scheme in ("ipfs", "jot"):
        return GoneRef(scheme, rest.partition("?")[0])
    raise InvalidURI(
        f"unknown kind of URI: {scheme}://", hint="kachery reads sha1, sha256, md5, sha1dir, gh, zenodo, http and more"
    )


def parse_file(text: str) -> FileRef:
    """As `parse`, for a URI that must name a file by its content.

    Raises:
        InvalidURI: If it is something else.
    """
    reference = parse(text)
    if not isinstance(reference, FileRef):
        raise InvalidURI(f"not the URI of a file by its content: {text[:80]!r}", hint="for example sha1://HASH/NAME")
    return reference


def named_uri(hash_: str, name: str | None = None, *, algorithm: str = "sha1") -> str:
    """`sha1://HASH/NAME`, as `kachery.store_*` gives it.

    Args:
        hash_: The content's hash.
        name: A name for people, or `None` for a URI without one. Its directories are dropped, it is percent-encoded,
            and shortened before its suffix where the URI would be longer than 200 characters.
        algorithm: The hash's algorithm.
    """
    base = f"{algorithm}://{hash_}"
    name = (name or "").rstrip("/").rpartition("/")[2]
    if not name:
        return base
    room = LONGEST - len(base) - 1
    quoted = _quote(name)
    if len(quoted) > room:
        stem, dot, suffix = name.rpartition(".")
        if not stem or len(_quote(suffix)) > 12:
            stem, dot, suffix = name, "", ""
        while stem and len(quoted) > room:
            stem = stem[:-1]
            quoted = _quote(stem + dot + suffix)
    return f"{base}/{quoted}"


def tree_uri(hash_: str, name: str | None = None, *, algorithm: str = "sha1") -> str:
    """`sha1dir://HASH.NAME`, as `kachery.store_dir` gives it.

    Args:
        hash_: The hash of the directory's manifest.
        name: A name for people, or `None`; percent-encoded, and shortened where the URI would be longer than 200
            characters.
        algorithm: The hash's algorithm.
    """
    base = f"{algorithm}dir://{hash_}"
    name = (name or "").rstrip("/").rpartition("/")[2]
    while len(_quote(name)) > LONGEST - len(base) - 1:
        name = name[:-1]
    return f"{base}.{_quote(name)}" if name else base


def labelled_uri(hash_: str, label: str | None = None, *, algorithm: str = "sha1") -> str:
    """`sha1://HASH?label=LABEL`, as `kachery_cloud.store_*` gives it; an empty label is written, `None` is not."""
    return f"{algorithm}://{hash_}" + ("" if label is None else f"?label={_quote(label)}")


def zone_uri(zone: str | None, hash_: str, label: str | None = None, *, algorithm: str = "sha1") -> str:
    """`kachery:ZONE:sha1:HASH[:LABEL]`, as kachery 2.x gives it; the zone of what is on this machine only is empty."""
    return f"kachery:{zone or ''}:{algorithm}:{hash_}" + (f":{_quote(label)}" if label else "")


def prefixed_uri(prefix: str, hash_: str, label: str | None = None) -> str:
    """`PREFIX/sha1/HASH[?label=LABEL]`, as `KACHERY_STORE_FILE_PREFIX` asks for it."""
    return f"{prefix}/sha1/{hash_}" + ("" if label is None else f"?label={_quote(label)}")


def chained_path(text: str) -> str:
    """What follows `kachery://` in that spelling of a file's or tree's URI; a text that is none stays as it is.

    >>> chained_path("sha1://b971c6ef19b1d70ae8f0feb989b106c319b36230/a.nwb")
    'sha1/b971c6ef19b1d70ae8f0feb989b106c319b36230/a.nwb'
    """
    rest = text.removeprefix(_CHAINED)
    scheme, mark, place = rest.partition("://")
    if mark and scheme in _KINDS:
        return f"{scheme}/{place}"
    parts = rest.split(":", 4)
    if parts[0] != "kachery" or len(parts) < 4:
        return rest
    _, zone, algorithm, hash_, *label = parts
    # here a label ends where the text does; there a query would begin
    return "/".join(
        [*([zone] if zone else []), algorithm, hash_, *(part.replace("?", "%3F") for part in label if part)]
    )


def with_manifest(uri: str, manifest: str) -> str:
    """A URI that also names the manifest of the file's chunks, as classic kachery 0.6.5 and later gave it."""
    return f"{uri}{'&' if '?' in uri else '?'}manifest={manifest}"


def with_location(uri: str, path: str) -> str:
    """A URI that also says where its content lies on this machine; the path is written as it is, as upstream does."""
    return f"{uri}{'&' if '?' in uri else '?'}location={path}"


def _quote(text: str) -> str:
    return quote(text, errors="surrogatepass")


def _unquote(text: str) -> str:
    return unquote(text, errors="replace")


def _hash(algorithm: str, text: str, uri: str) -> str:
    if digest.is_hash(algorithm, text):
        return text
    if digest.is_hash(algorithm, text.lower()):
        raise InvalidURI(f"the hash in {uri[:80]!r} has capital letters", hint=f"write {text.lower()}")
    length = digest.HEX_LENGTHS[algorithm]
    raise InvalidURI(
        f"{uri[:80]!r} does not hold a {algorithm} hash",
        hint=f"{length} hexadecimal digits are expected, {len(text)} characters are there",
    )


def _content(kind: str, rest: str, uri: str) -> FileRef | TreeRef:
    if kind.endswith("dir"):
        return _tree(kind.removesuffix("dir"), rest, uri)
    return _file(kind, rest, uri)


def _chained(uri: str) -> FileRef | TreeRef:
    first, _, rest = chained_path(uri).partition("/")
    kind, _, after = rest.partition("/")
    if first in _KINDS and kind not in _KINDS:
        return _content(first, rest, uri)
    if kind not in _KINDS:
        raise InvalidURI(
            f"not the URI of a file or directory: {uri[:80]!r}",
            hint="kachery://sha1/HASH/NAME or kachery://ZONE/sha1/HASH/NAME",
        )
    return replace(_content(kind, after, uri), zone=_zone(first))


def _zone(name: str) -> str:
    try:
        return names.zone(name)
    except InvalidName as error:
        raise InvalidURI(error.message, hint=error.hint) from error


def _file(algorithm: str, rest: str, uri: str) -> FileRef:
    place, _, query = rest.partition("?")
    head, _, name = place.partition("/")
    hash_ = _hash(algorithm, head.partition(".")[0], uri)
    items = _query(query) if query else {}
    label = items.get("label")
    location = items.get("location")
    manifest = items.get("manifest")
    if manifest is not None and not digest.is_hash("sha1", manifest):
        raise InvalidURI(f"the manifest in {uri[:120]!r} is not a SHA-1 hash")
    return FileRef(
        algorithm,
        hash_,
        label=_unquote(label) if label else (_unquote(name) if name else None),
        location=location if location and location.startswith("/") else None,
        manifest=manifest,
        chunk_of=_chunk(items.get("chunkOf"), uri),
    )


def _kachery(uri: str) -> FileRef:
    parts = uri.split(":", 4)
    if len(parts) < 4:
        raise InvalidURI(
            f"too few parts in {uri[:80]!r}", hint="kachery:ZONE:sha1:HASH or kachery:ZONE:sha1:HASH:LABEL"
        )
    zone, algorithm, hash_ = parts[1:4]
    if algorithm not in digest.HEX_LENGTHS:
        raise InvalidURI(f"unknown hash algorithm {algorithm!r} in {uri[:80]!r}", hint="sha1, sha256 or md5")
    checked = _zone(zone) if zone else None
    label = _unquote(parts[4]) if len(parts) > 4 and parts[4] else None
    return FileRef(algorithm, _hash(algorithm, hash_, uri), label=label, zone=checked)


def _tree(algorithm: str, rest: str, uri: str) -> TreeRef:
    place, _, _ = rest.partition("?")
    head, _, path = place.partition("/")
    hash_, _, name = head.partition(".")
    try:
        parts = names.relative_path(path.rstrip("/")) if path.rstrip("/") else ()
    except InvalidName as error:
        raise InvalidURI(f"{error.message} in {uri[:80]!r}") from error
    return TreeRef(algorithm, _hash(algorithm, hash_, uri), name=_unquote(name) if name else None, path=parts)


def _encrypted(rest: str, uri: str) -> EncryptedRef:
    place, _, query = rest.partition("?")
    ciphertext, _, group = place.partition(".ag_")
    items = _query(query)
    group = group or items.get("ag", "")
    if not _HEX.fullmatch(ciphertext) or not _IDENTIFIER.fullmatch(group):
        raise InvalidURI(f"not an encrypted URI: {uri[:80]!r}", hint="sha1-enc://HEX.ag_GROUP")
    label = items.get("label")
    return EncryptedRef(ciphertext, group, label=_unquote(label) if label else None)


def _feed(rest: str, uri: str) -> FeedRef:
    place, _, _ = rest.partition("?")
    feed_id, _, subfeed = place.partition("/")
    if not _IDENTIFIER.fullmatch(feed_id):
        raise InvalidURI(f"not a feed's URI: {uri[:80]!r}", hint="kachery-feed://ID")
    return FeedRef(feed_id, _unquote(subfeed) if subfeed else None)


def _github(rest: str, uri: str) -> GithubRef:
    parts = rest.split("/", 3)
    if len(parts) < 4 or not all(parts):
        raise InvalidURI(f"too few parts in {uri[:80]!r}", hint="gh://USER/REPOSITORY/BRANCH/PATH")
    try:
        names.relative_path("/".join(parts))
    except InvalidName as error:
        raise InvalidURI(f"{error.message} in {uri[:80]!r}") from error
    return GithubRef(*parts)


def _zenodo(rest: str, uri: str, *, sandbox: bool) -> ZenodoRef:
    record, _, name = rest.partition("?")[0].partition("/")
    if not _IDENTIFIER.fullmatch(record) or not name:
        raise InvalidURI(f"not the URI of a file in a Zenodo record: {uri[:80]!r}", hint="zenodo://RECORD/NAME")
    try:
        names.relative_path(name)
    except InvalidName as error:
        raise InvalidURI(f"{error.message} in {uri[:80]!r}") from error
    return ZenodoRef(record, name, sandbox=sandbox)


def _url(uri: str) -> UrlRef:
    if not re.fullmatch(r"https?://[^/?#\s]+.*", uri):
        raise InvalidURI(f"the address names no host: {uri[:80]!r}")
    try:
        # a number out of range is only looked at when it is asked for
        _ = urlsplit(uri).port
    except ValueError as error:
        raise InvalidURI(f"not an address: {uri[:80]!r}: {error}") from error
    match = _NAMED_BY_HASH.search(re.split(r"[?#]", uri, maxsplit=1)[0])
    return UrlRef(uri, sha1=match.group(1) if match else None)


def _query(text: str) -> dict[str, str]:
    items: dict[str, str] = {}
    for item in text.partition("?")[0].split("&"):
        name, equals, value = item.partition("=")
        # upstream drops items that do not have exactly one "="
        if equals and "=" not in value:
            items[name] = value
    return items


def _chunk(text: str | None, uri: str) -> tuple[str, int, int] | None:
    if text is None:
        return None
    match = _CHUNK.fullmatch(text)
    if match is None or int(match.group(2)) > int(match.group(3)):
        raise InvalidURI(f"chunkOf in {uri[:120]!r} is not HASH~START~END")
    return match.group(1), int(match.group(2)), int(match.group(3))
