"""Buckets in object stores: which address means which, and what only a store elsewhere can get wrong."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import obstore
import pytest

from kachery.errors import Conflict, InvalidInput, KacheryError, NotAllowed, NotConfigured, NotFound, Unreachable
from kachery.gateway.buckets import objects
from kachery.gateway.buckets.contract import Digests
from kachery.gateway.buckets.directory import DirectoryBucket
from kachery.gateway.buckets.objects import ObjectBucket
from kachery.gateway.buckets.places import open_bucket
from kachery.gateway.config import GatewayConfig
from kachery.gateway.databases import open_database
from kachery.gateway.runtime import remember_bucket
from kachery.gateway.services import accounts, files, zones
from rigs import objects as rig

if TYPE_CHECKING:
    from pathlib import Path

    from kachery.gateway.buckets.contract import Bucket

KEY = "zones/lab/sha1/ab/cd/ef/abcdef"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only what a test sets."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def publish(bucket: Bucket, content: bytes, key: str = KEY) -> None:
    staging = bucket.stage("one")
    staging.write([content], 0)
    staging.close()
    assert bucket.publish("one", key)
    bucket.discard("one")


def use_keys(monkeypatch: pytest.MonkeyPatch, key: str = rig.KEY, secret: str = rig.SECRET) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)


def test_a_directory(tmp_path: Path) -> None:
    bucket = open_bucket(f"file://{tmp_path}/bucket", tmp_path / "spool")
    assert isinstance(bucket, DirectoryBucket)
    publish(bucket, b"content")
    assert (tmp_path / "bucket" / KEY).read_bytes() == b"content"


def test_an_address_with_a_prefix(
    object_store: rig.ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_keys(monkeypatch)
    bucket = open_bucket(f"s3://lab/{tmp_path.name}/a?endpoint={object_store.endpoint}", tmp_path / "spool")

    publish(bucket, b"content")

    assert bucket.uri == f"s3://lab/{tmp_path.name}/a"
    found: Any = object_store.open("lab")
    assert bytes(obstore.get(found, f"{tmp_path.name}/a/{KEY}").bytes()) == b"content"
    assert list(bucket.keys()) == [KEY]


def test_keys_of_a_profile(object_store: rig.ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aws = tmp_path / "home" / ".aws"
    aws.mkdir(parents=True)
    (aws / "credentials").write_text(
        "[default]\naws_access_key_id = nobody\naws_secret_access_key = wrong\n"
        f"[lab]\naws_access_key_id = {rig.KEY}\naws_secret_access_key = {rig.SECRET}\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "lab")
    bucket = open_bucket(f"s3://lab/{tmp_path.name}?endpoint={object_store.endpoint}", tmp_path / "spool")
    publish(bucket, b"content")
    assert bucket.stat(KEY) == 7

    monkeypatch.setenv("AWS_PROFILE", "none")
    with pytest.raises(NotConfigured, match="no profile 'none'"):
        open_bucket("s3://lab", tmp_path / "spool")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("lab", "not the address"),
        ("s3://", "not the address"),
        ("ftp://lab", "not the address"),
        ("file://host/x", "not the address"),
        ("s3://lab?colour=red", "unknown option colour"),
        ("s3://key:secret@lab", "holds no keys"),
        ("r2://lab", "names no endpoint"),
    ],
)
def test_what_is_no_address(address: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        open_bucket(address, tmp_path / "spool")
    assert caught.value.hint
    assert "secret" not in str(caught.value).replace("SECRET", "")


def test_large_files_go_in_parts(
    object_store: rig.ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "IN_PARTS_ABOVE", 6_000_000)
    monkeypatch.setattr(objects, "_PART", 5 * 1024 * 1024)
    bucket = _bucket(object_store, tmp_path)
    content = bytes(range(256)) * 50_000

    publish(bucket, content)

    reader = bucket.open(KEY)
    assert reader.size == len(content)
    pieces = [reader.read(start, 1_000_000) for start in range(0, len(content), 1_000_000)]
    assert b"".join(pieces) == content
    assert reader.read(12_345_678, 100) == content[12_345_678:12_345_778], "who jumps gets what was asked for"
    reader.close()
    staging = bucket.stage("two")
    staging.write([b"other"], 0)
    staging.close()
    assert bucket.publish("two", KEY) is False


def test_an_address_for_clients(object_store: rig.ObjectStore, tmp_path: Path) -> None:
    bucket = _bucket(object_store, tmp_path, direct=True)
    publish(bucket, b"0123456789")
    address = bucket.address(KEY, 60)
    assert address is not None
    assert rig.SECRET not in address

    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    connection.request("GET", f"{parts.path}?{parts.query}", headers={"Range": "bytes=2-4"})
    reply = connection.getresponse()
    assert (reply.status, reply.read()) == (206, b"234")
    connection.request("GET", f"{parts.path}x?{parts.query}")
    refused = connection.getresponse()
    refused.read()
    assert refused.status == 403
    connection.close()
    assert _bucket(object_store, tmp_path).address(KEY, 60) is None


def test_wrong_keys_and_a_bucket_that_is_not_there(object_store: rig.ObjectStore, tmp_path: Path) -> None:
    stranger: Any = object_store.open("lab", secret_access_key="wrong")
    bucket = ObjectBucket(stranger, "s3://lab", tmp_path / "spool")
    with pytest.raises(NotAllowed, match=r"s3://lab refuses the gateway's credentials"):
        publish(bucket, b"content")

    nowhere: Any = object_store.open("no-such-bucket")
    missing = ObjectBucket(nowhere, "s3://no-such-bucket", tmp_path / "spool")
    with pytest.raises(KacheryError, match="no-such-bucket"):
        missing.open(KEY)


def test_a_store_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    with rig.running() as store:
        bucket = _bucket(store, tmp_path)
        publish(bucket, b"content" * 3_000_000)
        reader = bucket.open(KEY)
        assert reader.read(0, 7) == b"content"
        store.stop()

        with pytest.raises(Unreachable, match="s3://lab"):
            bucket.stat(KEY)
        with pytest.raises(Unreachable, match="s3://lab"):
            reader.read(20_000_000, 10)
        staging = bucket.stage("later")
        staging.write([b"later"], 0)
        staging.close()
        with pytest.raises(Unreachable):
            bucket.publish("later", f"{KEY}2")

        store.start()
        assert bucket.publish("later", f"{KEY}2") is True, "what was received is still there"
        assert bucket.stat(KEY) == 21_000_000


def test_an_object_that_is_lost(object_store: rig.ObjectStore, tmp_path: Path) -> None:
    bucket = _bucket(object_store, tmp_path)
    publish(bucket, b"content")
    reader = bucket.open(KEY)
    store: Any = object_store.open("lab", prefix=tmp_path.name)
    obstore.delete(store, KEY)

    with pytest.raises(NotFound, match="has no zones"):
        reader.read(0, 7)
    with pytest.raises(NotFound):
        bucket.digests(KEY)


def test_a_provider_that_knows_no_conditions(
    object_store: rig.ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = _bucket(object_store, tmp_path)
    put = obstore.put

    def refuse(*args: Any, mode: str | None = None, **kwargs: Any) -> Any:
        if mode == "create":
            raise obstore.exceptions.NotSupportedError("501 Not Implemented")
        return put(*args, **kwargs)

    monkeypatch.setattr(obstore, "put", refuse)
    publish(bucket, b"content")
    staging = bucket.stage("two")
    staging.write([b"other"], 0)
    staging.close()
    assert bucket.publish("two", KEY) is False
    assert bucket.open(KEY).read(0, 7) == b"content"


def _bucket(store: rig.ObjectStore, tmp_path: Path, *, direct: bool = False) -> ObjectBucket:
    opened: Any = store.open("lab", prefix=tmp_path.name)
    return ObjectBucket(opened, "s3://lab", tmp_path / "spool", direct=direct)


def test_a_gateway_stays_with_its_bucket(tmp_path: Path, object_store: rig.ObjectStore) -> None:
    config = GatewayConfig(data=tmp_path / "gateway")
    database = open_database(config.database)
    address = f"s3://lab/{tmp_path.name}?endpoint={object_store.endpoint}"
    assert database.write_now(remember_bucket, None) is None
    assert database.write_now(remember_bucket, address) == address
    assert database.write_now(remember_bucket, None) == address, "the next start need not name it"
    with pytest.raises(Conflict, match="not in s3://other"):
        database.write_now(remember_bucket, "s3://other")
    database.close()


def test_a_gateway_with_files_of_its_own_does_not_move(tmp_path: Path) -> None:
    config = GatewayConfig(data=tmp_path / "gateway")
    database = open_database(config.database)

    def fill(connection: Any) -> None:
        accounts.add_user(connection, "owner", 1)
        zones.create(connection, "lab", "owner", 1, private=False, public_upload=False)
        files.add_file(connection, "lab", Digests("0" * 40, "0" * 64, 1), "owner", 1)

    database.write_now(fill)
    with pytest.raises(Conflict, match="are in its data directory"):
        database.write_now(remember_bucket, "s3://lab")
    database.close()
